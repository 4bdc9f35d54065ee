"""The pages in a real browser, from a real server: what a model says stays text, chart and steps show each other, keys,
a sweep that goes on, both themes, a phone."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Tab, chromium
from sqlite_utils import Database
from view_store import Trace, add_run, new_store, talk, traces

from harness.store.records import end_sweep

pytestmark = pytest.mark.chromium

HOSTILE = (
    "<script>document.title = 'owned'; window.owned = 1; alert(1)</script>",
    "<img src=x onerror=\"window.owned = 1; alert(2)\"><svg onload='window.owned = 1'>",
    '</pre></article></main><h1 id="owned">out of the box</h1><style>body { display: none }</style>',
    '{{ 7 * 7 }} {% raw %} &lt;b&gt; <a href="javascript:window.owned=1">a link</a>',
    "\x1b[31mred\x1b[0m \x00nul \x07bell \u202eright to left\u202c \u2066isolated\u2069 zero\u200bwidth \ud800half",
    "```bash\ncat <<'EOF'\n<iframe src='javascript:parent.owned=1'></iframe>\nEOF\n```",
)


@pytest.fixture(scope="module")
def open_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Tab]]:
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return new_store(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The command itself, at a port of its own choice."""
    words = [sys.executable, "-m", "harness", "view", "--port", "0", "--runs-dir", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "HARNESS_DB"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+)/", line)
        assert found, (line, process.stderr.read() if process.poll() is not None else "")
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


@pytest.fixture
def tab(open_tab: Callable[[], Tab]) -> Iterator[Tab]:
    tab = open_tab()
    tab.size(1280, 900)
    yield tab
    tab.send("Page.close")


def long_trace() -> Trace:
    return next(trace for trace in traces() if len(trace.calls) > 20)


def test_nothing_that_a_model_says_is_more_than_text(server: str, tab: Tab, db: Database, tmp_path: Path) -> None:
    hostile = HOSTILE[0]
    run = add_run(
        db, tmp_path, 0, talk(*zip(HOSTILE, reversed(HOSTILE), strict=True)), task=hostile, agent=hostile,
        ended_detail=hostile, claimed=HOSTILE[1], claim_message=HOSTILE[2], flags=[HOSTILE[1]],
        interventions=[{"call_index": 1, "action": "nudged", "kind": "cycle", "conversation": 0, "onset": 0, "steps": 2,
                        "text": HOSTILE[2]}],
    )  # fmt: skip
    for path in (f"/runs/{run}", "/sweeps/s", "/sweeps/s?q=%3Cscript%3Ealert(1)%3C/script%3E&agent=%22%3E%3Cscript%3E",
                 "/?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"):  # fmt: skip
        tab.go(server + path)
        assert tab.js("window.owned") is None, path
        assert tab.js("document.getElementById('owned')") is None
        assert tab.js("document.querySelectorAll('iframe, pre script, pre img, h1 script').length") == 0
        assert "owned" not in tab.js("document.title").replace("document.title = 'owned'; window.owned", "")
    assert tab.complaints() == []
    tab.go(f"{server}/runs/{run}")
    text = tab.js("document.querySelector('.steps').textContent")
    for said in (*HOSTILE[:4], "␛[31mred␛[0m ␀nul ␇bell ⟨U+202E⟩right to left⟨U+202C⟩", "zero⟨U+200B⟩width \ufffdhalf",
                 "<iframe src='javascript:parent.owned=1'></iframe>"):  # fmt: skip
        assert said in text
    assert tab.js("getComputedStyle(document.body).display") == "block"


def test_a_journal_that_is_no_utf8_is_shown_all_the_same(server: str, tab: Tab, db: Database, tmp_path: Path) -> None:
    run = add_run(db, tmp_path, 0, talk(("an odd answer", "what came"), ("more", "")))
    for file in (tmp_path / "s" / run).glob("*.jsonl.gz"):
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"odd", b"\xff\xfe")))
    tab.go(f"{server}/runs/{run}")
    assert "an \ufffd\ufffd answer" in tab.js("document.querySelector('#step-0').textContent")


def test_the_chart_leads_to_the_step_and_the_step_to_the_chart(
    server: str, tab: Tab, db: Database, tmp_path: Path
) -> None:
    run = add_run(db, tmp_path, 0, long_trace())
    tab.go(f"{server}/runs/{run}")
    lit = "[...document.querySelectorAll('.call.on')].map(call => call.dataset.call).join()"
    tab.click("#call-12 rect")
    assert tab.until("location.hash") == "#step-12"
    assert tab.js("document.querySelector('.step.at').id") == "step-12"
    assert tab.js(lit) == "12"
    top = tab.js("document.querySelector('#step-12').getBoundingClientRect().top")
    assert 0 < top < 120
    box = tab.js("document.querySelector('#call-12 rect').getBoundingClientRect().toJSON()")
    seen = box["top"] > 0 and box["bottom"] < 900 and box["left"] > 0 and box["right"] < 1280
    assert seen, "the chart stays beside the steps"
    tab.click("#step-13 .number")
    assert tab.js(lit) == "13"
    tab.go(f"{server}/runs/{run}?sort=-calls#step-5")
    assert tab.until(lit) == "5"


