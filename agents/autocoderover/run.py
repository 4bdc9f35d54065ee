"""Runs AutoCodeRover on one task, from its checkout; agents/README.md says what is found and left here."""

import json
import os
import subprocess
import tempfile
import traceback
from pathlib import Path
from typing import Any

os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
    "LITELLM_MODE": "PRODUCTION",  # else it reads the .env of the repository under repair
    "REQUEST_TIMEOUT": os.environ["HARNESS_TIME_LIMIT_S"],  # else ten minutes for an answer
    "OPENAI_API_BASE_URL": os.environ["OPENAI_BASE_URL"],
    "OPENAI_KEY": os.environ["OPENAI_API_KEY"],
    "PYTHONPATH": os.environ["HARNESS_WORKDIR"],  # for the tests, as is the next
    "PYTHONDONTWRITEBYTECODE": "1",
}

from app import config, log
from app.agents.agent_reproducer import NoReproductionStep, TestAgent
from app.data_structures import ReproResult
from app.main import do_inference
from app.model import common
from app.model.gptlitellm import OpenaiLiteLLMModel
from app.post_process import ExtractStatus, read_extract_status
from app.raw_tasks import RawLocalTask
from app.task import PlainTask
from loguru import logger
from tenacity import RetryError, stop_after_attempt

# Two minutes, as it gives to the tests of SWE-bench's tasks; 16 MB for a file, and its end for the next prompt.
TEST = 'ulimit -f 32768; exec timeout -s KILL 120 python3 "$0/reproducer.py" > "$0/out" 2> "$0/err"'
SHOWN_CHARACTERS = 8000


class EndpointModel(OpenaiLiteLLMModel):  # type: ignore[misc]
    # Of its classes, LiteLLMGeneric asks for JSON only if the model's name has "gpt" in it.
    call = OpenaiLiteLLMModel.call.retry_with(stop=stop_after_attempt(1), reraise=True)

    def __init__(self) -> None:
        super().__init__(f"openai/{os.environ['HARNESS_MODEL']}", 0, 0)


has_reproduction_steps = TestAgent._issue_has_reproduction_steps


def ask_for_reproduction_steps(issue: str) -> Any:
    try:
        return has_reproduction_steps(issue)
    except RetryError as error:
        raise NoReproductionStep from error


def execute_reproducer(self: PlainTask, test_content: str, patch_content: str | None = None) -> ReproResult:
    with tempfile.TemporaryDirectory() as folder:  # in the repository, a run that is stopped would leave it behind
        Path(folder, "reproducer.py").write_text(test_content, encoding="utf-8")
        done = subprocess.run(["sh", "-c", TEST, folder], cwd=self.project_path, stdin=subprocess.DEVNULL)
        said = [Path(folder, name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")]
    return ReproResult(*(text[-SHOWN_CHARACTERS:] for text in said), done.returncode)


TestAgent._issue_has_reproduction_steps = staticmethod(ask_for_reproduction_steps)
PlainTask.execute_reproducer = execute_reproducer


def main() -> None:
    task = json.loads(Path(os.environ["HARNESS_TASK_FILE"]).read_text(encoding="utf-8"))
    out = Path(task["out_dir"], "autocoderover")
    out.mkdir()
    logger.remove()
    log.print_stdout = False  # as with --no-print: all of it is in its files too
    model = EndpointModel()
    common.register_model(model)
    common.set_model(model.name)
    config.models = [model.name]
    try:
        issue = RawLocalTask(task["task"], task["workdir"], task["instruction_file"])
        issue.dump_meta_data(str(out))
        do_inference(issue.to_task(), str(out))  # which resets the work directory in the end
        selected = json.loads((out / "selected_patch.json").read_text(encoding="utf-8"))
        subprocess.run(["git", "apply", out / selected["selected_patch"]], cwd=task["workdir"], check=True)
        result = {"status": "submitted", "message": selected["reason"]}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an answer of the model can raise anything in there
        result = {"status": "error", "message": f"{type(error).__name__}: {error}".splitlines()[0][:500]}
        if traceback.extract_tb(error.__traceback__)[-1].name == "select_patch":  # its end when it has none to select
            best, _ = read_extract_status(str(out))
            unusable = best in (ExtractStatus.NO_PATCH, ExtractStatus.RAW_PATCH_BUT_UNPARSED)
            result = {"status": "format_failure" if unusable else "gave_up", "message": best.value}
    used = model.get_overall_exec_stats()  # what goes into cost.json, where an exception does not prevent it
    result["details"] = {
        "model_calls": None,
        "input_tokens": used["total_input_tokens"],
        "output_tokens": used["total_output_tokens"],
        "attempts": len(list(out.glob("output_*"))),
    }
    Path(task["result_file"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
