"""What every agent is tried with: a model that does its work, bad models, bad servers, commands that misbehave.

Each scenario is one run against a scripted model. What must come of it is the same for every framework; how the
framework gets there is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.conformance.speech import Speech
from harness.engines.base import Capability
from harness.engines.scripted_play import Entry, ToolCall
from harness.outcome import EndedBy
from harness.plan import Protocol
from harness.spec import SandboxUser
from harness.suites import load_suite
from harness.suites.harbor import HarborTask

TASK = "cinema-seats-off-by-one"
"""Of the suite smoke; an agent whose play takes no commands solves this one."""

UNHEALABLE_S = 30.0
"""An agent may spend this much on errors that can't heal."""

ITSELF: tuple[EndedBy, ...] = ("format_failure", "gave_up")
AGENT: tuple[EndedBy, ...] = (*ITSELF, "submitted", "budget_calls", "crashed")

RAMBLING = (
    "Let me think about the seats in a cinema. There are many ways to look at a row of seats, and each has its own."
)
NO_BLOCK = (
    "I will list the files first. Run ls -la in the repository, then open boxoffice/search.py and look at the loop."
)
KEPT = "echo kept > kept.txt"
# On one line, as all commands here: there are frameworks that run one command at a time.
NETWORK = (
    "if timeout 5 bash -c 'exec 3<>/dev/tcp/1.1.1.1/53' 2>/dev/null; then said=open; else said=closed; fi; "
    'echo "$said, $(($(wc -l < /proc/net/route) - 1)) routes" > net.txt'
)
FLOOD = f"{KEPT}; yes 'a line of output that says nothing' | head -c 67108864"

Answers = Callable[[Speech | None], Sequence[Entry]]
"""What the model says, to an agent that it is known how to speak to or, where that does not matter, to any."""


@dataclass(frozen=True)
class Scenario:
    """One way a run can go, and what must come of it."""

    name: str
    shows: str
    answers: Answers
    ended_by: tuple[EndedBy, ...]
    protocols: tuple[Protocol, ...] = ("text",)  # tried in those of them that the agent has, or else in its first
    speaks: bool = False  # the model has to know how to speak to the agent
    needs_commands: bool = False  # and that agent has to run shell commands
    repeat: bool = True  # the last answer again and again
    thinks: bool = False
    user: SandboxUser = "root"  # "agent": tried with those alone that say they can do without root
    max_calls: int = 8
    time_limit_s: float = 120.0
    num_predict: int = 2048
    within_s: float | None = None  # from the first call that failed to the end of the agent stage
    patch_has: str | None = None
    verdict: Literal["resolved"] | None = None


def smoke_task() -> HarborTask:
    """The task that every scenario is a run on."""
    [task] = [task for task in load_suite("smoke").tasks if task.name == TASK]
    assert isinstance(task, HarborTask)
    return task


def _solve(speech: Speech | None) -> Sequence[Entry]:
    assert speech is not None
    patch = (smoke_task().folder / "solution" / "fix.patch").read_text(encoding="utf-8")
    return speech.answers(f"patch -p1 <<'END_OF_PATCH'\n{patch}END_OF_PATCH")


def _all(**fields: object) -> Answers:
    """The same answer whatever the agent."""
    return lambda _: [Entry.model_validate(fields)]


def _slowly(speech: Speech | None) -> Sequence[Entry]:
    return [entry.model_copy(update={"first_token_delay_s": 4.0}) for entry in _solve(speech)]


def _then(fault: str) -> Answers:
    """A command, and then a server that fails."""

    def answers(speech: Speech | None) -> Sequence[Entry]:
        # An agent that asks once gets the fault at once.
        asks_on = speech is not None and speech.takes_commands and len(speech.play.answers) > 1
        return [*(speech.act(KEPT) if speech and asks_on else ()), Entry.model_validate({"fault": fault})]

    return answers


def _tool(call: ToolCall) -> Answers:
    return lambda _: [Entry(tool_calls=(call,))]


