"""What the runs of a sweep share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import docker

from harness.engines.base import Readiness
from harness.gateway.server import Gateway
from harness.images.bundle import Bundle
from harness.images.prepare import Prepared
from harness.meter.figures import Idle
from harness.meter.meter import Meter
from harness.plan import Plan
from harness.sandbox.doors import DoorKind
from harness.unchanged import Sources

UNLOADED = ""


@dataclass
class Memory:
    """The label of the model that an engine of the sweep has in memory."""

    label: str = UNLOADED


@dataclass(frozen=True)
class Bench:
    """What the runs of a sweep share."""

    client: docker.DockerClient
    cores: int  # that Docker has
    plan: Plan
    sweep_id: str
    runs_dir: Path
    images: dict[str, Prepared]  # by task name
    bundles: dict[str, Bundle]  # by agent name
    gateways: dict[str, Gateway]  # by engine name
    meter: Meter | None  # None: energy is not asked for
    cancelled: threading.Event
    door: DoorKind = "socket"
    runtime: str | None = None  # of containers; None: whatever Docker takes by itself
    own_kernel: bool = False  # its containers' processes are none of this machine's
    elsewhere: str | None = None  # why Docker is taken to be on another machine; None for this one's
    session: int = 1
    idles: dict[str, Idle] = field(default_factory=dict)  # newest, by the label of the model in memory, or UNLOADED
    wall_factor: tuple[float, float, float] | None = None  # of this machine, with its interval
    shared: dict[str, Readiness] = field(default_factory=dict)  # with --slots, by the label of the model
    memory: Memory = field(default_factory=Memory)
    sources: Sources | None = None  # what must not change under a sweep; None: nobody minds
