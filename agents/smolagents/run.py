"""Runs smolagents, with a shell as its tool, on one task; agents/README.md says what is found and left here."""

import json
import os
import subprocess
from pathlib import Path

from smolagents import AgentError, CodeAgent, OpenAIServerModel, ToolCallingAgent, tool

PROMPT = "The repository in {workdir} has this issue. Resolve it by changing the files there.\n\n{issue}"


def shell(command: str) -> str:
    """Runs a shell command in the repository, for 60 seconds at most, and returns the end of what it prints.

    Args:
        command: The command, of one line or many.
    """
    # A flood of output goes through tail, not through this process; timeout ends what is left in the background too.
    line = ["timeout", "-k", "5", "60", "sh", "-c", 'sh -c "$0" 2>&1 | tail -c 8000', command]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode in (124, 137):  # timeout's own, and what a second signal makes of it
        return "It was ended after 60 seconds."
    return done.stdout.decode(errors="replace") or "It printed nothing."


def main() -> None:
    task = json.loads(Path(os.environ["HARNESS_TASK_FILE"]).read_text(encoding="utf-8"))
    model = OpenAIServerModel(
        task["model"],
        api_base=task["base_url"],
        api_key=task["api_key"],
        # What is tried again is the gateway's business.
        retry=False,
        client_kwargs={"max_retries": 0, "timeout": task["limits"]["time_s"]},
        flatten_messages_as_text=True,  # the templates of small models want a string
    )
    # After its last step it asks once more, for a summary; that call the gateway refuses.
    settings = {"tools": [tool(shell)], "model": model, "max_steps": task["limits"]["max_calls"]}
    if task["protocol"] == "tools":
        agent = ToolCallingAgent(**settings)
    else:
        # Its limit of 30 s for a piece of code waits for the code all the same, and then calls it a failure.
        agent = CodeAgent(**settings, executor_kwargs={"timeout_seconds": None})
    issue = Path(task["instruction_file"]).read_text(encoding="utf-8")
    try:
        state = agent.run(PROMPT.format(workdir=task["workdir"], issue=issue), return_full_result=True).state
        result = {"status": "submitted" if state == "success" else "limit", "message": state}
    except AgentError as error:  # those that the model can do something about are told to it, and don't come here
        result = {"status": "error", "message": f"{type(error).__name__}: {error}".replace("\n", " ")[:500]}
    tokens = agent.monitor.get_total_token_counts()
    result["details"] = {
        "model_calls": sum(step.get("token_usage") is not None for step in agent.memory.get_succinct_steps()),
        "input_tokens": tokens.input_tokens,
        "output_tokens": tokens.output_tokens,
    }
    Path(task["result_file"]).write_text(json.dumps(result), encoding="utf-8")
    trajectory = json.dumps(agent.memory.get_succinct_steps(), default=str)
    (Path(task["out_dir"]) / "trajectory.json").write_text(trajectory, encoding="utf-8")


if __name__ == "__main__":
    main()