def _broken(speech: Speech | None) -> Sequence[Entry]:
    """The agent's own words for a command, cut in the middle as by a model that loses its thread."""
    assert speech is not None
    [*_, words] = speech.act("ls -la; cat README.md") or speech.answers("")
    text = words.text[: len(words.text) * 2 // 3]
    calls = [call.model_copy(update={"arguments": json.dumps(call.arguments)[:-3]}) for call in words.tool_calls]
    return [words.model_copy(update={"text": text, "tool_calls": tuple(calls)})]


def _act(command: str) -> Answers:
    return lambda speech: speech.act(command) if speech else ()


def _all_of_it(command: str) -> Answers:
    return lambda speech: speech.answers(command) if speech else ()


BOTH: tuple[Protocol, ...] = ("text", "tools")

RUNS = Scenario("runs", "it runs once on a task", lambda _: (), AGENT)
RUNS_UNROOTED = Scenario("runs-unrooted", "it runs once as a user who is not root", lambda _: (), AGENT, user="agent")
"""The only ones for an agent that calls no model."""

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("solves", "it can resolve a task", _solve, ("submitted",), BOTH, speaks=True, repeat=False, max_calls=40,
             verdict="resolved"),
    Scenario("unrooted", "it can resolve a task as a user who is not root", _solve, ("submitted",), BOTH, speaks=True,
             repeat=False, user="agent", max_calls=40, verdict="resolved"),
    Scenario("slow-server", "it waits for a model that takes seconds to begin", _slowly, ("submitted",), speaks=True,
             repeat=False, max_calls=40, time_limit_s=240, verdict="resolved"),
    Scenario("rambles", "a model that talks and does nothing", _all(text=RAMBLING), (*ITSELF, "budget_calls"), BOTH),
    Scenario("no-code-block", "a command in prose, without the agent's format", _all(text=NO_BLOCK),
             (*ITSELF, "budget_calls"), BOTH),
    Scenario("broken-format", "the agent's format, cut in the middle", _broken, AGENT, speaks=True),
    Scenario("says-nothing", "empty answers", _all(text=" "), AGENT, BOTH),
    Scenario("wrong-tool", "a tool that does not exist", _tool(ToolCall(name="frobnicate", arguments={"x": 1})),
             AGENT, ("tools",)),
    Scenario("broken-json", "arguments of a tool that are no JSON", _tool(ToolCall(name="bash", arguments='{"comma')),
             AGENT, ("tools",)),
    Scenario("wrong-arguments", "arguments that the tool does not have",
             _tool(ToolCall(name="bash", arguments={"cmd": 7})), AGENT, ("tools",)),
    Scenario("same-command", "the same command for ever", _act("ls"), AGENT, BOTH, speaks=True, needs_commands=True),
    Scenario("too-long", "answers that are cut at the limit", _all(text="and then " * 200, finish="length"), AGENT,
             num_predict=64),
    Scenario("only-thinking", "an answer of nothing but thinking", _all(thinking="hm " * 20), AGENT, thinks=True),
    Scenario("thinks-too-long", "thinking that uses up the answer", _all(thinking="hm " * 400),
             (*ITSELF, "budget_calls"), thinks=True, num_predict=64, within_s=UNHEALABLE_S),
    Scenario("dead-server", "a model server that is gone", _then("refuse"), ("model_error",), within_s=UNHEALABLE_S),
    Scenario("failing-server", "a model server that answers 500", _then("http_500"), ("model_error",),
             within_s=UNHEALABLE_S),
    Scenario("refusing-server", "a model server that answers 400", _then("http_400"), ("crashed", *ITSELF),
             within_s=UNHEALABLE_S),
    Scenario("window-full", "a conversation that outgrows the window", _then("context_overflow"),
             ("context_overflow",), within_s=UNHEALABLE_S),
    Scenario("silent-server", "a model server that never answers", _then("hang"), ("model_error",), time_limit_s=20),
    Scenario("hangs", "a command that never ends", _act(f"{KEPT}; sleep 100000"), ("timeout",), speaks=True,
             needs_commands=True, time_limit_s=20, patch_has="kept.txt"),
    Scenario("crashes", "a command that kills the agent", _act(f"{KEPT}; kill -9 -1"), ("crashed",),
             speaks=True, needs_commands=True, patch_has="kept.txt"),
    Scenario("network", "a command that tries to reach the internet", _all_of_it(NETWORK), ("submitted",),
             speaks=True, needs_commands=True, repeat=False, patch_has="+closed, 0 routes"),
    Scenario("huge-output", "a command that prints 64 MiB", _all_of_it(FLOOD), ("submitted",), speaks=True,
             needs_commands=True, repeat=False, patch_has="kept.txt"),
)  # fmt: skip


def capabilities_of(scenario: Scenario, protocol: Protocol | None) -> frozenset[Capability]:
    """What the scripted model can do in a scenario."""
    found: set[Capability] = set()
    if protocol == "tools":
        found.add("tools")
    if scenario.thinks:
        found.add("thinking")
    return frozenset(found)