def test_links_work_without_scripts(server: str, tab: Tab, db: Database, tmp_path: Path) -> None:
    run = add_run(db, tmp_path, 0, long_trace())
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.go(f"{server}/runs/{run}")
    tab.click("#call-12 rect")
    assert tab.until("document.querySelector(':target')?.id") == "step-12"
    tab.click("#step-12 .number")
    assert tab.until("document.querySelector(':target')?.id") == "call-12"
    assert tab.js("getComputedStyle(document.querySelector('#call-12 rect')).fillOpacity") == "0.28"


def test_keys_walk_steps_runs_and_back(server: str, tab: Tab, db: Database, tmp_path: Path) -> None:
    for position in range(4):
        trace = talk(*[("an answer", "ok")] * 3) if position else None
        add_run(db, tmp_path, position, trace, agent="other" if position == 1 else "mini-swe-agent")
    tab.go(f"{server}/sweeps/s?agent=mini-swe-agent")
    for key in ("j", "j", "k", "j"):
        tab.key(key)
    tab.key("Enter")
    assert tab.until("location.pathname.startsWith('/runs/') && location.pathname") == "/runs/s-0002"
    tab.until("document.readyState == 'complete'")
    for key in ("j", "j", "j", "j", "k"):
        tab.key(key)
    assert tab.until("location.hash") == "#step-1"
    tab.key("n")  # the run of the other agent is left out
    assert tab.until("location.pathname == '/runs/s-0003' && location.search") == "?agent=mini-swe-agent"
    tab.until("document.readyState == 'complete'")
    tab.key("p")
    assert tab.until("location.pathname == '/runs/s-0002'")
    tab.until("document.readyState == 'complete'")
    tab.key("?")
    assert tab.until("document.querySelector('#keys').open")
    tab.key("Escape")
    tab.go(f"{server}/runs/s-0002?agent=mini-swe-agent")
    tab.key("g")
    tab.key("s")
    assert tab.until("location.pathname == '/sweeps/s' && location.search") == "?agent=mini-swe-agent"
    tab.until("document.readyState == 'complete'")
    tab.key("/")
    assert tab.until("document.activeElement.name") == "q"


def test_a_page_follows_its_sweep_and_stops_when_that_is_over(
    server: str, tab: Tab, db: Database, tmp_path: Path
) -> None:
    add_run(db, tmp_path, 0, part=None)
    tab.go(f"{server}/sweeps/s")
    listed = "document.querySelectorAll('tr[data-row]').length"
    assert tab.until(f"{listed} == 1 && document.querySelector('.live') !== null")
    tab.js("window.mine = 1; document.querySelector('.filters input[type=search]').value = 'half a word'")
    add_run(db, tmp_path, 1, part=None)
    tab.until(f"{listed} == 2", 15)
    assert tab.js("window.mine") == 1  # the same page, not one that was loaded anew
    assert tab.js("document.querySelector('.filters input[type=search]').value") == "half a word"
    assert "2 of 9 runs" in tab.js("document.querySelector('.lead').textContent")
    end_sweep(db, "s")
    tab.until("document.querySelector('.live') === null", 15)
    assert tab.js("document.getElementById('main').dataset.live") is None
    tab.js("window.asked = 0; window.fetch = () => { window.asked += 1; return new Promise(() => {}); }")
    with pytest.raises(AssertionError):
        tab.until("window.asked > 0", 6)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_goes_sideways_and_both_themes_can_be_read(
    server: str, tab: Tab, db: Database, tmp_path: Path, width: int
) -> None:
    name = "a_very_long_name_of_a_task_without_a_single_space_in_it__that_goes_on_and_on_for_ever-12345"
    run = add_run(db, tmp_path, 0, long_trace(), task=name, ended_detail="x" * 300)
    tab.size(width, 844)
    contrast = """(() => {
        const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
            const share = part / 255;
            return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        const weights = [0.2126, 0.7152, 0.0722];
        const light = (colour) => parts(colour).reduce((sum, part, place) => sum + part * weights[place], 0);
        const ground = (element) => {
            for (; element; element = element.parentElement) {
                const colour = getComputedStyle(element).backgroundColor;
                if (!/, 0\\)$|transparent|color\\(/.test(colour)) return colour;
            }
        };
        const found = [];
        for (const element of document.querySelectorAll("a, p, td, th, small, b, .tag, dt, dd, pre, summary")) {
            if (!element.innerText?.trim() || !element.offsetParent || element.matches(".off, .off *")) continue;
            const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) found.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
        }
        return [...new Set(found)];
    })()"""
    for theme in ("light", "dark"):
        tab.theme(theme)
        for path in ("/", "/sweeps/s", f"/runs/{run}", "/runs/none"):
            tab.go(server + path)
            assert tab.js("document.documentElement.scrollWidth") <= width, (path, theme)
            assert tab.js(contrast) == [], (path, theme)
    tab.go(f"{server}/runs/{run}")
    boxes = tab.js("['.chart-side', '.steps'].map(name => document.querySelector(name).getBoundingClientRect())"
                   ".map(box => [box.left, box.top])")  # fmt: skip
    beside = boxes[0][0] > boxes[1][0]
    assert beside == (width > 1000), "two columns, or the chart above the steps"
    assert beside or boxes[0][1] < boxes[1][1]
