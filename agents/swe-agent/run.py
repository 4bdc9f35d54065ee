"""Runs SWE-agent, unmodified, on one task; agents/README.md says what is found and left here."""

import json
import os
from pathlib import Path

# Read when the packages below are imported or used, and by the installers of SWE-agent's tools.
os.environ |= {
    "HF_HUB_OFFLINE": "1",  # else litellm seeks a tokenizer there when a model is called llama-3: 23 s, twice a call
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
    "LITELLM_MODE": "PRODUCTION",  # else it reads a .env
    "PIP_RETRIES": "0",  # the editor's installer asks pip for two packages, and does without
    "SWE_AGENT_LOG_STREAM_LEVEL": "INFO",  # the log files have the rest
}

import yaml
from sweagent import CONFIG_DIR
from sweagent.run.run_single import RunSingle, RunSingleConfig

# ghapi leaves an example there, 9 kB that the model would see when it runs `env`: its shell inherits all of this.
for name in ("CONTEXT_GITHUB", "CONTEXT_NEEDS", "GITHUB_REPOSITORY"):
    os.environ.pop(name, None)

CONFIGS = {"text": "bash_only.yaml", "tools": "default.yaml"}

# By its exit status. Every other one gave up.
STATUSES = {
    "submitted": "submitted",
    "exit_format": "format_failure",
    "exit_total_execution_time": "limit",
    "exit_api": "error",
    "exit_error": "error",
    "exit_environment_error": "error",
    "no exit status": "error",
}


def main() -> None:
    task = json.loads(Path(os.environ["HARNESS_TASK_FILE"]).read_text(encoding="utf-8"))
    os.chdir(task["out_dir"])  # else it reads the .env of the repository under repair
    agent = yaml.safe_load((CONFIG_DIR / CONFIGS[task["protocol"]]).read_text(encoding="utf-8"))["agent"]
    agent["history_processors"] = []  # the only one there marks messages for Anthropic's cache
    agent["model"] = {
        "name": f"openai/{task['model']}",
        "api_base": task["base_url"],
        "api_key": task["api_key"],
        "completion_kwargs": {"max_retries": 0, "timeout": task["limits"]["time_s"]},
        "retry": {"retries": 1},  # one try in all; what is tried again is the gateway's business
        # It knows neither price nor window of a local model. Limits are the gateway's business too.
        "per_instance_cost_limit": 0,
        "total_cost_limit": 0,
        "max_input_tokens": 0,
    }
    env = {
        "deployment": {"type": "local"},
        "repo": {"type": "preexisting", "repo_name": task["workdir"].lstrip("/"), "reset": False},
    }
    problem = {"type": "text_file", "path": task["instruction_file"], "id": task["task"]}
    if task["protocol"] == "text":
        # With tools the editor tells where it is. Without it there is a gap in the prompt's words.
        problem["extra_fields"] = {"working_dir": task["workdir"]}
    run = RunSingle.from_config(
        RunSingleConfig(agent=agent, env=env, problem_statement=problem, output_dir=task["out_dir"])
    )
    try:
        run.run()
    finally:  # what goes wrong before the first step or after the last is an exception
        exit_status = run.agent.info.get("exit_status") or "no exit status"
        stats = run.agent.model.stats
        # "submitted (exit_format)" took along what there was when it ended with exit_format.
        status = STATUSES.get(exit_status.removeprefix("submitted (").removesuffix(")"), "gave_up")
        if status == "error" and stats.api_calls >= task["limits"]["max_calls"]:
            status = "limit"  # the gateway refused another call
        details = {
            "model_calls": stats.api_calls,
            "input_tokens": stats.tokens_sent,
            "output_tokens": stats.tokens_received,
        }
        result = {"status": status, "message": exit_status, "details": details}
        Path(task["result_file"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
