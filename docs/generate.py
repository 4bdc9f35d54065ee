"""Writes the pages of this folder that are made: cli.md and schema.md from the code, tasks.md from verified-mini.json,
which `harness tasks verify swe-bench-verified-mini --json` printed, and agents.md from the agents' manifests and from
their records, which `harness agents check --record` wrote. Of loops.md and statistics.md, which are written by hand, it
fills in the parts between marks: from the code and the labelled set in tests/loops, and from the figures that
tests/analysis/statistics/coverage_study.py wrote.

python docs/generate.py            write them
python docs/generate.py --check    write nothing; exit 1 and name the pages that are out of date
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from typer.main import get_command

from harness import agent_record
from harness.agent_record import Record
from harness.analysis.failures import RULES
from harness.analysis.loops.kinds import KINDS, Settings, rule_of
from harness.analysis.steps.observations import ESCAPES
from harness.cli import app
from harness.flags import FLAGS
from harness.manifests import Agent, find_agents
from harness.outcome import ENDINGS, VERDICTS
from harness.store.columns import TABLES, VIEW, meaning_of
from harness.store.db import open_store

FOLDER = Path(__file__).parent
PROOF = FOLDER / "verified-mini.json"
COVERAGE = FOLDER.parent / "tests" / "analysis" / "statistics" / "coverage.json"
WIDTH = 100  # of the help texts: a page must not depend on the terminal that made it
NOTE = "<!-- Made by docs/generate.py: change the code, then run `make docs`. -->\n\n"


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Every command and group as (its words, the command, a context to ask it in), in the order of the help."""

    def walk(command: Any, words: str, parent: Any) -> Iterator[tuple[str, Any, Any]]:
        width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
        context = command.make_context(words.split()[-1], [], parent=parent, resilient_parsing=True, **width)
        yield words, command, context
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, f"{words} {name}", context)

    yield from walk(get_command(app), "harness", None)


def cli_page() -> str:
    parts = ["# The command line\n"]
    for words, command, context in commands():
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## {words}\n\n```text\n{text}\n```\n")
    parts.append(
        "## Exit codes\n\n"
        + table(
            ["code", "meaning"],
            [
                ["0", "done"],
                ["1", "something failed that is ours or the machine's"],
                ["2", "the user's mistake: one sentence on standard error says what, where, and what to do"],
                ["130", "interrupted"],
            ],
        )
    )
    return NOTE + "\n".join(parts)


