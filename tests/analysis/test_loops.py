"""What is a loop and what is not: one conversation for each side of every rule, as a framework would have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import pytest

from harness.analysis.loops.detector import Loop
from harness.analysis.loops.kinds import KINDS, Settings, rule_of
from harness.analysis.loops.watch import History, Watch, history_of
from harness.analysis.steps.journal import Call

SYSTEM = {"role": "system", "content": "You are an engineer."}
ISSUE = {"role": "user", "content": "Mend it."}
COMPLAINT = "Format error: expected exactly 1 action."

Turn = tuple[str, str | None, str]
"""An answer, what came of it, and the state of the files afterwards."""


def sh(command: str, thought: str = "") -> str:
    return f"{thought}\n```sh\n{command}\n```"


def turns(*pairs: tuple[str, str | None] | Turn) -> list[Turn]:
    """Without a state of its own, a turn leaves the files as they were."""
    state, found = "0", []
    for pair in pairs:
        state = pair[2] if len(pair) == 3 else state
        found.append((pair[0], pair[1], state))
    return found


def history(said: Iterable[Turn], settings: Settings | None = None) -> History:
    watch = Watch(settings)
    messages: list[dict[str, str]] = [SYSTEM, ISSUE]
    state, steps = "0", []
    for number, (answer, outcome, after) in enumerate(said):
        if (step := watch.asked(list(messages), state)[0]) is not None:
            steps.append(step)
        watch.answered(number, "ok", answer, [], False)
        messages.append({"role": "assistant", "content": answer})
        if outcome is not None:
            messages.append({"role": "user", "content": outcome})
        state = after
    return History([*steps, *watch.ended()], watch.detector.loops(), sorted(watch.detector.useful), [])


def loops(said: Sequence[Turn], settings: Settings | None = None) -> list[tuple[str, int, int]]:
    """Kind, onset and end of each; after a last turn whose outcome was seen."""
    return [(loop.kind, loop.onset, loop.end) for loop in history([*said, (sh("submit"), None, "z")], settings).loops]


FILE = "\n".join(f"def function_number_{number}(argument):" for number in range(8))
OTHER = "\n".join(f"class ClassNumber{number}(Base):" for number in range(8))
BEGUN = (sh("cat a.py"), FILE)
FAILS = "Traceback (most recent call last):\nValueError: no such column: price"


def test_the_same_again_is_a_loop_whatever_is_said_around_it() -> None:
    again = [(sh("ls  -la", f"Thought number {number}."), f"total 4 after 0.{number}s") for number in range(4)]
    assert loops(turns(BEGUN, *again)) == [("repeated_action", 2, 4)]


def test_once_more_is_no_loop() -> None:
    assert loops(turns(BEGUN, BEGUN, (sh("cat b.py"), OTHER))) == []


def test_polling_what_changes_is_no_loop() -> None:
    log = [(sh("tail -n 1 build.log"), f"compiled {number} of 90") for number in range(12)]
    tests = [(sh("pytest -q"), f"{9 - number} failed") for number in range(8)]
    assert loops(turns(*log, *tests)) == []


def test_a_wait_in_which_nothing_happens_is_one() -> None:
    log = [(sh("sleep 5; tail -n 1 build.log"), "compiled 3 of 90")] * 5
    assert loops(turns(*log)) == [("repeated_action", 1, 4)]


def test_tests_after_each_edit_are_no_loop_whatever_they_say() -> None:
    cycle: list[Any] = []
    for number in range(6):
        cycle += [(sh(f"sed -i s/1/{number}/ a.py"), "", f"state {number}"), (sh("pytest -q"), FAILS)]
    assert loops(turns(BEGUN, *cycle)) == []


def test_the_same_error_from_actions_that_hardly_differ() -> None:
    paths = ("src/a.py", "./src/a.py", "/testbed/src/a.py", "src/a.py")
    said = [(sh(f"cat {path}"), f"cat: {path}: No such file or directory") for path in paths]
    assert loops(turns(BEGUN, *said)) == [("repeated_error", 2, 4)]


def test_errors_that_say_something_new_are_no_loop() -> None:
    said = [(sh("python a.py"), f"Traceback (most recent call last):\nKeyError: 'k{number}'") for number in range(5)]
    assert loops(turns(BEGUN, *said)) == []


def test_searches_that_find_nothing_are_no_error() -> None:
    said = [
        (sh(f"grep -rn word{number} src"), "<returncode>1</returncode>\n<output>\n</output>") for number in range(4)
    ]
    assert loops(turns(BEGUN, *said)) == []


@pytest.mark.parametrize("period", [2, 3, 5, 10])
def test_cycles_of_every_length(period: int) -> None:
    once = [(sh(f"cat file{number}.py"), f"content of file number {number}: " + FILE) for number in range(period)]
    assert loops(turns(*(once * 3))) == [("cycle", period, 3 * period - 1)]


def test_a_longer_round_than_the_longest_is_no_cycle() -> None:
    once = [(sh(f"cat file{number}.py"), f"content of file number {number}") for number in range(11)]
    assert not [kind for kind, _, _ in loops(turns(*(once * 3))) if kind == "cycle"]


def test_a_cycle_in_which_something_moves_is_none() -> None:
    said = [
        pair for number in range(6) for pair in ((sh("sleep 1"), ""), (sh("tail -n 1 log"), f"line number {number}"))
    ]
    assert loops(turns(*said)) == []


def test_answers_that_the_framework_can_not_read() -> None:
    said = [(f"I think about it, number {number}.", COMPLAINT) for number in range(3)]
    assert loops(turns(BEGUN, *said)) == [("format_errors", 2, 3)]
    assert loops(turns(BEGUN, *said[:2])) == []


def test_the_last_answer_of_a_run_that_ends_for_its_format_counts() -> None:
    said = [("One.", COMPLAINT), ("Two.", COMPLAINT), ("Three.", None)]
    assert [(loop.kind, loop.onset, loop.end) for loop in history(turns(*said)).loops] == [("format_errors", 1, 2)]
    said[-1] = (sh("submit"), None)
    assert history(turns(*said)).loops == []


def test_unreadable_answers_between_two_errors_do_not_hide_that_they_are_the_same() -> None:
    error = (sh("frobnicate"), "bash: frobnicate: command not found")
    assert loops(turns(BEGUN, error, error, ("Hm.", COMPLAINT), error)) == [("repeated_error", 2, 4)]


def test_talk_that_nobody_answers_with_anything_new() -> None:
    said = [(f"Let me think about it, part {number}.", "Your thought has been logged.") for number in range(5)]
    assert loops(turns(BEGUN, *said)) == [("monologue", 2, 5)]


def test_talk_that_is_answered_is_a_conversation() -> None:
    said = [
        (f"And what about part {number}?", f"Part {number} is in the file a{number}.py, below.") for number in range(5)
    ]
    assert loops(turns(BEGUN, *said)) == []


def test_an_answer_that_says_the_same_over_and_over() -> None:
    said = ("You need to include exactly one command. " * 20, COMPLAINT)
    assert loops(turns(BEGUN, said, (sh("ls"), "a.py"))) == [("degenerate", 1, 1)]
    [loop] = history(turns(BEGUN, said, (sh("ls"), "a.py"))).loops
    assert loop.alarm is None
    [loop, _] = history(turns(BEGUN, said, said, said)).loops
    assert (loop.kind, loop.onset, loop.alarm) == ("degenerate", 1, 3)


def test_an_edit_says_old_and_new_and_is_not_degenerate() -> None:
    edit = f"patch <<'END'\n{FILE}\n=======\n{FILE.replace('argument', 'value')}\nEND"
    assert loops(turns((sh(edit), "patched", "1"))) == []


def test_reading_the_same_by_other_commands() -> None:
    numbered = "\n".join(f"{number}\t{line}" for number, line in enumerate(FILE.splitlines(), 1))
    said = [(sh("cat a.py"), FILE), (sh("nl a.py"), numbered), (sh("head -n 99 a.py"), FILE), (sh("cat ./a.py"), FILE)]
    assert loops(turns(*said)) == [("re_reading", 1, 3)]


def test_reading_again_what_was_changed_is_no_loop() -> None:
    said: list[Any] = []
    for number in range(5):
        said += [(sh(f"sed -i {number}d a.py"), "", str(number)), (sh("cat a.py"), FILE)]
    assert loops(turns(*said)) == []


def test_looking_for_several_things_in_one_file_is_no_loop() -> None:
    lines = FILE.splitlines()
    said = [(sh(f"grep -n {number} a.py"), "\n".join(lines[number : number + 4])) for number in range(5)]
    assert loops(turns(BEGUN, *said)) == []


IDLE = ("pwd", "whoami", "echo 'now I begin with the work'", "true", "date", "id -un", "umask", "echo $HOME",
        "hostname", "command -v git", "sleep 1", "uname")  # fmt: skip


def test_a_long_stretch_in_which_nothing_comes_out() -> None:
    outcomes = {"echo 'now I begin with the work'": "now I begin with the work", "date": "Thu Nov 26 11:04:25 UTC 2026"}
    said = [(sh(command), outcomes.get(command, "ok")) for command in IDLE]
    assert loops(turns(BEGUN, *said)) == [("no_progress", 1, 12)]


def test_a_long_stretch_of_reading_is_progress() -> None:
    said = [(sh(f"sed -n {number}p a.py"), f"def another_function_{number}(value):") for number in range(30)]
    assert loops(turns(*said)) == []


def test_changes_that_go_back_and_forth() -> None:
    back_and_forth = [(sh(f"git {word}"), "", state) for word, state in [("apply", "1"), ("checkout", "0")] * 4]
    assert loops(turns(BEGUN, *back_and_forth)) == [("edit_revert", 3, 8)]


def test_one_edit_that_is_taken_back_is_no_loop() -> None:
    said = [(sh("git stash"), "", "1"), (sh("pytest"), FAILS), (sh("git stash pop"), "", "0")]
    assert loops(turns(BEGUN, *said, (sh("sed -i 1d a.py"), "", "2"))) == []


def again(times: int) -> History:
    watch = Watch()
    for number in range(times):
        watch.asked([SYSTEM, ISSUE], "0")
        watch.answered(number, "ok", f"Words of answer {number}, which is thrown away.", [], False)
    steps = watch.ended()
    return History(steps, watch.detector.loops(), [], [])


def test_the_same_request_over_and_over() -> None:
    assert [(loop.kind, loop.onset, loop.end) for loop in again(4).loops] == [("retry_storm", 1, 3)]
    assert again(2).loops == []


def test_a_conversation_that_is_cut_down_and_begins_anew() -> None:
    watch = Watch()
    long = [{"role": "user", "content": f"{number}"} for number in range(5)]
    number = 0
    for _ in range(4):
        for command, tail in (("cat a.py", long[:1]), ("cat b.py", long)):
            watch.asked([SYSTEM, ISSUE, *tail], "0")
            watch.answered(number, "ok", sh(command), [], False)
            number += 1
    assert ("context_thrash", 4) in [(loop.kind, loop.onset) for loop in watch.detector.loops()]


def test_a_loop_goes_on_where_a_framework_has_cut_the_conversation_down() -> None:
    once = (sh("cat a.py"), FILE)
    condensed = [once] * 4 + [(sh("ls"), "a.py")] + [once] * 4
    assert loops(turns(*condensed)) == [("repeated_action", 1, 8)]


def test_what_was_useful_ends_a_loop_of_changes_and_its_count() -> None:
    flips = [(sh(f"git {word}"), "", state) for word, state in [("apply", "1"), ("checkout", "0")] * 4]
    found = history(turns(*flips, (sh("cat b.py"), OTHER, "0"), *flips, (sh("submit"), None)))
    assert [(loop.onset, loop.end) for loop in found.loops] == [(2, 7), (10, 16)]
    assert found.dead_end is not None
    assert found.dead_end.onset == 10


def test_a_lone_degenerate_answer_hides_no_loop_after_it() -> None:
    said = ("You need to include exactly one command. " * 20, COMPLAINT)
    found = history(turns(BEGUN, said, *[(sh("ls"), "a.py")] * 9, (sh("ls"), None)))
    assert [loop.kind for loop in found.loops] == ["degenerate", "repeated_action"]
    assert found.dead_end is not None
    assert found.dead_end.kind == "repeated_action"


def test_a_ruler_is_not_degenerate() -> None:
    assert history(turns(BEGUN, ("All is well, the fix is done.\n" + "-" * 60, None))).loops == []


def test_what_changed_files_was_carried_out_whatever_it_printed() -> None:
    wrong = "error: could not parse app.cfg: line"
    said = [(sh(f"sed -i {n}d app.cfg; check"), f"{wrong} {n}", str(n)) for n in range(1, 6)]
    found = history(turns(*said, (sh("submit"), None)))
    assert found.loops == []
    assert found.useful == [0, 1, 2, 3, 4]


def test_a_last_step_of_unknown_outcome_begins_no_loop() -> None:
    assert history(turns((sh("ls"), "a.py"), (sh("ls"), "a.py"), (sh("ls"), None))).loops == []
    error = (sh("cat x"), "cat: x: No such file or directory")
    assert history(turns((sh("pytest"), "2 passed"), error, error, (sh("pytest"), None))).loops == []


def test_a_return_to_an_old_state_does_not_interrupt_a_stretch() -> None:
    idle = [(sh(command), "ok") for command in IDLE if "echo 'now" not in command]
    said = turns(
        BEGUN,
        (sh("git stash"), "", "1"),
        *[(a, b, "1") for a, b in idle[:6]],
        (sh("git stash pop"), "", "0"),
        *idle[6:],
    )
    assert loops(said) == [("no_progress", 2, 13)]


def test_an_error_and_its_action_are_one_loop() -> None:
    said = [(sh("frobnicate"), "bash: frobnicate: command not found")] * 6
    [loop] = history(turns(BEGUN, *said, (sh("submit"), None))).loops
    assert (loop.kind, loop.onset, loop.end, loop.steps) == ("repeated_error", 2, 6, 5)


def test_more_conversations_than_are_looked_at_lose_no_step() -> None:
    watch = Watch()
    for number in range(200):
        watch.asked([SYSTEM, {"role": "user", "content": f"question {number}"}], None)
        watch.answered(number, "ok", sh("ls"), [], False)
    assert [step.call for step in watch.ended()] == list(range(200))


def test_useful_steps_are_told_from_those_that_bring_nothing() -> None:
    said = turns(
        BEGUN, BEGUN, (sh("sed -i 1d a.py"), "", "1"), BEGUN, (sh("true"), ""), ("Hm.", COMPLAINT), (sh("x"), None)
    )
    assert history(said).useful == [0, 2, 3]


def test_larger_settings_need_more() -> None:
    said = turns(BEGUN, *[(sh("ls"), "a.py")] * 5)
    assert loops(said, Settings().scaled(2)) == []
    assert loops(said, Settings().scaled(5 / 3)) == [("repeated_action", 2, 5)]


def test_every_rule_can_be_said_with_its_numbers() -> None:
    for kind in KINDS.values():
        assert "{" not in rule_of(kind, Settings())
    mentioned = " ".join(kind.rule for kind in KINDS.values())
    for field in fields(Settings):
        assert f"{{{field.name}" in mentioned


def call(index: int, messages: list[dict[str, str]], answer: str, status: str = "ok") -> Call:
    return Call(index, status, 200, False, "0", list(messages), answer, [])


def test_the_request_that_meets_a_limit_tells_what_came_of_the_last_step() -> None:
    one, two = sh("ls"), sh("ls")
    first = [SYSTEM, ISSUE]
    second = [*first, {"role": "assistant", "content": one}, {"role": "user", "content": "a.py"}]
    third = [*second, {"role": "assistant", "content": two}, {"role": "user", "content": "a.py"}]
    found = history_of([call(0, first, one), call(1, second, two), call(2, third, "", "limit")])
    assert [(step.call, step.observation) for step in found.steps] == [(0, "a.py"), (1, "a.py")]


def conversation(times: int) -> list[Call]:
    messages = [SYSTEM, ISSUE]
    calls = []
    for number in range(times):
        calls.append(call(number, messages, sh("ls")))
        messages += [{"role": "assistant", "content": sh("ls")}, {"role": "user", "content": "a.py"}]
    return calls


def test_what_a_guard_would_have_seen_and_when() -> None:
    found = history_of(conversation(8))
    assert found.loops == [Loop("repeated_action", 0, 1, 7, 7, 2)]
    # The outcome of call 2 is told by call 3: by then the loop has the calls 1 and 2.
    assert found.growth == [(3, 2), (4, 3), (5, 4), (6, 5), (7, 6)]
    assert [found.stopped_at(patience) for patience in (1, 2, 4, 6, 7)] == [3, 3, 5, 7, None]


def test_a_run_never_recovers_from_a_loop_after_which_nothing_got_it_any_further() -> None:
    again = [(sh("ls"), "a.py")] * 4
    stuck = history(turns(BEGUN, *again, (sh("submit"), None)))
    assert stuck.dead_end is not None
    assert stuck.dead_end.onset == 2
    recovered = history(turns(*again, (sh("sed -i 1d a.py"), "", "1"), (sh("submit"), None)))
    assert [loop.kind for loop in recovered.loops] == ["repeated_action"]
    assert recovered.dead_end is None
