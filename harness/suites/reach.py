"""Tasks whose tests reach the internet: graded where its hosts answer, left out of the plan where they do not."""

from __future__ import annotations

from collections.abc import Callable, Collection

from harness.suites import Suite, Task
from harness.suites.hosts import answers
from harness.suites.swebench import SweBenchTask


def leave_out_unreachable(suite: Suite, named: Collection[str], reached: Callable[[str], bool] = answers) -> Suite:
    """The suite without the tasks that can't be graded here; which and why is in `left_out`.

    Raises UserError when the user named such a task, or no other is left.
    """

    def unreachable(task: Task) -> list[str]:
        return [host for host in task.hosts if not reached(host)] if isinstance(task, SweBenchTask) else []

    left_out = {
        task.name: f"its tests reach {' and '.join(missing)}, which this machine does not"
        for task in suite.tasks
        if (missing := unreachable(task))
    }
    return suite.without(left_out, named)
