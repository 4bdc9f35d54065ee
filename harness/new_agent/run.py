"""Asks the model for one shell command at a time and runs it, until it says DONE.

The harness starts this file in a sandbox, in the repository to repair, without a network. All that it needs to know is
in the task file; all that counts of what it leaves is the repository. Tokens, time and energy are measured outside.
"""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

SYSTEM = """You repair the software in the current directory. Answer with one shell command in a block:

```sh
ls
```

You are then shown what it printed. When the repair is complete, answer with the single word DONE."""

MISSES = 3  # answers in a row without a command, after which going on makes no sense
SHOWN = 8000  # bytes of what a command printed: the model's window is small

task = json.loads(Path(os.environ["HARNESS_TASK_FILE"]).read_text())


def ask(messages: list[dict[str, str]]) -> str:
    """One call. What can be tried again has been tried by the endpoint, so any error is the end."""
    request = urllib.request.Request(
        f"{task['base_url']}/chat/completions",
        json.dumps({"model": task["model"], "messages": messages}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {task['api_key']}"},
    )
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)["choices"][0]["message"]["content"]
    return answer or ""


def run(command: str) -> str:
    """The end of what a command prints. A flood of output goes through tail, not through this process."""
    limited = ["sh", "-c", f'sh -c "$0" 2>&1 | tail -c {SHOWN}', command]
    done = subprocess.run(limited, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return done.stdout.decode(errors="replace") or "(nothing was printed)"


def solve() -> tuple[str, str]:
    """Work on the task. Returns the status, one of those in agents/README.md, and a line for people."""
    issue = Path(task["instruction_file"]).read_text()
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": issue}]
    misses = 0
    for _ in range(task["limits"]["max_calls"]):
        answer = ask(messages)
        block = re.search(r"```sh\n(.*?)\n```", answer, re.DOTALL)
        if block is None and answer.strip() == "DONE":
            return "submitted", "the model says that it is done"
        misses = 0 if block else misses + 1
        if misses == MISSES:
            return "format_failure", f"{MISSES} answers in a row had no command"
        said = run(block[1]) if block else "Answer with one ```sh block, or with DONE."
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": said}]
    return "limit", "all calls were used"


try:
    status, message = solve()
except (OSError, ValueError, LookupError) as error:  # no answer, or none that makes sense; an HTTPError is an OSError
    status, message = "error", f"{type(error).__name__}: {error}"
Path(task["result_file"]).write_text(json.dumps({"status": status, "message": message}))