def schema_page() -> str:
    parts = [
        "# The database\n\nSQLite, in WAL mode: it can be read while a sweep writes. `harness db path` says where it "
        "is, `harness db schema` prints the sentences of this page. An empty (NULL) figure is an unknown one, never "
        "a zero. Durations are seconds of a monotonic clock, times UTC, truth values 0 or 1.\n"
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(open_store(Path(folder) / "schema.db")) as db:
        for name, meaning in TABLES.items():
            columns = db.query(f"SELECT * FROM pragma_table_info('{name}')")
            rows = [[f"`{c['name']}`", c["type"], _needed(name, c), meaning_of(name, c["name"])] for c in columns]
            parts.append(f"## {name}\n\n{meaning}\n\n{table(['column', 'type', '', 'meaning'], rows)}")
    endings = [
        [f"`{name}`", ending.fault, _yes(ending.retried), _yes(ending.counts), ending.meaning]
        for name, ending in ENDINGS.items()
    ]
    parts.append(
        "## Endings\n\nHow the agent stopped. A run that counts is a valid measurement; one that does not is "
        "`invalid`, whatever its verdict.\n\n"
        + table(["ended_by", "whose doing", "retried", "counts", "meaning"], endings)
    )
    flags = [[f"`{name}`", "left out" if flag.leaves_out else "", flag.meaning] for name, flag in FLAGS.items()]
    parts.append(
        "## Flags\n\nWhat a reader should know before using a run. A run with a flag that leaves it out is left out of "
        "statistics of energy and time, and how many were is said; its verdict and its tokens count.\n\n"
        + table(["flag", "energy and time", "meaning"], flags)
    )
    verdicts = [[f"`{name}`", f"`{outcome}`", meaning] for name, (outcome, meaning) in VERDICTS.items()]
    parts.append(
        "## Verdicts\n\nWhat the tests said about the patch, and the outcome of a run that counts.\n\n"
        + table(["verdict", "outcome", "meaning"], verdicts)
    )
    return NOTE + "\n".join(parts)


def _needed(table_name: str, column: dict[str, Any]) -> str:
    if column["pk"]:
        return "key"
    return "" if table_name == VIEW or column["notnull"] else "may be empty"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def tasks_page() -> str:
    proof = json.loads(PROOF.read_text(encoding="utf-8"))
    tasks = proof["tasks"]
    good = sum(task["good"] for task in tasks)
    instances = [task["own_bytes"] for task in tasks if task["own_bytes"] is not None]
    heads = ["task", "image", "of", "solution", "part of it", "untouched", "nop", "test s", "run s", "own MB"]
    rows = [
        [
            f"`{task['task']}`",
            task["image_source"],
            f"`{(task['image_origin'] or '').partition(',')[0][:24]}`",
            task["oracle"] or "",
            f"{task['wrong']} ({task['taken_off']})",
            task["untouched"],
            task["nop"] or "",
            f"{task['test_s']:.1f}",
            f"{task['duration_s']:.1f}",
            f"{task['own_bytes'] / 1e6:.0f}" if task["own_bytes"] is not None else "",
        ]
        for task in tasks
    ]
    return NOTE + "\n".join(
        [
            "# SWE-bench Verified Mini, proved here\n",
            f"What `harness tasks verify {proof['suite']}` found for the images that were built on one machine (Debian "
            "12, 2 cores, 24 GiB, no Docker Hub) from Debian's packages, the package index and, where no release will "
            f"do, a git server: {good} of {len(tasks)} as published, suite hash `{proof['hash']}`.\n",
            "- **solution**: the known solution, applied by the agent `oracle` in a sandbox, then graded.\n"
            "- **part of it**: the solution with hunks taken off, as few as it takes until the tests fail (how many of "
            "how many were taken off). `one_hunk`: only the whole can be taken off; `any_part`: each part that was "
            "tried is enough. Then `untouched` is the proof.\n"
            "- **untouched**: the tests on the repository as it is. **nop**: an agent that does nothing.\n"
            "- **test s**: the test command with the solution; **run s**: the whole run of `oracle`.\n"
            "- **own MB**: what this image adds to its environment's, its repository for the agent included; together "
            f"{sum(instances) / 1e9:.1f} GB for {len(instances)}.\n",
            table(heads, rows),
            "Left out there: "
            + "; ".join(f"`{name}` ({reason})" for name, reason in proof["left_out"].items())
            + ".\n",
        ]
    )


def agents_page() -> str:
    agents = [agent for agent in find_agents()[0] if agent.origin == "built in" and agent.manifest.calls_model]
    agents.sort(key=lambda agent: (agent.manifest.group != "framework", agent.name))
    records = {agent.name: record for agent in agents if (record := agent_record.read(agent)) is not None}
    about = [
        [
            f"[{agent.name}](../agents/{agent.name})",
            agent.manifest.group,
            agent.manifest.version,
            agent.manifest.licence or "",
            ", ".join(agent.manifest.protocols),
            "yes" if agent.manifest.non_root else "no",
            _megabytes(records[agent.name].bundle_bytes) if agent.name in records else "",
            _dated(agent, records),
        ]
        for agent in agents
    ]
    known = [agent for agent in agents if agent.name in records]
    parts = [
        "# Agents\n",
        "What each is, how it behaves when a model or a command does not, and how its own figures compare with the "
        "gateway's. Figures and endings are from runs at the pinned version, whose records are beside the agents; "
        "rules and weaknesses were read in the source and met in those runs. Without root: usable with `--sandbox-user "
        "agent`.\n",
        table(["agent", "group", "version", "licence", "modes", "without root", "bundle MB", "tried on"], about),
        "## Their own rules\n",
        "As the source has them at the pinned version. The harness's limits hold for all of them alike.\n",
        table(
            ["agent", "on format errors", "on loops", "on timeouts"],
            [
                [agent.name, *(agent.manifest.behaviour.get(rule, "") for rule in BEHAVIOUR)]
                for agent in agents
                if agent.manifest.behaviour
            ],
        ),
        "## How they behave\n",
        "Each cell is a run against a scripted model: how it ended, in the framework's own word, after how many calls. "
        "The limit was 8 calls: `budget_calls` after 8 means that the framework would have gone on.\n",
    ]
    for title, names in BEHAVIOURS.items():
        heads = ["agent", *names]
        rows = [[agent.name, *(_behaved(records[agent.name], name) for name in names)] for agent in known]
        parts += [f"### {title}\n", table(heads, rows)]
    parts += [
        "## What they need before the issue\n",
        "The first request without the text of the issue, in kilobytes, as the gateway got it; and the tokens of the "
        "smallest first request in runs with real models, with an issue of the smoke suite in it.\n",
        table(
            ["agent", "text kB", "tools kB", "tokens of the first request"],
            [[agent.name, *(_before(records[agent.name], p) for p in ("text", "tools")), _first(records[agent.name])]
             for agent in known],
        ),
        "## Their own counts of tokens\n",
        "Sums over the runs with real models in which both counts are known, the framework's beside the gateway's. "
        "Where a ratio is not 1 the framework counts with another tokenizer or leaves something out, such as calls "
        "that were cut off.\n",
        table(
            ["agent", "runs", "its own in", "gateway in", "ratio", "its own out", "gateway out", "ratio"],
            [[agent.name, *_compared(records[agent.name])] for agent in known],
        ),
        "## What a reader of their results should know\n",
    ]  # fmt: skip
    for agent in agents:
        sentences = [f"- {sentence}" for sentence in agent.manifest.weaknesses]
        sentences += [f"- Replaced, `{what}`: {why}" for what, why in agent.manifest.overrides.items()]
        parts.append(f"**{agent.name}**: {agent.manifest.summary}\n\n" + "\n".join(sentences) + "\n")
    return NOTE + "\n".join(parts)


BEHAVIOUR: tuple[Literal["format_errors", "loops", "timeouts"], ...] = ("format_errors", "loops", "timeouts")

BEHAVIOURS = {
    "Answers that break the format": ("rambles", "no-code-block", "broken-format", "says-nothing", "too-long"),
    "Tools that are called wrongly": ("wrong-tool", "broken-json", "wrong-arguments"),
    "Loops and thinking": ("same-command", "only-thinking", "thinks-too-long"),
    "Servers and time": ("dead-server", "refusing-server", "window-full", "silent-server", "hangs"),
}


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:.0f}" if size is not None else ""


