"""Runs mini-swe-agent, unmodified, on one task; agents/README.md says what is found and left here."""

import json
import os
from pathlib import Path

# Read when the packages below are imported. What is tried again is the gateway's business: an error that it
# answers does not heal by asking ten times.
os.environ |= {
    "MSWEA_SILENT_STARTUP": "1",
    "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
    "LITELLM_MODE": "PRODUCTION",  # else it reads the .env of the repository under repair
}

import openai
from minisweagent.agents.default import DefaultAgent
from minisweagent.config import get_config_from_spec
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models import get_model

# mini's own settings for work in a local directory. Those for SWE-bench name /testbed and have the model
# write its patch into a file there; here the harness takes the patch.
CONFIGS = {"text": "mini_textbased.yaml", "tools": "mini.yaml"}
MODEL_CLASSES = {"text": "litellm_textbased", "tools": "litellm"}
COMMAND_TIMEOUT_S = 60  # as in mini's settings for SWE-bench; the local ones leave 30, too short for a test run

STATUSES = {
    "Submitted": "submitted",
    "LimitsExceeded": "limit",
    "TimeExceeded": "limit",
    "RepeatedFormatError": "format_failure",
}


def main() -> None:
    task = json.loads(Path(os.environ["HARNESS_TASK_FILE"]).read_text(encoding="utf-8"))
    config = get_config_from_spec(CONFIGS[task["protocol"]])
    model = get_model(
        config=config["model"]
        | {
            "model_name": f"openai/{task['model']}",
            "model_class": MODEL_CLASSES[task["protocol"]],
            "cost_tracking": "ignore_errors",
            "set_cache_control": None,  # else set for any model with "claude" in its name
            "model_kwargs": config["model"].get("model_kwargs", {})
            | {
                "api_base": task["base_url"],
                "api_key": task["api_key"],
                "max_retries": 0,
                "timeout": task["limits"]["time_s"],
            },
        }
    )
    environment = LocalEnvironment(
        cwd=task["workdir"], timeout=COMMAND_TIMEOUT_S, env=config["environment"].get("env", {})
    )
    agent = DefaultAgent(
        model,
        environment,
        system_template=config["agent"]["system_template"],
        instance_template=config["agent"]["instance_template"],
        step_limit=task["limits"]["max_calls"],
        cost_limit=0,
        wall_time_limit_seconds=int(task["limits"]["time_s"]),
        output_path=Path(task["out_dir"]) / "trajectory.json",
    )
    try:
        exit_status = agent.run(Path(task["instruction_file"]).read_text(encoding="utf-8"))["exit_status"]
        result = {"status": STATUSES.get(exit_status, "error"), "message": exit_status}
    except openai.APIError as error:  # what litellm raises for every failed request
        result = {"status": "error", "message": f"{type(error).__name__}: {error}".splitlines()[0][:500]}
    result["details"] = {"model_calls": agent.n_calls}
    Path(task["result_file"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
