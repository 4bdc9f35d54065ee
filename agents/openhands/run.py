"""Runs OpenHands, unmodified, on one task; agents/README.md says what is found and left here."""

import json
import os
from pathlib import Path

# Read when the packages below are imported.
os.environ |= {
    "ALLOW_SHORT_CONTEXT_WINDOWS": "true",  # else it refuses models that litellm lists with less than 16,384 tokens
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet for prices
    "LITELLM_MODE": "PRODUCTION",  # else it reads the .env of the repository under repair
    "OPENHANDS_SUPPRESS_BANNER": "1",
}

from openhands.sdk import LLM, Conversation, LocalConversation
from openhands.sdk.conversation.exceptions import ConversationRunError
from openhands.sdk.event import ActionEvent
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.tool.builtins.finish import FinishAction
from openhands.tools.preset.default import get_default_agent

# OpenHands has no wording of its own for an issue, and tells the model to only answer what looks like a question.
PROMPT = "The repository in {workdir} has this issue. Resolve it by changing the files there.\n\n{issue}"

STATUSES = {"FINISHED": "submitted", "STUCK": "gave_up", "MaxIterationsReached": "limit"}


def main() -> None:
    task = json.loads(Path(os.environ["HARNESS_TASK_FILE"]).read_text(encoding="utf-8"))
    llm = LLM(
        model=f"openai/{task['model']}",
        base_url=task["base_url"],
        api_key=task["api_key"],
        usage_id="agent",
        api_mode="chat",  # else the model's name decides
        native_tool_calling=task["protocol"] == "tools",
        num_retries=0,  # what is tried again is the gateway's business
        timeout=int(task["limits"]["time_s"]),
        # By default it asks every model on this route to reason hard, and then leaves the sampling out.
        reasoning_effort=None,
        capability_overrides={"supports_reasoning_effort": False, "supports_sampling_params": True},
        **task["sampling"],
    )
    conversation = Conversation(
        agent=get_default_agent(llm, cli_mode=True),  # all of its default tools but the browser, and its condenser
        workspace=task["workdir"],
        persistence_dir=task["out_dir"],
        max_iteration_per_run=task["limits"]["max_calls"],
        visualizer=None,
    )
    issue = Path(task["instruction_file"]).read_text(encoding="utf-8")
    conversation.send_message(PROMPT.format(workdir=task["workdir"], issue=issue))
    try:
        conversation.run()
        result = ending(conversation)
    except ConversationRunError as error:  # its wrapper around whatever ends a run by an exception
        cause = error.original_exception
        result = {"status": "error", "message": f"{type(cause).__name__}: {cause}".splitlines()[0][:500]}
    metrics = conversation.conversation_stats.get_combined_metrics()
    used = metrics.accumulated_token_usage if metrics.token_usages else None
    result["details"] = {
        "model_calls": len(metrics.response_latencies),
        "input_tokens": used and used.prompt_tokens,
        "output_tokens": used and used.completion_tokens,
    }
    Path(task["result_file"]).write_text(json.dumps(result), encoding="utf-8")


def ending(conversation: LocalConversation) -> dict[str, object]:
    """What a conversation came to, in OpenHands' own word. It says FINISHED of an answer without an action too."""
    events = conversation.state.events
    word = conversation.state.execution_status.name
    if word == "ERROR":
        word = next((event.code for event in reversed(events) if isinstance(event, ConversationErrorEvent)), word)
    last = next((event.action for event in reversed(events) if isinstance(event, ActionEvent)), None)
    if word == "FINISHED" and not isinstance(last, FinishAction):
        return {"status": "gave_up", "message": "FINISHED by talking instead of acting"}
    return {"status": STATUSES.get(word, "error"), "message": word}


if __name__ == "__main__":
    main()
