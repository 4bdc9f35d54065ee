"""What one run may do at the gateway. The same for every framework, whatever it asks for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from harness.spec import DEFAULT_GUARD_PATIENCE, GuardMode


@dataclass(frozen=True)
class Policy:
    """The limits and the sampling of one run; None is "no limit" (or, for `top_p`, "not set")."""

    model: str  # name for the engine, without its prefix
    num_ctx: int  # window, tokens
    num_predict: int  # longest answer, tokens, thinking included
    temperature: float
    top_p: float | None
    seed: int  # base seed of the run; the call sent as number i gets derive_seed(seed, i)
    think: bool
    protocol: Literal["text", "tools"]  # text: a request with `tools` is refused
    max_calls: int | None
    max_tokens: int | None  # input and output together, over all calls
    call_timeout_s: float
    guard: GuardMode = "off"
    guard_patience: int = DEFAULT_GUARD_PATIENCE  # steps for which a guard that stops lets a loop go on


def derive_seed(seed: int, index: int) -> int:
    """The seed of a call: 31 bits, equal in every process and on every machine.

    `index` counts from 0 the run's calls that were sent to the engine; requests that were refused or given up
    while they waited do not count, so that they shift no seed after them and frameworks stay comparable.

    It differs from call to call, so that a framework which repeats a request does not get the same answer
    again and the instrument does not make the loops that it measures.
    """
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFF_FFFF
