"""A run's power over time, out of the readings that were kept with it (`power.json`)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.meter.accounting import Curve
from harness.meter.figures import totals
from harness.meter.meter import Key, Part
from harness.meter.readings import Instrument, Readings
from harness.store.artefacts import read

MOST_POINTS = 400
READINGS_OF_A_POINT = 2  # of the coarsest instrument: less would show its steps, not the machine's power


@dataclass(frozen=True)
class Power:
    """Mean watts over equal stretches of the agent stage; None where the readings have a gap."""

    source: str
    point_s: float
    watts: list[float | None]


@dataclass(frozen=True)
class Recorded:
    """`begin_s` and `end_s` of the agent stage, and the moment that calls' offsets count from, by the same clock."""

    begin_s: float
    end_s: float
    opened_s: float
    content: Mapping[str, Any]


class NoPower(Exception):
    """There is no power to be shown. The message is a sentence."""


def power_of(db: Database, runs_dir: Path, run_id: str) -> list[tuple[float, float]]:
    """A run's power as points (seconds of the agent stage, W), NaN in gaps; none without readings that can be read."""
    found = db.execute(
        "SELECT path, energy_source FROM artefacts JOIN runs USING (run_id) WHERE run_id = ? AND name = 'power.json'",
        [run_id],
    ).fetchall()
    if not found:
        return []
    [(path, source)] = found
    try:
        told = power(recorded(json.loads(read(runs_dir, path))), source)
    except (NoPower, OSError, EOFError, ValueError, zlib.error):
        return []
    return [(number * told.point_s, nan if watts is None else watts) for number, watts in enumerate(told.watts)]


def recorded(content: Any) -> Recorded:
    """What a run's file of readings holds. Raises NoPower."""
    try:
        windows = content["windows"]
        begin_s, end_s = windows["agent"]
        return Recorded(float(begin_s), float(end_s), float(windows["opened_s"]), content)
    except KeyError:
        raise NoPower("its readings do not say when its agent stage began: an older harness kept them") from None
    except (TypeError, ValueError):
        raise NoPower("its file of readings is none of the harness") from None


def power(recording: Recorded, source: str | None) -> Power:
    """Of the source that the run's energy is of: the sum of its parts. Raises NoPower."""
    try:
        parts, readings = _parts(recording.content)
    except (KeyError, TypeError, ValueError):
        raise NoPower("its file of readings is none of the harness") from None
    total = totals(parts).get(source or "")
    if total is None:
        raise NoPower(f"no readings of {source} were kept" if source else "no source told its energy")
    curves = [Curve(parts[key].instrument, readings[key]) for key in total.keys]
    covered = [curve for curve in curves if curve.covers is not None]
    length_s = recording.end_s - recording.begin_s
    if len(covered) < len(curves) or length_s <= 0:
        raise NoPower(f"{total.source} told nothing in its agent stage")
    finest_s = READINGS_OF_A_POINT * max(curve.resolution_s for curve in curves)
    points = max(1, min(MOST_POINTS, int(length_s / finest_s)))
    point_s = length_s / points
    edges = [recording.begin_s + number * point_s for number in range(points + 1)]
    of_parts = [_watts(curve, edges) for curve in curves]
    watts = [None if None in at_once else sum(map(float, at_once)) for at_once in zip(*of_parts, strict=True)]
    return Power(total.source, point_s, watts)


def _watts(curve: Curve, edges: Sequence[float]) -> list[float | None]:
    """Mean power between two edges each; none where there is a gap."""
    energies = [curve.at(edge) for edge in edges]
    whole = curve.energy(edges[0], edges[-1]).gap is None
    return [
        (energies[number + 1] - energies[number]) / (end_s - begin_s)
        if whole or curve.energy(begin_s, end_s).gap is None
        else None
        for number, (begin_s, end_s) in enumerate(pairwise(edges))
    ]


def _parts(content: Mapping[str, Any]) -> tuple[dict[Key, Part], dict[Key, Readings]]:
    parts: dict[Key, Part] = {}
    readings: dict[Key, Readings] = {}
    for series in content["series"]:
        key = series["source"], series["unit"]
        instrument = Instrument(
            series["source"], series["component"], series["form"], series["period_s"], wraps_at_j=series["wraps_at_j"]
        )
        parts[key] = Part(instrument, series["kind"], series["unit"])
        readings[key] = Readings(series["t_s"], series["watts" if series["form"] == "power" else "joules"])
    return parts, readings
