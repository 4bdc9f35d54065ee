"""The state in which an engine starts each run, and whether it still was in it when the run ended."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import TypeVar

from harness.bench import UNLOADED, Bench
from harness.engines.base import ChatRequest, EngineAway, EngineError, Readiness
from harness.errors import MachineError
from harness.gateway.ledger import CallRecord
from harness.plan import Model

T = TypeVar("T")

AWAY_S = 600.0
"""For which an engine that nobody answers for is waited for: a restart or an update of it spoils no runs."""

AWAY_LOOK_S = 2.0  # between two looks whether it is back
CANCEL_LOOK_S = 0.05
SILENCE_S = 60.0  # for a token of an engine whose model is loaded; never longer than the run itself may take


def load(bench: Bench, model: Model) -> Readiness:
    """Have this model in memory, its prompt cache empty, and no other of the sweep's. Raises MachineError."""
    readiness, away_s = _once_it_is_there(bench, lambda: _load(bench, model))
    bench.memory.label = model.label
    if away_s:
        note = f"the engine was away: {away_s:.0f} s until it was ready"
        readiness = replace(readiness, notes=(*readiness.notes, note))
    return readiness


def _once_it_is_there(bench: Bench, ask: Callable[[], T]) -> tuple[T, float]:
    """What the engine says, and the seconds for which nobody answered before; 0.0 when it said so at once."""
    began, away = time.monotonic(), False
    while True:
        try:
            said = _until_cancelled(bench, ask)
        except EngineAway:
            if time.monotonic() - began > AWAY_S or bench.cancelled.wait(AWAY_LOOK_S):
                raise
            away = True
        else:
            return said, time.monotonic() - began if away else 0.0


def _until_cancelled(bench: Bench, ask: Callable[[], T]) -> T:
    """An engine that hangs may be waited for for minutes; whoever interrupts a sweep is not kept so long."""
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=work, name="engine", daemon=True).start()
    while not wait([done], CANCEL_LOOK_S).done:  # returns as soon as it is: each run begins with this
        if bench.cancelled.is_set():
            raise MachineError("interrupted while the engine was being made ready")
    return done.result()


def _load(bench: Bench, model: Model) -> Readiness:
    for other in bench.plan.models:
        if other is not model:
            other.engine.unload(other.info.name)
    readiness = model.engine.prepare(model.info.name, model.num_ctx)
    if None not in (readiness.digest, model.info.digest) and readiness.digest != model.info.digest:
        raise MachineError(
            f"{model.label} is another model than when the sweep began ({model.info.digest} then, {readiness.digest} "
            "now): bring the first one back, or start a new sweep"
        )
    return readiness


def unload(bench: Bench) -> None:
    """Have none of the sweep's models in memory. Raises MachineError."""
    for model in bench.plan.models:
        model.engine.unload(model.info.name)
    bench.memory.label = UNLOADED


def prepare_for_several(bench: Bench, model: Model) -> None:
    """Make an engine ready once for runs that go on at the same time. Raises MachineError."""
    readiness = load(bench, model)
    bench.shared[model.label] = replace(readiness, notes=(*readiness.notes, "made ready once for several runs"))


def ready(bench: Bench, model: Model) -> Readiness:
    """Bring the engine to the state in which each run starts. Raises MachineError."""
    if bench.plan.spec.slots > 1:
        _once_it_is_there(bench, lambda: model.engine.loaded_context_tokens(model.info.name))
        return replace(bench.shared[model.label], load_s=0.0, clear_s=0.0)
    readiness = load(bench, model)
    if bench.plan.spec.engine_state == "cold":
        unload(bench)
    return readiness


def spoilt(bench: Bench, model: Model, calls: Sequence[CallRecord]) -> str | None:
    """What of the engine made a run worthless, however it ended: another window than it should have, or silence."""
    sent = [call for call in calls if call.sent]
    if not sent:
        return None
    with contextlib.suppress(MachineError):
        window = model.engine.loaded_context_tokens(model.info.name)
        if window not in (None, model.num_ctx):
            return (
                f"at the end of the run {model.label} was loaded with a window of {window} tokens, not {model.num_ctx}"
                ": its server was restarted, or another client uses it"
            )
    unheard = sent[-1].first_token_s is None and sent[-1].status in ("aborted", "timeout")
    if unheard and bench.plan.spec.slots == 1:  # a long prefill, or a server that hangs: one token tells which
        request = ChatRequest(model.info.name, ({"role": "user", "content": "1"},), model.num_ctx, 1, 0.0, seed=0)
        try:
            bench.gateways[model.info.engine].ask(request, min(SILENCE_S, bench.plan.spec.time_limit_s))
        except EngineError as error:
            if error.kind == "timeout" or (error.kind == "unavailable" and error.status is None):
                return f"its last call was not answered, and nor was one of a single token: {error}"
    return None
