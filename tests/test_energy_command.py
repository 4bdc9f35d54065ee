"""What `harness energy` prints and refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from energy_rows import a_call, add, clock, idle, in_phases, job, old_database, open_sweep

from harness.analysis.figures import CLOCK
from harness.analysis.metrics.whole import NO_COUNTRY
from harness.cli.energy import energy as command
from harness.errors import UserError


def test_the_command_prints_figures_and_a_sentence_for_each_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = open_sweep(tmp_path / "h.db", memory_bandwidth_gb_s=40.0)
    add(db, 0, in_phases(80.0, 120.0, 5.0), [a_call(0)], resolved=True, peak_w=42.5)
    add(db, 1, flags='["throttled: for heat"]')
    add(db, 2, clock(200.0), agent="b", energy_source="codecarbon")
    job(db, 1, 10.0, 100.0)
    idle(db, 1)
    db.close()
    command(db=tmp_path / "h.db", runs_dir=tmp_path)
    printed = capsys.readouterr().out
    for text in ("counters", "42.5", "throttled", "control job", "idle power", "200 ~~", "undefined", "decode",
                 "undefined: 0 resolved, 200 J spent", "not told: net J", CLOCK,
                 "cells are not ranked: figures of different kinds", NO_COUNTRY):  # fmt: skip
        assert text in printed, text
    command("s", db=tmp_path / "h.db", runs_dir=tmp_path, as_json=True, exponent=2.0)
    found = json.loads(capsys.readouterr().out)
    assert found["edp_exponent"] == 2.0
    assert found["cells"][0]["edp"]["unit"] == "J·s^2"
    assert found["cells"][0]["left_out"] == {"throttled": 1}
    assert found["cells"][1]["net_j"] == {
        "value": None, "unit": "J", "kind": "estimated_constant", "coverage": "cpu+ram", "n": 1, "why": CLOCK,
        "machine": "m",
    }  # fmt: skip
    assert {source["source"]: source["gross_j"]["value"] for source in found["sources"]} == {
        "codecarbon": 200.0,
        "counters": 205.0,
    }


def test_the_command_says_when_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_sweep(tmp_path / "h.db").close()
    command(db=tmp_path / "h.db", runs_dir=tmp_path)
    assert capsys.readouterr().out == "sweep s has no run yet\n"


def test_an_older_database_that_nobody_may_write_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_database(tmp_path / "old.db")

    def nothing_is_writable(*_: object) -> bool:  # a stand-in: root may write everything
        return False

    monkeypatch.setattr("os.access", nothing_is_writable)
    with pytest.raises(UserError, match=r"older harness .* copy it"):
        command(db=tmp_path / "old.db", runs_dir=tmp_path)


@pytest.mark.parametrize("exponent", [-1.0, 11.0, math.inf, math.nan])
def test_an_exponent_out_of_range_is_refused(tmp_path: Path, exponent: float) -> None:
    with pytest.raises(UserError, match="--edp-exponent"):
        command(db=tmp_path / "none.db", runs_dir=tmp_path, exponent=exponent)