def _dated(agent: Agent, records: Mapping[str, Record]) -> str:
    if agent.name not in records:
        return "no record of this version"
    return f"[{records[agent.name].scenarios_on}](../agents/{agent.name}/CONFORMANCE.md)"


def _behaved(record: Record, scenario: str) -> str:
    said = []
    for row in record.scenarios:
        if row.scenario == scenario:
            own = (row.says or "").partition(":")[0]  # what follows an exception's name is in the record
            word = f" ({own[:60]})" if own and own.casefold() != row.ended_by else ""
            said.append(f"{row.protocol}: `{row.ended_by}`{word}, {row.calls} calls")
    return "<br>".join(said) or "–"


def _before(record: Record, protocol: str) -> str:
    sizes = [
        row.first_request_bytes - record.issue_bytes
        for row in record.scenarios
        if row.scenario == "solves" and row.protocol == protocol and row.first_request_bytes
    ]
    return f"{sizes[0] / 1e3:.1f}" if sizes else "–"


def _first(record: Record) -> str:
    least: dict[tuple[str, str], int] = {}
    for row in record.models:
        if row.first_request_tokens is not None and row.suite == "smoke":
            key = (row.model, row.protocol)
            least[key] = min(row.first_request_tokens, least.get(key, row.first_request_tokens))
    return "<br>".join(f"{model}, {protocol}: {count:,}" for (model, protocol), count in least.items()) or "–"


def _compared(record: Record) -> list[str]:
    names = ("own_input_tokens", "input_tokens", "own_output_tokens", "output_tokens")
    rows = [row for row in record.models if all(getattr(row, name) is not None for name in names)]
    if not rows:
        return ["0", *["–"] * 6]
    cells = [str(len(rows))]
    for own, ours in (("own_input_tokens", "input_tokens"), ("own_output_tokens", "output_tokens")):
        theirs = sum(getattr(row, own) for row in rows)
        gateway = sum(getattr(row, ours) for row in rows)
        cells += [f"{theirs:,}", f"{gateway:,}", f"{theirs / gateway:.2f}" if gateway else "undefined"]
    return cells


