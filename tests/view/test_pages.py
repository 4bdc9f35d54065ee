"""The pages as a program sees them: who may ask, what each says, filters, paging, files, and calm words for all that
is missing."""

from __future__ import annotations

import gzip
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database
from starlette.testclient import TestClient
from view_store import MODEL, RAPL, add_run, new_store, new_sweep, talk, traces

from harness.store.records import end_sweep
from harness.view.app import make_app

PORT = 8765
HOST = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return new_store(tmp_path)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(make_app(tmp_path / "harness.db", tmp_path, PORT), base_url=HOST) as made:
        yield made


def settled(client: TestClient, path: str) -> str:
    """A page when nothing of it is being counted any more."""
    for _ in range(100):
        page = client.get(path).text
        if "in a moment" not in page and "…</td>" not in page:
            return page
        time.sleep(0.05)
    raise AssertionError(f"{path} is still being counted")


def runs_listed(page: str) -> list[str]:
    return re.findall(r'<tr data-row><td><a href="/runs/s-(\d+)', page)


def test_only_the_loopback_by_name_and_port_is_answered(client: TestClient, db: Database) -> None:
    for host in (f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"[::1]:{PORT}", f"LOCALHOST:{PORT}"):
        assert client.get("/", headers={"Host": host}).status_code == 200, host
    for host in ("127.0.0.1", "127.0.0.1:80", f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}", ""):
        assert client.get("/", headers={"Host": host}).status_code == 400, host


