"""A comparison with the published study, when a sweep has its cells.

Tripathy, Harshit, Vaidhyanathan: SWEnergy, arXiv 2512.09543, AGENT 2026. Only what its abstract, its text as others
cite it, and its authors' own page tell is here; most rows of its tables are not public.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.report.data import Cell, Data
from harness.analysis.report.document import Block, Bullets, Note, Number, Paragraph, Section, Table, Value
from harness.analysis.report.tables import RUNS, number
from harness.analysis.statistics import estimates
from harness.analysis.statistics.estimates import Estimate
from harness.analysis.statistics.factors import pearson
from harness.analysis.statistics.sweeps import value_of

FRAMEWORKS = ("autocoderover", "mini-swe-agent", "openhands", "swe-agent")
MODELS = ("gemma3:4b", "qwen3:1.7b")
NOT_ASKED = "this sweep has no such cell"


@dataclass(frozen=True)
class Claim:
    """`theirs` is the published number in `unit`, or None where only words are."""

    what: str
    theirs: float
    unit: str
    source: str


ENERGY = Claim("mini-swe-agent × gemma3:4b: energy of a run", 23_410.0, "J", "cited from the paper's table")
SECONDS = Claim("mini-swe-agent × gemma3:4b: seconds of a run", 192.0, "s", "cited from the paper's table")
RATIO = Claim("autocoderover over openhands, gemma3:4b: energy", 9.4, "×", "abstract")
RATE = Claim("autocoderover × qwen3:1.7b: resolved", 0.04, "share", "abstract and authors' page")
OTHERS = Claim("every other cell: resolved", 0.0, "share", "abstract")
WITH_TIME = Claim("energy with seconds: correlation", 0.89, "r", "authors' page (kind of coefficient not stated)")
WITH_TOKENS = Claim("energy with tokens out: correlation", 0.88, "r", "authors' page (kind of coefficient not stated)")


def section(data: Data) -> Section | None:
    """None when no sweep has any of the study's cells."""
    cells = {
        (cell.agent, _tag(cell.model)): cell
        for cell in data.cells
        if cell.agent in FRAMEWORKS and _tag(cell.model) in MODELS and cell.valid
    }
    if not cells:
        return None
    blocks: list[Block] = []
    reason = data.no_comparison(list(cells.values()))
    rows = [_row(claim, ours, why) for claim, ours, why in _claims(cells, reason)]
    if len({cell.sweep_id for cell in cells.values()}) > 1:
        blocks.append(Note("Of a cell that several of these sweeps have, the last is shown."))
    blocks += [
        Paragraph(
            "Tripathy, Harshit and Vaidhyanathan (SWEnergy, arXiv 2512.09543) ran four frameworks with two small "
            "models, 150 runs of each. Their number, ours with its interval of 95 %, and ours over theirs."
        ),
        Table(
            "published",
            f"The published study and this sweep (ours: {data.energy_is}).",
            ["what", "theirs", "ours", "tasks", "unit", "ours over theirs", "where theirs is told", "why not"],
            rows,
            RUNS,
        ),
        Bullets(
            [
                "Joules, watts and seconds depend on the machine: they can't be compared across machines, and the "
                "study's machine, its source of energy and what that covers are not published. Ratios between "
                "frameworks on one machine, shares and rates can be.",
                "The study's time limit, window, quantization, temperature, seeds, order and rest are not published; "
                "those of this sweep stand under methods.",
                "Two sets of 50 tasks are called SWE-bench Verified Mini; the study does not say which it used.",
                "The other rows of its tables are not public, so they are not here.",
            ]
        ),
    ]
    return Section("published", "Beside the published study", blocks)


def _tag(model: str) -> str:
    """The name without an engine."""
    return model.rpartition("/")[2]


Cells = dict[tuple[str, str], Cell]


def _claims(cells: Cells, no_comparison: str | None) -> list[tuple[Claim, Estimate | None, str | None]]:
    mini = cells.get(("mini-swe-agent", "gemma3:4b"))
    rover, hands = cells.get(("autocoderover", "gemma3:4b")), cells.get(("openhands", "gemma3:4b"))
    best = cells.get(("autocoderover", "qwen3:1.7b"))
    others = [cell for name, cell in cells.items() if name != ("autocoderover", "qwen3:1.7b")]
    pooled: dict[str, list[bool]] = {}
    for cell in others:
        for task, runs in cell.runs.resolved.items():
            pooled.setdefault(task, []).extend(runs)
    energy = no_comparison if mini else NOT_ASKED
    return [
        (ENERGY, None if energy or not mini else estimates.mean(mini.values("energy_j")), energy),
        (SECONDS, estimates.mean(mini.values("agent_s")) if mini else None, None if mini else NOT_ASKED),
        (
            RATIO,
            estimates.ratio(rover.values("energy_j"), hands.values("energy_j"))
            if rover and hands and not no_comparison
            else None,
            no_comparison if rover and hands else NOT_ASKED,
        ),
        (RATE, estimates.rate(best.runs.resolved) if best else None, None if best else NOT_ASKED),
        (OTHERS, estimates.rate(pooled) if pooled else None, None if pooled else NOT_ASKED),
        *(
            (claim, None if no_comparison else _correlation(list(cells.values()), metric), no_comparison)
            for claim, metric in ((WITH_TIME, "agent_s"), (WITH_TOKENS, "output_tokens"))
        ),
    ]


def _correlation(cells: list[Cell], metric: str) -> Estimate:
    pairs: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        for run in cell.fit:
            across, joules = value_of(run.run, metric), value_of(run.run, "energy_j")
            if across is not None and joules is not None:
                pairs.setdefault(run.run["task"], []).append((across, joules))
    return pearson(pairs)


def _row(claim: Claim, ours: Estimate | None, why: str | None) -> list[Value]:
    share = claim.unit == "share"
    value = ours.value if ours else None
    ratio = None if value is None or not claim.theirs else value / claim.theirs
    if why is None and ours is not None:
        why = ours.why
    if why is None and ratio is None and value is not None:
        why = "undefined: theirs is zero"
    return [
        claim.what, Number(claim.theirs, percent=share), number(ours, 1, share), ours.tasks if ours else None,
        claim.unit, ratio, claim.source, why,
    ]  # fmt: skip
