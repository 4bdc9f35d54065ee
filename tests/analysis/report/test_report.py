"""The report of a made-up store: what is in it, in every format; and what it says where it can't show something."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from harness.analysis.report import formats
from harness.analysis.report.content import report
from harness.analysis.report.document import Document, Note, Number, Table, shown
from harness.cli.report import report as command
from harness.errors import UserError
from harness.store.db import open_store
from harness.store.records import insert_sweep
from tests.generated_store import generate

SWEEP = "20260105-080000-made"
AGENTS = {"autocoderover": 5.0, "openhands": 0.7, "swe-agent": 2.2}
SMALL: dict[str, Any] = {"tasks": 8, "repeats": 2, "calls": 6, "agents": AGENTS, "models": {"gemma3:4b": 1.4}}
ENERGY = {"energy-by-cell", "energy-by-phase", "energy-against-seconds", "energy-against-tokens", "correlations",
          "rate-against-energy", "pairs-energy-j", "phases-gross"}  # fmt: skip
"""What is shown only where joules are more than seconds times a constant."""


def watts(run_id: str) -> list[tuple[float, float]]:
    return [(float(second), 100.0 + second % 3) for second in range(30)]


def none_kept(run_id: str) -> list[tuple[float, float]]:
    return []


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "harness.db"
    generate(path, **SMALL, rate=0.3)
    return path


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    db = open_store(path)
    yield db
    db.close()


@pytest.fixture(scope="module")
def document(path: Path) -> Document:
    return report(open_store(path), path.parent, [SWEEP], watts)


def names(document: Document) -> set[str]:
    return {block.name for block in (*document.tables(), *document.plots())}


def notes(document: Document) -> str:
    return "\n".join(block.text for block in document.blocks() if isinstance(block, Note))


def table(document: Document, name: str) -> Table:
    return next(table for table in document.tables() if table.name == name)


def test_everything_that_a_measured_sweep_has_is_in_it(document: Document) -> None:
    assert names(document) >= ENERGY | {
        "overview", "overall", "rates", "rate-differences", "rate-by-budget", "waste", "waste-after-onset",
        "loop-kinds", "guard", "power-over-time", "failures", "failures-table",
        "memory-sandbox", "memory-engine", "seconds-by-cell", "factors", "drift",
        "controls", "idle", "versions", "record", "published", "described-energy-j", "described-calls",
    }  # fmt: skip


def test_every_query_gives_the_rows_behind_its_table(db: Database, document: Document) -> None:
    for block in (*document.tables(), *document.plots()):
        rows = list(db.query(block.query, [SWEEP]))
        assert rows or block.name == "power-over-time", block.name  # whose readings are no rows of this store


def test_figures_are_those_of_the_store(db: Database, document: Document) -> None:
    [(seconds, runs)] = db.execute(
        "SELECT AVG(agent_s), COUNT(*) FROM (SELECT AVG(agent_s) AS agent_s FROM runs_summary "
        "WHERE agent = 'openhands' AND model = 'gemma3:4b' AND counts AND left_out IS NULL GROUP BY task)"
    ).fetchall()
    row = next(row for row in table(document, "overview").rows if row[0] == "openhands × gemma3:4b")
    assert row[1] == runs == 8
    assert isinstance(row[5], Number)
    assert row[5].value == pytest.approx(seconds)
    assert row[5].low is not None
    assert row[5].low < seconds < (row[5].high or 0)


def test_energy_captions_say_what_the_energy_is(document: Document) -> None:
    for block in (*document.tables(), *document.plots()):
        if block.name in ENERGY - {"phases-gross"} | {"described-energy-j"}:
            assert "measured, cpu+gpu" in block.caption, block.name


def test_cells_are_compared_without_pairs_of_tasks_on_request(path: Path, tmp_path: Path) -> None:
    command(db=path, runs_dir=path.parent, to="json", output=tmp_path / "r.json", unblocked=True)
    sections = json.loads((tmp_path / "r.json").read_text())["sections"]
    blocks = next(section for section in sections if section["name"] == "comparisons")["blocks"]
    overall = next(block for block in blocks if block.get("name") == "overall")
    assert {row[1] for row in overall["rows"]} == {"Kruskal-Wallis"}
    assert overall["rows"][0][2:4] == [24, 3]
    assert "Friedman" not in json.dumps(blocks)
    assert "could be seen" not in json.dumps(blocks)


def test_phases_are_described_run_by_run_and_add_up(db: Database, document: Document) -> None:
    rows = [row for row in table(document, "phases-gross").rows if row[0] == "openhands × gemma3:4b"]
    assert [row[1] for row in rows] == ["load", "prefill", "decode", "between calls", "tail"]
    whole = next(row for row in table(document, "described-energy-j").rows if row[0] == "openhands × gemma3:4b")
    assert sum(float(row[5]) for row in rows if isinstance(row[5], float)) == pytest.approx(whole[4])


def made(path: Path, *, sweep_id: str = SWEEP, **changes: Any) -> Document:
    generate(path, sweep_id=sweep_id, **{**SMALL, **changes})
    return report(open_store(path), path.parent, [sweep_id], none_kept)


def test_a_clock_has_no_plots_of_energy_and_the_report_says_why(tmp_path: Path) -> None:
    document = made(tmp_path / "harness.db", kind="estimated_constant")
    assert not names(document) & ENERGY
    assert "the energy is a clock" in notes(document)
    assert {"seconds-by-cell", "pairs-agent-s", "pairs-tokens"} <= names(document)


def test_without_any_energy_the_rest_is_shown(tmp_path: Path) -> None:
    document = made(tmp_path / "harness.db", kind="unavailable")
    assert not names(document) & ENERGY
    assert "no source told the energy" in notes(document)
    assert "seconds-by-cell" in names(document)


def test_a_phase_that_few_runs_have_is_a_mean_over_all(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    generate(path, **SMALL)
    db = open_store(path)
    db.execute("DELETE FROM energy WHERE phase = 'load' AND run_id NOT LIKE '%-0001'")
    document = report(db, tmp_path, [SWEEP], none_kept)
    row = next(row for row in table(document, "phases-gross").rows if row[1] == "load" and row[9])
    assert isinstance(row[5], float)
    assert isinstance(row[9], float)
    assert row[5] == pytest.approx(row[9] / int(str(row[2])))


def test_runs_without_energy_leave_the_others_theirs(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    generate(path, **SMALL)
    db = open_store(path)
    db.execute(
        "UPDATE energy SET kind = 'unavailable', coverage = 'none', joules = NULL WHERE run_id LIKE '%-0004'"
    )  # fmt: skip
    document = report(db, tmp_path, [SWEEP], none_kept)
    assert names(document) >= ENERGY
    assert "Runs that have no energy, and are in no figure of it: 1 of 16" in notes(document)


def test_sweeps_of_other_rules_stand_beside_each_other_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    two = SMALL | {"agents": {"openhands": 1.0}}
    sweeps = [generate(path, sweep_id=name, guard=guard, **two) for name, guard in (("a", "off"), ("b", "stop"))]
    document = report(open_store(path), tmp_path, sweeps, none_kept)
    assert "Sweep b was made by other rules than a" in notes(document)
    assert 'rules.guard: "off" -> "stop"' in notes(document)
    assert "pairs-energy-j" in names(document)
    assert not {"factors", "correlations", "loop-kinds", "guard"} & names(document)


def test_what_was_not_graded_was_not_resolved_in_vain(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    generate(path, **SMALL)
    db = open_store(path)
    db.execute("UPDATE runs SET verdict = 'grader_error', ended_by = 'submitted'")
    document = report(db, tmp_path, [SWEEP], none_kept)
    assert "No run of an agent with a model was graded" in notes(document)
    assert "Runs that were not graded" in notes(document)
    assert "resolved any task" not in notes(document)
    assert [row[1] for row in table(document, "overview").rows] == [8, 8, 8]


def test_the_typical_run_is_the_one_in_the_middle(db: Database, path: Path) -> None:
    asked: list[str] = []

    def noted(run_id: str) -> list[tuple[float, float]]:
        asked.append(run_id)
        return watts(run_id)

    report(db, path.parent, [SWEEP], noted)
    for run_id in asked:
        [(above, below)] = db.execute(
            "SELECT SUM(other.energy_j > own.energy_j), SUM(other.energy_j < own.energy_j) FROM runs_summary AS own "
            "JOIN runs_summary AS other ON other.agent = own.agent AND other.counts AND other.left_out IS NULL "
            "WHERE own.run_id = ?",
            [run_id],
        ).fetchall()
        assert abs(above - below) <= 1
    assert len(asked) == 3


def test_one_cell_can_not_be_compared(tmp_path: Path) -> None:
    document = made(tmp_path / "harness.db", agents={"openhands": 1.0}, models={"gemma3:4b": 1.0})
    assert not {name for name in names(document) if name.startswith("pairs-")}
    assert "There is one agent with one model" in notes(document)
    assert "described-energy-j" in names(document)


def test_flags_that_leave_every_run_out_are_the_reason_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    generate(path, **SMALL)
    db = open_store(path)
    db.execute("UPDATE runs SET flags = ?", ['["neighbour_busy: 1.2 cores"]'])
    document = report(db, tmp_path, [SWEEP], none_kept)
    assert "flags leave every run out of seconds and joules" in notes(document)
    assert "no source told" not in notes(document)
    assert not names(document) & (ENERGY | {"seconds-by-cell"})
    assert "pairs-tokens" in names(document)


def test_mixed_kinds_of_energy_are_not_put_together(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    generate(path, **SMALL)
    db = open_store(path)
    db.execute(
        "UPDATE energy SET kind = 'estimated' WHERE run_id IN (SELECT run_id FROM runs WHERE agent = 'openhands')"
    )
    document = report(db, tmp_path, [SWEEP], none_kept)
    assert not names(document) & (ENERGY - {"phases-gross"})
    assert "energies of different kind or coverage" in notes(document)


def test_two_machines_stand_beside_each_other_and_are_never_compared(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    sweeps = [generate(path, sweep_id=name, machine=name, seed=seed, **SMALL) for seed, name in enumerate("ab")]
    document = report(open_store(path), tmp_path, sweeps, none_kept)
    assert not names(document) & ENERGY
    assert not {"pairs-agent-s", "seconds-by-cell"} & names(document)
    assert "runs of different machines are not compared: a, b" in notes(document)
    cells = [row[0] for row in table(document, "overview").rows]
    assert "openhands × gemma3:4b [a]" in cells
    assert "openhands × gemma3:4b [b]" in cells
    assert "pairs-tokens" in names(document)


@pytest.mark.parametrize("state", ["empty", "unfinished", "all spoilt", "nothing resolved"])
def test_a_sweep_in_any_state_has_a_report_that_says_so(tmp_path: Path, state: str) -> None:
    path = tmp_path / "harness.db"
    generate(path, **SMALL, rate=0.0 if state == "nothing resolved" else 0.3)
    db = open_store(path)
    if state == "empty":
        db.execute("DELETE FROM runs")
    elif state == "unfinished":
        db.execute("DELETE FROM runs WHERE position >= 20")
    elif state == "all spoilt":
        db.execute("UPDATE runs SET ended_by = 'sandbox_error', verdict = 'not_gradable'")
    document = report(db, tmp_path, [SWEEP], none_kept)
    said = {
        "empty": "has no run yet",
        "unfinished": "is unfinished: 28 runs outstanding",
        "all spoilt": "No run counts",
        "nothing resolved": "No agent with a model resolved any task",
    }[state]
    assert said in notes(document)
    for name, write in formats.WRITERS.items():
        if name != "pdf":  # it has a test of its own, which takes its time
            assert write(document, tmp_path / name)[0].exists()


def test_runs_without_their_journals_are_named(tmp_path: Path) -> None:
    path = tmp_path / "harness.db"
    generate(path, **SMALL)
    db = open_store(path)
    db.execute("DELETE FROM histories WHERE run_id LIKE '%-0003'")
    document = report(db, tmp_path, [SWEEP], none_kept)
    assert f"{SWEEP}-0003" in notes(document)


# The formats.


def test_the_page_stands_alone_and_is_well_formed(tmp_path: Path, document: Document) -> None:
    [page] = formats.WRITERS["html"](document, tmp_path / "report.html")
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert "url(http" not in text
    assert "<script" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert text.count("<svg") == len(list(document.plots()))
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)


def test_names_that_are_markup_stay_text(tmp_path: Path) -> None:
    nasty = "<img/src=x>&$x_1$%#{}\\"
    document = made(tmp_path / "harness.db", agents={nasty: 1.0, "b": 2.0}, models={"m": 1.0})
    [page] = formats.WRITERS["html"](document, tmp_path / "report.html")
    assert "<img" not in page.read_text()
    assert "&lt;img/src=x&gt;" in page.read_text()
    source = formats.WRITERS["latex"](document, tmp_path / "report.tex")[0].read_text()
    assert r"\textless{}img/src=x\textgreater{}\&\$x\_1\$\%\#\{\}\textbackslash{}" in source
    assert formats.WRITERS["pdf"](document, tmp_path / "report.pdf")[0].stat().st_size > 10_000


def test_the_same_store_gives_the_same_bytes(tmp_path: Path, path: Path) -> None:
    for name in ("html", "md", "latex", "json"):
        pages = []
        for attempt in range(2):
            folder = tmp_path / f"{name}-{attempt}"
            folder.mkdir()
            files = formats.WRITERS[name](report(open_store(path), path.parent, [SWEEP], none_kept), folder / "report")
            pages.append([file.read_bytes() for file in files])
        assert pages[0] == pages[1], name


def test_tables_come_as_csv_with_intervals_in_columns_of_their_own(tmp_path: Path, document: Document) -> None:
    files = formats.WRITERS["csv"](document, tmp_path / "out")
    assert {file.stem for file in files} == {table.name for table in document.tables()} | {"README"}
    with (tmp_path / "out" / "overview.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert float(rows[0]["seconds low"]) < float(rows[0]["seconds"]) < float(rows[0]["seconds high"])


def test_json_has_every_table_with_its_query(tmp_path: Path, document: Document) -> None:
    [file] = formats.WRITERS["json"](document, tmp_path / "report.json")
    blocks = [block for section in json.loads(file.read_text())["sections"] for block in section["blocks"]]
    assert {block["name"] for block in blocks if block["type"] == "table"} == {t.name for t in document.tables()}
    assert all(block["query"].startswith("SELECT") for block in blocks if block["type"] in ("table", "plot"))


def test_the_pdf_is_one(tmp_path: Path, document: Document) -> None:
    [file] = formats.WRITERS["pdf"](document, tmp_path / "report.pdf")
    assert file.read_bytes().startswith(b"%PDF-")


@pytest.mark.latex
def test_the_latex_compiles_as_it_is(tmp_path: Path, document: Document) -> None:
    formats.WRITERS["latex"](document, tmp_path / "report.tex")
    for _ in range(2):
        made = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"], cwd=tmp_path, capture_output=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout[-2000:].decode(errors="replace")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.0, "0"), (12, "12"), (123_456, "123,456"), (1234.5, "1,234"), (0.01234, "0.0123"),
        (12.345, "12.3"), (float("nan"), "–"), (Number(None), "–"),
        (Number(12.345, 10.0, 15.55), "12.3 (10.0 to 15.6)"),
        (Number(0.043, 0.01, 0.1, True), "4.3% (1.0% to 10.0%)"), (1.5e-6, "1.50e-06"), ("word", "word"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(value: Any, text: str) -> None:
    assert shown(value) == text


# The command.


def test_the_command_writes_what_it_says(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(db=path, runs_dir=path.parent, to="md", output=tmp_path / "new" / "r.md")
    said = capsys.readouterr().out
    assert f"{tmp_path}/new/r.md and " in said
    assert (tmp_path / "new" / "r-plots" / "drift.svg").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"to": "docx"}, "--format 'docx': expected html, md, latex, pdf, json, csv"),
        ({"sweeps": ["20260105-080000-mode"]}, SWEEP),
        (
            {"output": Path("/proc/none/report.html")},
            "the report can't be written: /proc/none: No such file or directory",
        ),
    ],
)
def test_mistakes_are_said_in_a_sentence(path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError) as error:
        command(**{"db": path, "runs_dir": path.parent, **changes})
    assert complaint in str(error.value)


def test_an_empty_store_is_said_to_be_one(tmp_path: Path) -> None:
    open_store(tmp_path / "harness.db").close()
    with pytest.raises(UserError, match="holds no sweep yet"):
        command(db=tmp_path / "harness.db", runs_dir=tmp_path)


def test_a_planned_sweep_without_a_run_has_a_report(tmp_path: Path) -> None:
    db = open_store(tmp_path / "harness.db")
    insert_sweep(db, sweep_id="s", machine_id="m", facts={}, version="1", spec={}, resolved={}, planned_runs=3)
    assert "has no run yet" in notes(report(db, tmp_path, ["s"], none_kept))