def test_every_answer_says_what_may_be_loaded_and_nothing_can_be_sent(client: TestClient, db: Database) -> None:
    for path in ("/", "/sweeps/s", "/runs/none", "/nowhere", "/static/view.js", "/version"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert client.post("/sweeps/s").status_code == 405
    assert client.get("/", headers={"Host": "evil.example"}).headers["x-content-type-options"] == "nosniff"


def test_pages_hold_no_script_style_or_handler_of_their_own(client: TestClient, db: Database, tmp_path: Path) -> None:
    run = add_run(db, tmp_path, 0, traces()[0])
    for path in ("/", "/sweeps/s", f"/runs/{run}"):
        page = settled(client, path)
        assert not re.search(r"<script(?! src=)|<style|\son[a-z]+=|\sstyle=|javascript:", page), path


def test_no_store_and_an_empty_one_are_calm_sentences(tmp_path: Path) -> None:
    with TestClient(make_app(tmp_path / "harness.db", tmp_path, PORT), base_url=HOST) as client:
        answer = client.get("/")
        assert answer.status_code == 503
        assert "there is no database at" in answer.text
        (tmp_path / "harness.db").write_text("this is no database " * 100)
        assert "can&#39;t be read as a database" in client.get("/").text
        (tmp_path / "harness.db").unlink()
        new_store(tmp_path).execute("DELETE FROM sweeps").connection.commit()
        answer = client.get("/")
    assert answer.status_code == 200
    assert "holds no sweep yet" in answer.text


def test_an_unknown_sweep_and_run_name_the_nearest(client: TestClient, db: Database, tmp_path: Path) -> None:
    add_run(db, tmp_path, 12)
    for path, near in (("/sweeps/t", "known: s"), ("/runs/s-0013", "did you mean s-0012?")):
        answer = client.get(path)
        assert answer.status_code == 404
        assert near in answer.text
    assert client.get("/runs/s-0012").status_code == 200
    assert client.get("/elsewhere").status_code == 404


def test_looking_writes_nothing(client: TestClient, db: Database, tmp_path: Path) -> None:
    run = add_run(db, tmp_path, 0, traces()[0])
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (tmp_path / "harness.db").read_bytes()
    for path in ("/", "/sweeps/s", f"/runs/{run}", "/sweeps/s/version"):
        assert client.get(path).status_code == 200
    assert (tmp_path / "harness.db").read_bytes() == before
    assert (tmp_path / "harness.db-wal").stat().st_size == 0


def test_sweeps_come_newest_first_in_pages_and_can_be_searched(client: TestClient, db: Database) -> None:
    for number in range(30):
        new_sweep(db, sweep_id=f"n{number:02d}")
    pages = [settled(client, f"/?page={number}") for number in (1, 2)]
    listed = [re.findall(r'<a href="/sweeps/(\w+)"', page) for page in pages]
    assert [*listed[0], *listed[1]] == [*(f"n{number:02d}" for number in reversed(range(30))), "s"]
    assert re.findall(r'<a href="/sweeps/(\w+)"', settled(client, "/?q=n07")) == ["n07"]
    assert "No sweep has" in client.get("/?q=100%25").text


def test_a_sweep_counts_resolved_over_graded(client: TestClient, db: Database, tmp_path: Path) -> None:
    add_run(db, tmp_path, 0, verdict="resolved")
    add_run(db, tmp_path, 1)
    add_run(db, tmp_path, 2, verdict="grader_error")
    assert "1 of 2</td>" in settled(client, "/")
    page = settled(client, "/sweeps/s")
    assert "3 of 9 runs" in page
    assert "1 of 2</td>" in page


def test_filters_in_the_url_choose_matrix_and_list_alike(client: TestClient, db: Database, tmp_path: Path) -> None:
    add_run(db, tmp_path, 0, task="first-task", verdict="resolved")
    add_run(db, tmp_path, 1, task="second_task", agent="swe-agent", ended_by="timeout")
    add_run(db, tmp_path, 2, task="second-task", engine="llamacpp", model="m:1b", repetition=2)
    wanted = {
        "agent=swe-agent": ["0001"],
        "model=llamacpp/m:1b": ["0002"],
        "outcome=resolved": ["0000"],
        "outcome=unresolved": ["0001", "0002"],
        "ended_by=timeout": ["0001"],
        "repetition=2": ["0002"],
        "q=second": ["0001", "0002"],
        "q=second_": ["0001"],
        "q=timeout+task": ["0001"],
        "q=0002": ["0002"],
        "task=first-task&agent=swe-agent": [],
        "outcome=nonsense": [],
        "sort=-run": ["0002", "0001", "0000"],
        "sort=nonsense&page=x": ["0000", "0001", "0002"],
    }
    for query, runs in wanted.items():
        page = settled(client, f"/sweeps/s?{query}")
        assert runs_listed(page) == runs, query
        assert sorted(set(re.findall(r'class="o o-\w+" href="/runs/s-(\d+)', page))) == sorted(runs), query
    assert "No run is left by these filters" in client.get("/sweeps/s?outcome=nonsense").text


@pytest.mark.parametrize("sort", ["", "-run", "agent_s", "-calls", "energy", "-energy", "outcome", "-model"])
def test_next_and_previous_walk_the_filtered_list(client: TestClient, db: Database, tmp_path: Path, sort: str) -> None:
    for position in range(9):
        trace = talk(*[("hm", "")] * (position % 3 + 1)) if position % 4 else None
        add_run(db, tmp_path, position, trace, part=RAPL if position % 2 else None, agent=("x", "y")[position == 7])
    query = f"?agent=x&sort={sort}"
    listed = runs_listed(settled(client, f"/sweeps/s{query}"))
    assert len(listed) == 8
    walked = [listed[0]]
    while found := re.search(r'rel="next" href="/runs/s-(\d+)', client.get(f"/runs/s-{walked[-1]}{query}").text):
        walked.append(found[1])
    assert walked == listed
    before = re.search(r'rel="prev" href="/runs/s-(\d+)', client.get(f"/runs/s-{listed[-1]}{query}").text)
    assert before is not None
    assert before[1] == listed[-2]


def test_long_lists_come_in_pages_and_crowded_fields_are_counted(
    client: TestClient, db: Database, tmp_path: Path
) -> None:
    for position in range(120):
        add_run(db, tmp_path, position, part=None, task=f"t{position % 60:02d}" if position < 100 else "crowd")
    pages = [settled(client, f"/sweeps/s?page={number}") for number in (1, 2, 3)]
    assert [len(runs_listed(page)) for page in pages] == [50, 50, 20]
    assert "page 1 of 3" in pages[0]
    assert len(re.findall(r'<tr><th class="w">', pages[0])) == 50
    assert re.search(r'class="count" href="[^"]*task=crowd[^"]*outcome=unresolved', pages[0])
    assert len(re.findall(r'<tr><th class="w">', settled(client, "/sweeps/s?tasks=2"))) == 11


def test_a_run_shows_its_steps_its_loops_and_its_power(client: TestClient, db: Database, tmp_path: Path) -> None:
    trace = next(trace for trace in traces() if trace.facts["ended_by"] == "budget_calls")
    run = add_run(db, tmp_path, 0, trace, ended_by="budget_calls", flags=["throttled: 3 events"])
    page = client.get(f"/runs/{run}").text
    steps = re.findall(r'id="step-(\d+)"', page)
    assert steps == [str(call["index"]) for call in trace.calls]
    for number in re.findall(r'class="call" id="call-(\d+)" href="#step-\1"', page):
        assert f'href="#call-{number}"' in page
    assert len(re.findall(r'class="call" id=', page)) == sum(call["status"] != "limit" for call in trace.calls)
    assert 'class="loop dead-end"' in page
    assert 'class="line"' in page
    assert {"p-prefill", "p-decode", "p-between_calls", "p-tail"} <= set(re.findall(r"p-\w+", page))
    assert "lowered its clock" in page
    assert "the limit on calls was reached" in page


def test_the_curve_is_the_power_that_was_drawn(db: Database, tmp_path: Path, client: TestClient) -> None:
    """64 W and an eighth more for memory while answers are made, 96 W and that while prompts are read."""
    run = add_run(db, tmp_path, 0, talk(*[("hm", "")] * 20))
    page = client.get(f"/runs/{run}").text
    title = re.search(r"call 3: 2.0 s, 900 tokens in, 40 out, up to (\d+) W", page)
    assert title is not None
    assert 96 <= int(title[1]) <= 96 * 1.12 * 1.15


def test_a_clock_is_called_one_and_a_run_without_power_says_why(
    client: TestClient, db: Database, tmp_path: Path
) -> None:
    clock = add_run(db, tmp_path, 0, talk(*[("hm", "")] * 9), part=MODEL)
    page = client.get(f"/runs/{clock}").text
    assert "its area a clock" in page
    assert 'class="line clock"' in page
    bare = add_run(db, tmp_path, 1, talk(("hm", "")), part=None)
    page = client.get(f"/runs/{bare}").text
    assert "No curve of power: no readings of its power were kept." in page
    assert 'id="call-0"' in page  # the phases stand without it


def test_a_run_without_calls_is_shown(client: TestClient, db: Database, tmp_path: Path) -> None:
    page = client.get(f"/runs/{add_run(db, tmp_path, 0)}").text
    assert "It made no call to a model." in page
    assert "can't be shown" not in page


@pytest.mark.parametrize("damage", ["gone", "cut", "no gzip", "no journal", "no JSON"])
def test_files_that_are_gone_or_broken_cost_their_words_and_nothing_else(
    client: TestClient, db: Database, tmp_path: Path, damage: str
) -> None:
    run = add_run(db, tmp_path, 0, traces()[0])
    whole = client.get(f"/runs/{run}").text
    folder = tmp_path / "s" / run
    for name in ("calls.jsonl.gz", "power.json.gz"):
        file = folder / name
        content = {
            "cut": file.read_bytes()[:200],
            "no gzip": b"words",
            "no journal": gzip.compress(b'{"a": [1]}\n'),
            "no JSON": gzip.compress(b"\xff\xfe["),
        }
        file.unlink()
        if damage != "gone":
            file.write_bytes(content[damage])
    answer = client.get(f"/runs/{run}")
    assert answer.status_code == 200
    assert "What was said in its calls can't be shown" in answer.text
    assert "No curve of power" in answer.text
    assert re.findall(r'id="step-(\d+)"', answer.text) == re.findall(r'id="step-(\d+)"', whole)


def test_files_are_downloads_and_only_those_that_the_table_names(
    client: TestClient, db: Database, tmp_path: Path
) -> None:
    run = add_run(db, tmp_path, 0, talk(("hm", "")))
    answer = client.get(f"/runs/{run}/artefacts/agent.log")
    assert answer.text == "what the agent printed\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment")
    (tmp_path / "secret.gz").write_bytes(gzip.compress(b"secret"))
    outside = tmp_path.parent / f"{tmp_path.name}-outside.gz"
    outside.write_bytes(gzip.compress(b"secret"))
    for name, path in (("up", f"../{outside.name}"), ("absolute", str(outside))):
        db.table("artefacts").insert({"run_id": run, "name": name, "path": path, "sha256": "", "bytes": 1})
    for name in ("../../secret", "none", "..%2f..%2fsecret", "up", "absolute"):
        answer = client.get(f"/runs/{run}/artefacts/{name}")
        assert answer.status_code == 404, name
        assert "secret\n" not in answer.text
    shutil.rmtree(tmp_path / "s" / run)
    assert "can&#39;t be read at" in client.get(f"/runs/{run}/artefacts/agent.log").text


def test_the_version_changes_with_each_run_and_with_the_end(client: TestClient, db: Database, tmp_path: Path) -> None:
    seen = [client.get("/sweeps/s/version").json()["version"]]
    add_run(db, tmp_path, 0, part=None)
    seen.append(client.get("/sweeps/s/version").json()["version"])
    end_sweep(db, "s")
    seen.append(client.get("/sweeps/s/version").json()["version"])
    assert len(set(seen)) == 3
    assert client.get("/version").json() == client.get("/version").json()
    assert "data-live" not in settled(client, "/sweeps/s")
