"""What of a suite can be run and graded on this machine, found out before anything starts."""

from __future__ import annotations

from collections.abc import Collection

from harness.grading.swebench import check_parser, check_parsers
from harness.images.locate import leave_out_unbuildable
from harness.sandbox.daemon import connect
from harness.suites import Suite
from harness.suites.reach import leave_out_unreachable
from harness.suites.swebench import SweBenchTask


def gradable_here(suite: Suite, named: Collection[str]) -> Suite:
    """The suite without the instances of a data set that can't be had or graded here; which and why is in `left_out`.

    Task folders are all there is to them. Raises UserError when the user named such an instance, MachineError when
    the official parsers are missing or Docker does not answer.
    """
    if not any(isinstance(task, SweBenchTask) for task in suite.tasks):
        return suite
    check_parsers()
    for task in suite.tasks:
        if isinstance(task, SweBenchTask):
            check_parser(task)
    return leave_out_unbuildable(connect(), leave_out_unreachable(suite, named), named)
