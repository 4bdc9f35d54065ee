"""Which ending is concluded from what was seen; what the agent claims counts last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.ending import Evidence, name_the_ending
from harness.gateway.ledger import CallRecord

CLEAN = Evidence(exit_code=0, container_alive=True, oom_kills=0, claimed="submitted", calls=[], max_calls=2)
