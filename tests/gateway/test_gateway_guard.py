"""The guard at a real door: what it marks, says and stops, and that the journal tells the same afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.loops.kinds import KINDS
from harness.analysis.loops.watch import History, history_of
from harness.analysis.steps.journal import read_calls
from harness.gateway.guard import MOST_NUDGES, NUDGE_AGAIN, NUDGES, Guard, Intervention, nudge, with_text

MESSAGES = [{"role": "system", "content": "You fix bugs."}, {"role": "user", "content": "fix it please"}]
SAME = """
when_exhausted = "repeat"
[[answers]]
text = "```sh\\nls\\n```"
"""


def converse(run: Any, turns: int, outcome: str = "a.py") -> list[dict[str, Any]]:
    """A framework that runs each answer's command and tells the outcome; returns what it had to say in the end."""
    messages: list[dict[str, Any]] = list(MESSAGES)
    for _ in range(turns):
        response = run.chat(messages=messages)
        if response.status_code != 200:
            break
        answer = response.json()["choices"][0]["message"]["content"]
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": outcome}]
    return messages


def again(run: Any) -> History:
    """The run from its journal, as `harness loops` sees it."""
    calls = (run.journal / "calls.jsonl").read_text().splitlines()
    messages = (run.journal / "messages.jsonl").read_text().splitlines()
    return history_of(read_calls(calls, messages))


def short(intervention: Intervention) -> tuple[str, str, int, int, int]:
    return (
        intervention.action, intervention.kind, intervention.call_index, intervention.onset, intervention.steps
    )  # fmt: skip


def test_off_does_nothing(open_run) -> None:
    run = open_run(SAME)
    converse(run, 6)
    run.close()
    assert run.door.interventions == []


def test_observing_marks_and_changes_nothing(open_run) -> None:
    run = open_run(SAME, guard="observe")
    messages = converse(run, 6)
    run.close()
    # The outcome of the third `ls` comes with call 3.
    assert [short(done) for done in run.door.interventions] == [("observed", "repeated_action", 3, 1, 2)]
    assert list(run.engine.requests[-1].messages) == messages[:-2]
    [loop] = again(run).loops
    assert (loop.kind, loop.onset, loop.end) == ("repeated_action", 1, 5)


def test_a_nudge_stands_where_it_was_said_in_all_later_requests(open_run) -> None:
    run = open_run(SAME, guard="nudge")
    messages = converse(run, 5)
    run.close()
    [told] = run.door.interventions
    assert short(told) == ("nudged", "repeated_action", 3, 1, 2)
    assert told.text == "[Notice: `ls` was run 3 times with the same outcome (a.py). Do not run it again. " \
        "Try something else than before.]"  # fmt: skip
    place = len(MESSAGES) + 2 * 3 - 1
    for request in run.engine.requests[3:]:
        assert request.messages[place] == {"role": "user", "content": f"a.py\n\n{told.text}"}
        assert [m for number, m in enumerate(request.messages) if number != place] == [
            m for number, m in enumerate(messages[: len(request.messages)]) if number != place
        ]
    # The journal has what the framework said.
    assert "Notice" not in (run.journal / "messages.jsonl").read_text()
    assert again(run).loops[0].onset == told.onset


def test_the_model_is_told_again_only_after_a_while_and_three_times_at_most(open_run) -> None:
    run = open_run(SAME, guard="nudge")
    converse(run, 40)
    run.close()
    said = run.door.interventions
    assert [done.steps for done in said if done.action == "nudged"] == [2, 2 + NUDGE_AGAIN, 2 + 2 * NUDGE_AGAIN]
    assert len(said) == MOST_NUDGES
    assert sum("Notice" in str(message["content"]) for message in run.engine.requests[-1].messages) == MOST_NUDGES


def test_a_nudge_goes_when_the_conversation_up_to_it_goes(open_run) -> None:
    run = open_run(SAME, guard="nudge")
    messages = converse(run, 4)
    run.chat(messages=[*MESSAGES, {"role": "user", "content": "Summary: ls was run."}, *messages[3:]])
    run.chat(messages=messages)
    run.close()
    assert "Notice" in str(run.engine.requests[3].messages)
    assert "Notice" not in str(run.engine.requests[4].messages)
    assert "Notice" in str(run.engine.requests[5].messages)


def test_a_word_is_said_in_the_conversation_that_it_is_of(open_run) -> None:
    """Two conversations take turns, as AutoCodeRover's do; only one of them loops."""
    answers = "".join(
        f'[[answers]]\ntext = "```sh\\nls\\n```"\n[[answers]]\ntext = "```sh\\ncat {number}.py\\n```"\n'
        for number in range(8)
    )
    run = open_run(answers, guard="nudge")
    one: list[dict[str, Any]] = list(MESSAGES)
    other: list[dict[str, Any]] = [{"role": "system", "content": "You turn words into JSON."}, MESSAGES[1]]
    for number in range(8):
        for messages, outcome in ((one, "a.py"), (other, f"def the_function_number_{number}(argument):")):
            answer = run.chat(messages=messages).json()["choices"][0]["message"]["content"]
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": outcome}]
    run.close()
    told = [done for done in run.door.interventions if done.action == "nudged"]
    assert [(done.conversation, done.call_index) for done in told] == [(0, 6)]
    with_word = [number for number, request in enumerate(run.engine.requests) if "Notice" in str(request.messages)]
    assert with_word == [6, 8, 10, 12, 14]  # the first conversation's, from its fourth request on


