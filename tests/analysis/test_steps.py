"""Calls into steps, with answers and requests as frameworks write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.analysis.loops.watch import history_of
from harness.analysis.steps.actions import actions_of, is_clear
from harness.analysis.steps.journal import Unanalysable, read_calls
from harness.analysis.steps.observations import compared, error_of, is_complaint, is_failure, lines_of, text_of
from harness.analysis.steps.rebuild import Rebuild, Step
from harness.analysis.steps.wording import repetition


def called(name: str, arguments: object) -> list[dict[str, Any]]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return [{"id": "1", "type": "function", "function": {"name": name, "arguments": text}}]


def key(text: str = "", calls: list[dict[str, Any]] | None = None) -> str:
    return "\n".join(action.key for action in actions_of(text, calls or []))


LS = "$ ls -la src"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("THOUGHT: I look.\n\n```mswea_bash_command\nls -la src\n```", []),
        ("Other words altogether.\n\n```bash\nls   -la src  \n```\nand more", []),
        ("```\nls -la src\n```", []),
        ("```python\nprint(1)\n```\nNo, rather\n```sh\n# look around\nls -la src\n```", []),
        ("<function=terminal>\n<parameter=command>\nls -la src\n</parameter>\n</function>", []),
        ("<function=bash>\n<parameter=command>ls -la src", []),  # cut by the word that ends an answer
        ("I call it", called("bash", {"command": "ls -la src"})),
        ("", called("terminal", {"summary": "have a look", "security_risk": "LOW", "command": "ls -la src"})),
    ],
)
def test_the_same_command_is_the_same_action_in_every_pipeline(text: str, calls: list[dict[str, Any]]) -> None:
    assert key(text, calls) == LS


def test_arguments_in_another_order_with_other_words_about_them_are_the_same() -> None:
    one = called("file_editor", {"command": "view", "path": "/a.py", "summary": "a look"})
    other = called("file_editor", '{"path":"/a.py",   "summary": "again", "command":"view"}')
    assert key("", one) == key("", other)
    assert key("", one) != key("", called("file_editor", {"command": "view", "path": "/b.py"}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sed -n '1,50p' a.py", "sed -n '51,100p' a.py"),
        ("pytest tests/test_a.py", "pytest tests/test_b.py"),
        ("if True:\n    a = 1\n    b = 2", "if True:\n    a = 1\n        b = 2"),
        ("cat log.1", "cat log.2"),
    ],
)
def test_what_differs_in_the_doing_is_another_action(one: str, other: str) -> None:
    assert key(f"```bash\n{one}\n```") != key(f"```bash\n{other}\n```")


def test_names_that_are_new_each_time_make_no_other_action() -> None:
    first = "```bash\npytest > /tmp/out.Xq81Ab; touch -d '2026-11-26 10:00:01' a\n```"
    second = "```bash\npytest > /tmp/out.9sKK2c; touch -d '2026-11-26 10:07:44' a\n```"
    assert key(first) == key(second)


@pytest.mark.parametrize("text", ["I think the bug is in a.py.", "", "```", "<function=", "{not json", "{}}{"])
def test_talk_is_no_action(text: str) -> None:
    assert actions_of(text, []) == ()
    assert actions_of(text, called("think", {"thought": "hm"})) == ()


def test_broken_arguments_and_foreign_calls_are_taken_as_they_are() -> None:
    assert key("", called("bash", '{"comma')) == 'bash {"comma'
    assert key("", [{"function": {"name": None, "arguments": {"a": 1}}}, {"function": 3}, {}]) == 'None {"a": 1}'
    assert key('{"API_calls": ["f(1)"], "bug_locations": []}') == key('{"bug_locations":[], "API_calls": ["f(1)"]}')


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 passed in 0.12s", "5 passed in 3.4s"),
        ("Thu Nov 26 11:04:25 UTC 2026", "Thu Nov 26 11:04:31 UTC 2026"),
        ("-rw-r--r-- 1 root root 12 Nov 26 11:04 a", "-rw-r--r-- 1 root root 12 Nov 26 11:09 a"),
        ("<Foo at 0x7f01>", "<Foo at 0x7f9e>"),
        ("/tmp/tmpab12/x: no", "/tmp/tmpzz/x: no"),
        ("real\t0m0.123s", "real\t1m2.500s"),
        ("[1] 4711", "[1] 4712"),
        ("took 7.412013e-05", "took 8.1e-06"),
        ("3.14159265358979", "3.15159265358979"),
        ("Allowed: {'b', 'a'}", "Allowed: {'a', 'b'}"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_outcomes_that_differ_in_what_is_volatile_are_equal(one: str, other: str) -> None:
    assert compared(one) == compared(other)


@pytest.mark.parametrize(
    ("one", "other"), [("5 failed", "3 failed"), ("line 12", "line 13"), ("x" * 40_000, "x" * 40_001), ("a b", "a\nb")]
)
def test_outcomes_that_say_something_else_are_not(one: str, other: str) -> None:
    assert compared(one) != compared(other)


def test_a_megabyte_is_compared_by_its_ends() -> None:
    text = "".join(f"line {number}\n" for number in range(200_000))
    assert len(compared(text)) < 40_000
    assert len(lines_of(compared(text))) <= 2_000


@pytest.mark.parametrize(
    "complaint",
    [
        "Format error:\n\n<error>\nExpected exactly 1 action, found 0.\n</error>",
        "We did not detect the right number of bash code blocks in your output.\nYou need to include EXACTLY ONE bash "
        "code block in your output.",
        "Your output was not formatted correctly. You must always include one discussion and one command.",
        "Your last output did not use any tool calls!",
        "The search API calls seem not valid. Please check the arguments you give carefully and try again.",
        "Your previous response reached the output token limit (finish_reason=length) before you produced an action",
        "Error in code parsing:\nYour code snippet is invalid, because the regex pattern was not found in it.",
        "Tool 'frobnicate' not found. Available: ['terminal']",
        "The LLM did not conform to the edit format.",
    ],
)
def test_what_frameworks_say_of_an_answer_that_they_can_not_read(complaint: str) -> None:
    assert is_complaint(complaint)


@pytest.mark.parametrize(
    "outcome",
    [
        "<returncode>1</returncode>\n<output>\nValueError: invalid JSON\n</output>",
        "<observation>\nE   parse error: could not parse 'a'\n</observation>",
        "EXECUTION RESULT of [terminal]:\nno tool calls found",
        "src/a.py\nsrc/b.py",
        "x\n" * 500 + "invalid json",
    ],
)
def test_what_a_command_says_is_no_complaint(outcome: str) -> None:
    assert not is_complaint(outcome)


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        ("<returncode>2</returncode>", True),
        ("bash: foo: command not found", True),
        ("Traceback (most recent call last):\n", True),
        ("[The command completed with exit code 1.]", True),
        ("usage: sed [OPTION]", True),
        ("error: no such file", True),
        ("<returncode>0</returncode>\n<output>\n3 passed\n</output>", False),
        ("exit code 0", False),
        ("class MyError:\n    pass", False),
    ],
)
def test_failures_are_told_from_results(outcome: str, failed: bool) -> None:
    assert is_failure(outcome) is failed


def test_content_that_is_no_text_is_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:..."}}
    assert text_of([{"type": "text", "text": "see"}, image]) == "see\n[image_url]"
    assert text_of(None) == ""
    assert text_of({"a": 1}) == '{"a": 1}'


def test_words_over_and_over() -> None:
    assert repetition("").words == 0
    assert repetition("one two three").twice == 0
    assert repetition("Each of these words stands here for the first time, as in any sentence.").twice == 0
    assert repetition("You need to include exactly one command. " * 50).four_times > 0.95
    assert repetition("2." * 300).four_times > 0.95
    sentence = "You need to include exactly one command. "
    assert repetition(sentence * 2).twice > 0.5
    assert repetition(sentence * 2).thrice == 0 < repetition(sentence * 3).thrice


def test_lines_are_the_same_with_and_without_their_numbers_and_in_an_object() -> None:
    text = "def the_first_function(value):\n    return value + value\nx = 1"
    numbered = "\n".join(f"    {number}\t{line}" for number, line in enumerate(text.splitlines(), 8))
    wrapped = json.dumps({"returncode": 0, "output": text})
    assert set(lines_of(text)) == set(lines_of(numbered)) == set(lines_of(wrapped))
    assert len(lines_of(text)) == 2


@pytest.mark.parametrize(
    ("outcome", "asked"),
    [
        ("ok\nroot\n/testbed", ""),
        ("Thu <moment> <moment> UTC 2026", ""),
        ("----------------------------------------", ""),
        ("[The command completed with exit code 0.]", ""),
        ("now I begin with the work", "echo 'now I begin with the work'"),
        ("working directory: /testbed", 'echo "working directory: $PWD"'),
    ],
)
def test_lines_that_are_not_worth_having_read(outcome: str, asked: str) -> None:
    assert lines_of(outcome, asked) == ()


def test_an_error_is_its_lines_without_folders() -> None:
    assert error_of("a.py\ncat: src/b.py: No such file or directory") == "cat: b.py: No such file or directory"
    assert error_of("<returncode>1</returncode>\n<output>\n</output>") is None


@pytest.mark.parametrize(
    ("text", "calls", "clear"),
    [
        ("```sh\nls\n```", [], True),
        ("<function=bash>\n<parameter=command>ls", [], True),
        ("", called("bash", {"command": "ls"}), True),
        ("```sh\nls\n```\nor\n```sh\npwd\n```", [], False),
        ("```\nls\n```", [], False),
        ("ls", [], False),
    ],
)
def test_what_hardly_any_framework_would_refuse(text: str, calls: list[dict[str, Any]], clear: bool) -> None:
    assert is_clear(text, calls) is clear


# Conversations.

SYSTEM = {"role": "system", "content": "You are an engineer."}
ISSUE = {"role": "user", "content": "Mend it."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def model(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def rebuilt(*turns: tuple[list[dict[str, str]], str]) -> list[Step]:
    rebuild, steps = Rebuild(), []
    for number, (messages, answer) in enumerate(turns):
        if step := rebuild.asked(messages, None):
            steps.append(step)
        rebuild.answered(number, "ok", answer, [], False)
    return sorted([*steps, *rebuild.ended()], key=lambda step: step.call)


def test_an_outcome_stands_in_the_next_request() -> None:
    first = [SYSTEM, ISSUE]
    second = [*first, model("```sh\nls\n```"), user("a.py")]
    steps = rebuilt((first, "```sh\nls\n```"), (second, "```sh\ncat a.py\n```"))
    assert [(step.said.action, step.observation, step.thread, step.said.request) for step in steps] == [
        ("$ ls", "a.py", 0, "first"),
        ("$ cat a.py", None, 0, "next"),
    ]


def test_an_answer_that_is_not_kept_is_a_step_all_the_same() -> None:
    first = [SYSTEM, ISSUE]
    steps = rebuilt((first, "hm"), ([*first, user("Format error: exactly 1 action")], "hm"))
    assert steps[0].observation == "Format error: exactly 1 action"
    assert steps[0].unreadable


def test_the_same_request_again_has_no_outcome() -> None:
    steps = rebuilt(*[([SYSTEM, ISSUE], f"answer {number}") for number in range(3)])
    assert [(step.said.request, step.observation, step.discarded) for step in steps] == [
        ("first", None, True),
        ("again", None, True),
        ("again", None, False),
    ]


def test_two_conversations_side_by_side_keep_their_own_outcomes() -> None:
    search = [SYSTEM, ISSUE]
    proxy = [{"role": "system", "content": "Turn words into JSON."}, user("find f")]
    more = [*search, model("find f"), user("f is in a.py")]
    other = [proxy[0], user("find g")]
    steps = rebuilt((search, "find f"), (proxy, "{}"), (more, "find g"), (other, "{}"))
    assert [(step.thread, step.observation) for step in steps] == [(0, "f is in a.py"), (1, None), (0, None), (2, None)]


def test_a_conversation_that_is_cut_down_goes_on() -> None:
    first = [SYSTEM, ISSUE]
    second = [*first, model("a"), user("1"), model("b"), user("2")]
    third = [*first, user("Summary: a and b were tried."), model("c"), user("3")]
    steps = rebuilt((first, "a"), (second, "c"), (third, "d"))
    assert [(step.said.request, step.observation) for step in steps] == [
        ("first", "1\n2"),
        ("next", "3"),
        ("cut_down", None),
    ]


# Journals.


def journal(*calls: dict[str, Any]) -> tuple[list[str], list[str]]:
    return [json.dumps(call) for call in calls], [json.dumps({"sha256": "f" * 64, "message": ISSUE})]


def call(index: int, **other: Any) -> dict[str, Any]:
    answer = {"text": "hm", "thinking": "", "tool_calls": []}
    return {"index": index, "status": "ok", "http_status": 200, "finish_reason": "stop", "workdir": None,
            "messages": ["f" * 64], "answer": answer} | other  # fmt: skip


def test_calls_are_put_in_their_order_and_what_is_no_step_is_left_out() -> None:
    calls, messages = journal(
        call(3), call(0), call(1, status="refused", http_status=400), call(2, status="engine_error", http_status=None)
    )
    assert [step.call for step in history_of(read_calls(calls, messages)).steps] == [0, 3]


@pytest.mark.parametrize(
    ("calls", "messages", "complaint"),
    [
        ([], [], "calls.jsonl: it is empty"),
        (["{"], [], "calls.jsonl, line 1: "),
        (["[]"], [], "calls.jsonl, line 1: not an object"),
        (["{}"], [], "calls.jsonl, line 1: no answer"),
        ([json.dumps(call(0)), json.dumps(call(0))], None, "calls.jsonl, line 2: call 0 stands there twice"),
        ([json.dumps(call(0, messages=["a" * 64]))], None, "line 1: a message that is not in messages.jsonl"),
        ([json.dumps(call(0, answer=3))], None, "line 1: not a call of the gateway"),
        ([json.dumps(call(0))[:-20]], None, "calls.jsonl, line 1: "),
        ([json.dumps(call(0))], ['{"sha256": 3}'], "messages.jsonl, line 1: no sha256"),
    ],
)
def test_a_journal_that_can_not_be_read_says_where(
    calls: list[str], messages: list[str] | None, complaint: str
) -> None:
    with pytest.raises(Unanalysable) as error:
        read_calls(calls, journal()[1] if messages is None else messages)
    assert complaint in str(error.value)
