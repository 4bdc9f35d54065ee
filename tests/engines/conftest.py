from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def smollm2() -> str:
    return "smollm2:135m"


@pytest.fixture(scope="module")
def llamacpp(smollm2: str) -> Iterator[Any]:
    from harness.engines.llamacpp import LlamaCpp

    engine = LlamaCpp()
    engine.prepare(smollm2, 2048)
    yield engine
    engine.close()