def test_a_word_on_an_answer_waits_for_its_own_conversation(open_run) -> None:
    """That three answers were degenerate is known before the next request comes, and that may be another's."""
    again = "Again and again. " * 30
    run = open_run(f'when_exhausted = "repeat"\n[[answers]]\ntext = "{again}"', guard="nudge")
    messages = converse(run, 3, "Format error: expected exactly 1 action.")
    run.chat(messages=[{"role": "system", "content": "Another one."}, {"role": "user", "content": "hello"}])
    run.chat(messages=messages)
    run.close()
    assert "Notice" not in str(run.engine.requests[3].messages)
    assert "Notice" in str(run.engine.requests[4].messages)


def test_stop_ends_the_run_when_its_patience_is_used_up(open_run) -> None:
    run = open_run(SAME, guard="stop", guard_patience=4)
    messages = converse(run, 20)
    records = run.close()
    assert run.door.stop_reason == "stopped_by_guard"
    assert run.door.stop_detail == "repeated_action from call 1 on, 4 steps (--guard-patience 4)"
    assert [short(done) for done in run.door.interventions] == [
        ("observed", "repeated_action", 3, 1, 2),
        ("stopped", "repeated_action", 5, 1, 4),
    ]
    assert [record.status for record in records] == ["ok"] * 5 + ["limit"]
    assert len(run.engine.requests) == 5
    assert len(messages) == len(MESSAGES) + 10
    found = again(run)
    assert found.stopped_at(3) == 4
    assert [(loop.onset, loop.steps) for loop in found.loops] == [(1, 4)]


def test_a_run_that_does_not_loop_is_left_alone(open_run) -> None:
    answers = "".join(f'[[answers]]\ntext = "```sh\\ncat {number}.py\\n```"\n' for number in range(9))
    run = open_run(answers, guard="stop", guard_patience=1)
    messages: list[dict[str, Any]] = list(MESSAGES)
    for number in range(9):
        assert run.chat(messages=messages).status_code == 200
        outcome = {"role": "user", "content": f"def the_function_number_{number}(argument):"}
        messages = [*messages, {"role": "assistant", "content": f"```sh\ncat {number}.py\n```"}, outcome]
    run.close()
    assert run.door.interventions == []
    assert run.door.stop_reason is None


@pytest.mark.parametrize("mode", ["observe", "nudge", "stop"])
def test_what_was_seen_live_is_seen_again_in_the_journal(open_run, mode: str) -> None:
    """With failures of every kind in between: the engine's, the client's, the gateway's."""
    parts = [
        *['[[answers]]\ntext = "```sh\\nls\\n```"'] * 3,
        '[[answers]]\nfault = "http_500"',
        *['[[answers]]\ntext = "```sh\\nls\\n```"'] * 2,
        '[[answers]]\nfault = "http_400"',
        *[f'[[answers]]\ntext = "{"Again and again. " * 30}"'] * 4,
        *['[[answers]]\ntext = "I only talk."'] * 6,
    ]
    run = open_run("\n".join(parts), guard=mode, guard_patience=5, num_ctx=4096, num_predict=2048)
    run.chat(n=2)
    converse(run, 8)
    converse(run, 9, "Format error: expected exactly 1 action.")
    run.close()
    live = run.door.interventions
    found = again(run)
    assert live
    for done in live:
        loop = next(loop for loop in found.loops if (loop.kind, loop.onset) == (done.kind, done.onset))
        assert loop.thread == done.conversation
        assert loop.end >= done.onset + done.steps - 1
    calls = read_calls(
        (run.journal / "calls.jsonl").read_text().splitlines(),
        (run.journal / "messages.jsonl").read_text().splitlines(),
    )
    replay = Guard(mode, 5)  # type: ignore[arg-type]
    for call in calls:
        if call.is_request:
            replay.before(call.index, call.messages, call.workdir)
        if call.is_step:
            replay.after(call.index, call.status, call.text, "", call.tool_calls, call.cut)
    assert replay.interventions == live


def test_there_is_a_word_for_every_kind() -> None:
    from harness.analysis.loops.detector import Loop

    assert NUDGES.keys() == KINDS.keys()
    for kind in KINDS:
        text = nudge(Loop(kind, 0, 3, 9, 7, 5), None)
        assert text.startswith("[Notice: ")
        assert "{" not in text
        assert len(text) < 260


def test_a_text_is_put_below_what_a_message_says() -> None:
    assert with_text({"role": "tool", "content": "a"}, "b") == {"role": "tool", "content": "a\n\nb"}
    assert with_text({"role": "tool", "content": None}, "b") == {"role": "tool", "content": "b"}
    parts = [{"type": "text", "text": "a"}]
    assert with_text({"content": parts}, "b")["content"] == [*parts, {"type": "text", "text": "b"}]
    assert len(parts) == 1
