"""Tasks whose tests reach the internet: graded where its hosts answer, left out of the plan where they do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from harness.errors import UserError
from harness.suites import Suite, Task
from harness.suites.base import LeftOut
from harness.suites.hosts import answers
from harness.suites.swebench import SweBenchTask


def leave_out_unreachable(suite: Suite, named: Collection[str], reached: Callable[[str], bool] = answers) -> Suite:
    """The suite without the tasks that can't be graded here; which and why is in `left_out`.

    Raises UserError when the user named such a task, or no other is left.
    """

    def unreachable(task: Task) -> list[str]:
        return [host for host in task.hosts if not reached(host)] if isinstance(task, SweBenchTask) else []

    left_out = {}
    for task in suite.tasks:
        if missing := unreachable(task):
            left_out[task.name] = f"its tests reach {' and '.join(missing)}, which this machine does not"
    for name in named:
        if name in left_out:
            raise UserError(f"{name} can't be graded here: {left_out[name]}")
    kept = tuple(task for task in suite.tasks if task.name not in left_out)
    if not kept and left_out:
        name, reason = next(iter(left_out.items()))
        raise UserError(f"no task is left of suite {suite.name} ({name}: {reason})")
    return dataclasses.replace(suite, tasks=kept, left_out=tuple(LeftOut(*item) for item in left_out.items()))
