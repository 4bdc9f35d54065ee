"""Runs aider, by its Python interface, on one task; agents/README.md says what is found and left here."""

import json
import os
from pathlib import Path

# Read when the packages below are imported or used.
os.environ |= {
    "BROWSER": "true",  # a command that does nothing: to everything aider is told yes, to a web page on an error too
    "HF_HUB_OFFLINE": "1",  # else litellm seeks a tokenizer there when a model is called llama-3
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
}

from aider import models
from aider.coders import Coder, base_coder
from aider.io import InputOutput
from aider.repomap import RepoMap

base_coder.RETRY_TIMEOUT = 0
RepoMap.TAGS_CACHE_DIR = "/tmp/aider-tags"

PROMPT = "Change the files of this repository so that the following issue is resolved.\n\n{issue}"


def main() -> None:
    task = json.loads(Path(os.environ["HARNESS_TASK_FILE"]).read_text(encoding="utf-8"))
    window, name = task["limits"]["num_ctx"], f"openai/{task['model']}"
    models.request_timeout = task["limits"]["time_s"]
    models.model_info_manager.local_model_metadata[name] = {"max_input_tokens": window}  # else it asks the internet
    model = models.Model(name)
    model.extra_params = {"api_base": task["base_url"], "api_key": task["api_key"], "max_retries": 0}
    model.max_chat_history_tokens = window  # else it has a talk summarized that is over
    coder = Coder.create(
        main_model=model,
        # Search and replace. Whole files are easier for a small model, but few of them fit into its longest answer.
        edit_format="diff",
        io=InputOutput(pretty=False, yes=True, fancy_input=False, chat_history_file=f"{task['out_dir']}/chat.md"),
        auto_commits=False,
        stream=False,  # else the tokens are estimated
        suggest_shell_commands=False,  # it asks before it runs one, and there "yes to everything" means no
        detect_urls=False,  # else it fetches what the issue links to
    )
    coder.run(with_message=PROMPT.format(issue=Path(task["instruction_file"]).read_text(encoding="utf-8")))
    status, message = ending(coder)
    calls, sent, received = len(coder.chat_completion_call_hashes), coder.total_tokens_sent, coder.total_tokens_received
    details = {"model_calls": calls, "input_tokens": sent, "output_tokens": received}
    result = {"status": status, "message": message, "details": details}
    Path(task["result_file"]).write_text(json.dumps(result), encoding="utf-8")


def ending(coder: Coder) -> tuple[str, str]:
    """The status and a line for people. Aider has no word for how it ended: its counters tell."""
    if coder.num_exhausted_context_windows:
        return "limit", "the window or the longest answer was exhausted"
    if coder.usage_report is None:
        return "error", "the last request failed"
    if coder.reflected_message:  # what it would have said next
        status = "format_failure" if coder.num_malformed_responses else "limit"
        return status, f"only {coder.max_reflections} reflections allowed"
    if coder.aider_edited_files:
        return "submitted", f"edited {', '.join(sorted(coder.aider_edited_files))}"
    return "gave_up", "the last answer had no edit"


if __name__ == "__main__":
    main()
