"""The state in which an engine starts each run: which model is in memory, and that its prompt cache is empty."""

from __future__ import annotations

from dataclasses import replace

from harness.bench import UNLOADED, Bench
from harness.engines.base import Readiness
from harness.plan import Model


def load(bench: Bench, model: Model) -> Readiness:
    """Have this model in memory, its prompt cache empty, and no other of the sweep's. Raises MachineError."""
    for other in bench.plan.models:
        if other is not model:
            other.engine.unload(other.info.name)
    readiness = model.engine.prepare(model.info.name, model.num_ctx)
    bench.memory.label = model.label
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
        return replace(bench.shared[model.label], load_s=0.0, clear_s=0.0)
    readiness = load(bench, model)
    if bench.plan.spec.engine_state == "cold":
        unload(bench)
    return readiness
