"""A sweep that takes seconds: an agent of a few calls with a scripted model, beside oracle and nop, on smoke tasks."""

from __future__ import annotations

from command_line import Harness

CALLER = """
import json, os, urllib.request

messages = [{"role": "user", "content": "Say what you do."}]
for number in range(CALLS):
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        json.dumps({"model": os.environ["HARNESS_MODEL"], "messages": messages}).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]},
    )
    answer = json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
    print(answer)
    with open("notes.txt", "a") as notes:
        print(answer, file=notes)
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
with open(os.environ["HARNESS_RESULT_FILE"], "w") as result:
    json.dump({"status": "submitted"}, result)
"""


def caller(harness: Harness, calls: int = 3) -> str:
    """An agent that calls its model some times and writes down what it says. Returns its path for --agents."""
    return harness.agent("caller", CALLER.replace("CALLS", str(calls)), calls_model=True, runner="run.py")


def words(harness: Harness, *more: str, repeats: int = 1, calls: int = 3, **answer: object) -> list[str]:
    """The command: 3 runs for each of `repeats`. `answer` is the scripted model's, as `fault` or `chunk_delay_s`."""
    model = harness.script({"text": "I do one thing after another.", **answer}, when_exhausted="loop")
    agents = f"oracle,nop,{caller(harness, calls)}"
    fixed = ["--tasks", "smoke", "--limit", "1", "--repeats", str(repeats)]
    return ["sweep", "--agents", agents, "--models", model, *fixed, *more]
