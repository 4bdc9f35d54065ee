"""The curve of a run's power: what was drawn, nothing where nothing was read, and a reason where there is no curve."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.meter.over_time import NoPower, power, power_of, recorded
from harness.store.artefacts import keep
from harness.store.db import open_store
from tests.generated_store import generate


def readings(joules: list[float | None], **changes: Any) -> dict[str, Any]:
    """Of one counter, every tenth of a second from 100 s on; the stage lasts from 101 s to 109 s."""
    series = {
        "source": "rapl", "unit": "package-0", "component": "cpu", "form": "counter", "kind": "measured",
        "period_s": 0.001, "wraps_at_j": None, "t_s": [100 + number / 10 for number in range(len(joules))],
        "joules": joules,
    }  # fmt: skip
    return {"series": [series | changes], "windows": {"agent": [101.0, 109.0], "opened_s": 101.5}}


STEADY: list[float | None] = [number * 5.0 for number in range(101)]  # 50 W


def test_a_steady_power_is_a_level_line_in_pieces_of_two_readings() -> None:
    made = power(recorded(readings(STEADY)), "counters")
    assert made.point_s == pytest.approx(0.2, abs=0.01)
    assert made.watts == pytest.approx([50.0] * len(made.watts), rel=0.01)
    assert made.point_s * len(made.watts) == pytest.approx(8.0)


def test_a_step_of_power_is_where_it_was() -> None:
    joules: list[float | None] = [number * 5.0 if number < 50 else 250 + (number - 50) * 10.0 for number in range(101)]
    made = power(recorded(readings(joules)), "counters")
    at = int(4.0 / made.point_s)
    assert made.watts[at - 2] == pytest.approx(50, rel=0.05)
    assert made.watts[at + 2] == pytest.approx(100, rel=0.05)


def test_several_parts_are_added_and_a_board_is_not() -> None:
    content = readings(STEADY)
    content["series"] += [content["series"][0] | {"unit": unit, "component": name} for unit, name in
                          (("package-0/dram", "dram"), ("psys", "psys"))]  # fmt: skip
    made = power(recorded(content), "counters")
    assert made.watts == pytest.approx([100.0] * len(made.watts), rel=0.01)


def test_samples_of_power_are_taken_as_power() -> None:
    content = readings([], source="meter", component="wall", form="power", period_s=0.1, watts=[42.0] * 101,
                       t_s=[100 + number / 10 for number in range(101)])  # fmt: skip
    made = power(recorded(content), "meter")
    assert made.watts == pytest.approx([42.0] * len(made.watts))


def test_where_a_counter_was_reset_nothing_is_drawn_and_the_rest_is() -> None:
    joules: list[float | None] = [number * 5.0 if number < 50 else (number - 50) * 5.0 for number in range(101)]
    made = power(recorded(readings(joules)), "counters")
    unknown = [number for number, watts in enumerate(made.watts) if watts is None]
    assert unknown
    assert len(unknown) < 4
    known = [watts for watts in made.watts if watts is not None]
    assert known == pytest.approx([50.0] * len(known), rel=0.05)


@pytest.mark.parametrize(
    ("content", "source", "reason"),
    [
        (readings(STEADY), "meter", "no readings of meter were kept"),
        (readings(STEADY), None, "no source told its energy"),
        (readings([]), "counters", "told nothing"),
        (readings(STEADY) | {"windows": {"agent": [101.0, 101.0], "opened_s": 101.0}}, "counters", "told nothing"),
        ({"series": []}, "counters", "an older harness"),
        ({"series": [{}]} | {"windows": readings([])["windows"]}, "counters", "none of the harness"),
        ({"windows": {"agent": None, "opened_s": 0.0}}, "counters", "none of the harness"),
        ([1], "counters", "none of the harness"),
    ],
)  # fmt: skip
def test_why_there_is_no_curve(content: Any, source: str | None, reason: str) -> None:
    with pytest.raises(NoPower, match=reason):
        power(recorded(content), source)


def test_a_stored_runs_power_as_points_and_none_where_its_file_is_gone_or_damaged(tmp_path: Path) -> None:
    generate(tmp_path / "harness.db", tasks=2, repeats=1, calls=3)
    db = open_store(tmp_path / "harness.db")
    run_id, sweep_id = next(iter(db.execute("SELECT run_id, sweep_id FROM runs")))
    assert power_of(db, tmp_path, run_id) == []
    folder = tmp_path / sweep_id / run_id
    folder.mkdir(parents=True)
    db.table("artefacts").insert(
        {"run_id": run_id, **asdict(keep(tmp_path, folder, "power.json", json.dumps(readings(STEADY)).encode()))}
    )
    db.execute("UPDATE runs SET energy_source = 'counters'")
    points = power_of(db, tmp_path, run_id)
    assert points[0][0] == 0
    assert [watts for _, watts in points] == pytest.approx([50.0] * len(points), rel=0.01)
    next(folder.iterdir()).write_bytes(b"not compressed")
    assert power_of(db, tmp_path, run_id) == []