def loops_page() -> str:
    """The page as it is, with the parts that are made filled in anew."""
    quality = _quality()
    parts = {
        "kinds": table(
            ["kind", "when", "rule", "onset", "example"],
            [
                [f"`{kind.name}`", kind.when, rule_of(kind, Settings()), kind.onset, _example(quality, kind.name)]
                for kind in KINDS.values()
            ],
        ),
        "agreement": table(
            ["group", "runs", "differ", "kappa: loops", "kappa: kinds", "the same onset"], quality.agreement()
        ),
        "runs": table(
            ["half", "group", "runs", "with loops", "precision", "recall", "OpenHands: precision", "recall"],
            quality.runs_table(),
        ),
        "held-out": "Held out:\n\n" + table(LOOP_HEADS, quality.kinds_table(True)),
        "all": "All:\n\n" + table(LOOP_HEADS, quality.kinds_table(None)),
        "failures": table(["class", "when"], [[rule.name, rule.when] for rule in RULES]),
        "guard": table(
            ["patience", "tokens saved", "lost", "share lost", "held out: tokens saved", "lost"],
            [
                [*whole, *half[1:3]]
                for whole, half in zip(quality.guard_table(None), quality.guard_table(True), strict=True)
            ],
        ),
    }  # fmt: skip
    return _filled("loops.md", parts)


def statistics_page() -> str:
    found = json.loads(COVERAGE.read_text(encoding="utf-8"))
    parts = {"coverage": coverage_table(found), "versions": f"numpy {found['numpy']}, scipy {found['scipy']}, seed "
             f"{found['seed']}, {found['rows'][0]['simulations']:,} simulations of each cell.\n"}  # fmt: skip
    return _filled("statistics.md", parts)


def coverage_table(found: Mapping[str, Any]) -> str:
    """A line for each estimator, scenario and number of repeats; a column for each number of tasks."""
    sizes = sorted({row["tasks"] for row in found["rows"]})
    lines: dict[tuple[str, str, int], dict[int, Mapping[str, Any]]] = {}
    for row in found["rows"]:
        lines.setdefault((row["estimator"], row["scenario"], row["repeats"]), {})[row["tasks"]] = row
    return table(
        ["estimator", "scenario", "repeats", *(f"{size} tasks" for size in sizes), "median width"],
        [
            [estimator, scenario, str(repeats), *(_covered(line[size]) for size in sizes),
             ", ".join(f"{line[size]['width']:.2g}" for size in sizes)]
            for (estimator, scenario, repeats), line in lines.items()
        ],
    )  # fmt: skip


def _covered(row: Mapping[str, Any]) -> str:
    covered, below, above = (f"{100 * row[name]:.1f}" for name in ("covered", "below", "above"))
    said = f"{covered} ({below}, {above})"
    return said if 0.93 <= row["covered"] <= 0.97 else f"**{said}**"


def _filled(page: str, parts: Mapping[str, str]) -> str:
    text = (FOLDER / page).read_text(encoding="utf-8")
    for name, content in parts.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not (begin and end):
            raise SystemExit(f"docs/{page} has no part {name!r}: <!-- {name} --> and <!-- end -->")
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


LOOP_HEADS = ["group", "kind", "precision", "recall", "onset: median", "OpenHands: recall"]
SHOWN = 90  # characters of an example


def _quality() -> Any:
    """The measuring of the detector, which lies beside the labelled set."""
    sys.path.insert(0, str(FOLDER.parent / "tests" / "loops"))
    return importlib.import_module("quality")


def _example(quality: Any, kind: str) -> str:
    found = quality.example(kind)
    if found is None:
        return "–"
    trace, loop = found
    step = next(step for step in trace.steps if step.call == loop.onset)
    said = step.said.actions[0].text if step.said.actions else step.said.text
    outcome = step.observation if step.observation else "nothing came back"
    return (
        f"{trace.agent} with {trace.model}, steps {loop.onset} to {loop.end}: {_quoted(said)} gives {_quoted(outcome)}"
    )


def _quoted(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in ESCAPES.sub("", text))
    line = " ".join(plain.replace("`", "'").split())
    return f"`{line if len(line) <= SHOWN else line[: SHOWN - 1] + '…'}`"


PAGES: dict[str, Callable[[], str]] = {
    "agents.md": agents_page,
    "cli.md": cli_page,
    "loops.md": loops_page,
    "schema.md": schema_page,
    "statistics.md": statistics_page,
    "tasks.md": tasks_page,
}


def stale() -> list[str]:
    """The pages that are not what the code makes now."""
    found = []
    for name, make in PAGES.items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != make():
            found.append(f"docs/{name}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which pages are out of date")
    if not parser.parse_args().check:
        for name, make in PAGES.items():
            (FOLDER / name).write_text(make(), encoding="utf-8")
        return 0
    pages = stale()
    if pages:
        print(f"out of date: {', '.join(pages)}; run `make docs` (.venv/bin/python docs/generate.py)", file=sys.stderr)
    return 1 if pages else 0


if __name__ == "__main__":
    sys.exit(main())
