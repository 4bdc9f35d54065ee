"""`harness calibrate`: the machine's factor from counters to the wall."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table
from harness.errors import UserError


def calibrate(
    meter: Annotated[str | None, typer.Option(help="The meter at the wall: command:... or http://...")] = None,
    window_s: Annotated[float, typer.Option("--window", help="Seconds of each of the 15 windows.")] = 20.0,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Measure how much this machine draws at the wall for each watt that its counters tell."""
    if meter is None:
        raise UserError("--meter is missing: name the meter at the wall, as command:... or http://...")
    if not 10 <= window_s <= 3600:
        raise UserError(f"--window {window_s:g}: expected seconds from 10 to 3,600")
    from harness import __version__, machine
    from harness.calibrate import calibrate as measure
    from harness.meter.external import ExternalMeter
    from harness.meter.meter import Meter
    from harness.sandbox import daemon
    from harness.store import records
    from harness.store.db import open_store, writer_lock

    database, _ = places(db, runs_dir)
    external = ExternalMeter(meter)
    typer.echo(f"the meter says {external.check():.1f} W", err=True)
    facts = machine.facts(daemon.facts(daemon.connect()))
    instruments = Meter(external, codecarbon=False)
    try:
        found = measure(instruments, window_s, lambda text: typer.echo(text, err=True))
    finally:
        instruments.stop()
    row = {
        "machine_id": machine.machine_id(facts),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": "counters",
        "coverage": found.coverage,
        "factor": found.factor,
        "low": found.low,
        "high": found.high,
        "windows": len(found.windows),
        "duration_s": sum(window.duration_s for window in found.windows),
        "detail": json.dumps([dataclasses.asdict(window) for window in found.windows]),
        "harness_version": __version__,
    }
    with writer_lock(database, "harness calibrate"), contextlib.closing(open_store(database)) as store:
        records.insert_calibration(store, facts, row)
    if as_json:
        print_json(row)
        return
    print_table(
        "windows",
        ["busy cores", "seconds", f"{found.coverage} W", "wall W", "ratio"],
        [[w.busy_cores, w.duration_s, w.source_w, w.wall_w, round(w.wall_w / w.source_w, 3)] for w in found.windows],
    )
    print(f"at the wall {found.factor:.3f} times {found.coverage} (95 % interval {found.low:.3f} to {found.high:.3f})")
    print(f"kept in {database}: sweeps on this machine show energy at the wall beside that of the counters")
