"""What must be true of a store and of the machine once a sweep has been resumed, whatever was done to it before.

`broken` says what is not, in sentences; all is well when the list is empty. `record` and `left` are its halves.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from command_line import Harness

from harness.outcome import outcome
from harness.owned import process_start
from harness.sandbox.daemon import KIND, OWNER, connect

UNMEASURED = ("no_energy", "shared_machine")  # flags of a run without a figure of its energy
OF_THE_RUNS_FOLDER = {"harness.db", "harness.db-wal", "harness.db-shm", "harness.db.lock", "logs"}
OF_A_SWEEP = {"summary.html", "report.html"}
SLACK_PERIODS = 4.0  # by so many of an instrument's periods its readings may miss the edges of a window
LONGEST_GAP_S = 1.0  # between readings of one that is read more often
ORPHANS_S = 5.0  # for children to see that their parent is gone


def broken(harness: Harness) -> list[str]:
    """What is wrong: of every sweep in the store, which must be complete, and of what is left on the machine."""
    return [*record(harness.runs), *left(harness)]


def record(runs_dir: Path, finished: bool = True) -> list[str]:
    """What is wrong in a runs folder whose sweeps are all complete; if not `finished`, of its runs alone."""
    with contextlib.closing(sqlite3.connect(runs_dir / "harness.db")) as db:
        db.row_factory = sqlite3.Row
        checked = [row[0] for row in db.execute("PRAGMA integrity_check")]
        if checked != ["ok"]:
            return [f"the database: {line}" for line in checked]
        wrong = [f"foreign key: {tuple(row)}" for row in db.execute("PRAGMA foreign_key_check")]
        if not finished:
            tables = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'artefacts'").fetchall()
            runs = db.execute("SELECT * FROM runs").fetchall() if tables else []
            return wrong + [f"{run['run_id']}: {problem}" for run in runs for problem in _run(db, runs_dir, run)]
        sweeps = db.execute("SELECT * FROM sweeps").fetchall()
        for sweep in sweeps:
            wrong += _sweep(db, runs_dir, sweep)
    known = OF_THE_RUNS_FOLDER | {sweep["sweep_id"] for sweep in sweeps}
    return wrong + [f"{entry.name} in the runs folder" for entry in runs_dir.iterdir() if entry.name not in known]


def _sweep(db: sqlite3.Connection, runs_dir: Path, sweep: sqlite3.Row) -> Iterator[str]:
    sweep_id = sweep["sweep_id"]
    runs = db.execute("SELECT * FROM runs WHERE sweep_id = ? ORDER BY position", [sweep_id]).fetchall()
    positions = [run["position"] for run in runs]
    if positions != list(range(sweep["planned_runs"])):
        yield f"{sweep_id}: runs at {positions}, where {sweep['planned_runs']} were planned"
    if sweep["ended_at"] is None:
        yield f"{sweep_id}: not said to have ended"
    files = {runs_dir / sweep_id / name for name in OF_A_SWEEP}
    for run in runs:
        yield from (f"{run['run_id']}: {problem}" for problem in _run(db, runs_dir, run))
        rows = db.execute("SELECT path FROM artefacts WHERE run_id = ?", [run["run_id"]])
        files |= {runs_dir / row["path"] for row in rows}
    folders = {parent for file in files for parent in file.parents}
    for path in (runs_dir / sweep_id).rglob("*"):
        if path not in (folders if path.is_dir() else files):
            yield f"{path.relative_to(runs_dir)} belongs to no run"


def _run(db: sqlite3.Connection, runs_dir: Path, run: sqlite3.Row) -> Iterator[str]:
    def rows(table: str) -> list[sqlite3.Row]:
        return db.execute(f"SELECT * FROM {table} WHERE run_id = ?", [run["run_id"]]).fetchall()

    outcome(run["ended_by"], run["verdict"])
    calls = sorted(rows("calls"), key=lambda call: call["call_index"])
    sent = [call for call in calls if call["sent"]]
    if (run["calls"] or 0) != len(sent) and (run["calls"] or 0) != len(calls):
        yield f"{run['calls']} calls, {len(calls)} rows of them"
    if [call["call_index"] for call in calls] != list(range(len(calls))):
        yield f"calls {[call['call_index'] for call in calls]}"
    for name in ("input_tokens", "output_tokens"):
        known = [call[name] for call in sent if call[name] is not None]
        if run[name] is not None and run[name] != sum(known):
            yield f"{run[name]} {name}, its calls have {sum(known)}"
    if len(rows("grades")) < 1:
        yield "no grade"
    artefacts = {row["name"]: row for row in rows("artefacts")}
    if calls and "calls.jsonl" not in artefacts:
        yield "no journal of its calls"
    if run["patch_bytes"] and "patch.diff" not in artefacts:
        yield "no patch"
    whole = True
    for row in artefacts.values():
        path = runs_dir / row["path"]
        content = path.read_bytes() if path.is_file() else None
        if content is None:
            yield f"{row['name']} is gone"
        elif (len(content), hashlib.sha256(content).hexdigest()) != (row["bytes"], row["sha256"]):
            yield f"{row['name']} is not the file that was stored"
        else:
            continue
        whole = False
    if whole:
        yield from _energy(run, rows("energy"), runs_dir, artefacts)


def _energy(run: sqlite3.Row, energy: list[sqlite3.Row], runs_dir: Path, artefacts: dict[str, Any]) -> Iterator[str]:
    """The window of the agent stage has a figure out of readings that cover it, or it is said that it has none."""
    source = run["energy_source"]
    flags = [flag.partition(":")[0] for flag in json.loads(run["flags"])]
    kinds = ("gross", "agent", "total")
    total = [
        row for row in energy if (row["layer"], row["phase"], row["component"]) == kinds and row["source"] == source
    ]
    if not energy:
        yield "no row of energy"
    elif not total or total[0]["joules"] is None:
        if not set(flags) & set(UNMEASURED):
            yield f"no figure of its energy, and no flag that says so: {flags}"
    elif "power.json" not in artefacts:
        yield "a figure of energy without its readings"
    else:
        power = json.loads(gzip.decompress((runs_dir / artefacts["power.json"]["path"]).read_bytes()))
        begin_s, end_s = power["windows"]["agent"]
        for series in power["series"]:
            if series["source"] != source:
                continue
            values = series["joules"] if "joules" in series else series["watts"]
            times = [time_s for time_s, value in zip(series["t_s"], values, strict=True) if value is not None]
            slack_s = SLACK_PERIODS * max(series["period_s"], LONGEST_GAP_S)
            edges = [begin_s, *(time_s for time_s in times if begin_s < time_s < end_s), end_s]
            before = max((time_s for time_s in times if time_s <= begin_s), default=None)
            if before is None or begin_s - before > slack_s or times[-1] < end_s - slack_s:
                yield f"energy of {series['unit']}: readings miss an edge of the window"
            if any(later - earlier > 2 * slack_s for earlier, later in pairwise(edges)):
                yield f"energy of {series['unit']}: a hole in the readings, and a figure all the same"


def left(harness: Harness) -> list[str]:
    """What the harness's processes, all of them dead, have left on this machine. Finished bundles may stay."""
    wrong = [f"process {pid}: {words}" for pid, words in orphans(harness)]
    wrong += [f"temporary: {path.name}" for path in Path(harness.env["TMPDIR"]).iterdir()]
    with contextlib.closing(connect()) as client:
        containers = client.api.containers(all=True, filters={"label": KIND})
        wrong += [
            f"container {each['Id'][:12]} ({each['Labels'][KIND]})" for each in containers if _ours(harness, each)
        ]
        networks = client.api.networks(filters={"label": KIND})
        wrong += [f"network {each['Name']}" for each in networks if _ours(harness, each)]
        volumes = client.api.volumes(filters={"label": KIND})["Volumes"] or []
        bundles = {label for each in volumes if (label := each["Labels"].get("harness.bundle.volume"))}
        wrong += [f"volume {each['Name']}" for each in volumes if _ours(harness, each) and each["Name"] not in bundles]
    return wrong


def orphans(harness: Harness) -> list[tuple[int, str]]:
    """Its processes that live on although those that were started as commands are dead."""
    deadline = time.monotonic() + ORPHANS_S
    while (alive := processes(harness)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def processes(harness: Harness) -> list[tuple[int, str]]:
    """Processes that the harness's own have started and that live, by number, with their command lines."""
    mark = f"TMPDIR={harness.env['TMPDIR']}".encode()
    sessions = dict(each.split("/") for each in harness.started)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
            session = str(os.getsid(int(entry.name)))
            # `git` gets an environment of its own. Its session's number may be another's by now.
            git = words.startswith("git ") and process_start(int(session)) in (None, sessions.get(session, ""))
            if words and (marked or (git and session in sessions)):  # a zombie has no command line
                found.append((int(entry.name), words))
    return found


def _ours(harness: Harness, thing: dict[str, Any]) -> bool:
    """Whether a process of this harness made a container, network or volume."""
    owner = (thing["Labels"] or {}).get(OWNER, "")
    return any(owner.endswith(f"/{started}") for started in harness.started)
