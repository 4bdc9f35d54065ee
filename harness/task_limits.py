"""What a sandbox may use: the sweep's limits, the task's wishes, the defaults."""

from __future__ import annotations

from harness.sandbox.container import Limits
from harness.spec import Spec
from harness.suites import Task

DEFAULT_CPUS = 2.0
DEFAULT_MEMORY_BYTES = 4 << 30
DEFAULT_DISK_BYTES = 10 << 30
HOUSEKEEPING_S = 300.0  # a container lives at most this much longer than its agent may


def task_limits(task: Task, cores: int, spec: Spec, longest_s: float = 0.0) -> Limits:
    """The sweep's limits, where it sets them. Else a task that asks for more than the defaults gets it."""
    return Limits(
        cpus=spec.cpus or max(min(DEFAULT_CPUS, cores), task.cpus or 0),
        memory_bytes=(spec.memory_mb << 20) if spec.memory_mb else max(DEFAULT_MEMORY_BYTES, task.memory_bytes or 0),
        disk_bytes=(spec.disk_mb << 20) if spec.disk_mb else max(DEFAULT_DISK_BYTES, task.storage_bytes or 0),
        deadline_s=longest_s + HOUSEKEEPING_S,
    )
