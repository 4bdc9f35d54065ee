"""What a person sees while a sweep runs: a live view on a terminal, a line a run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from harness.outcome import outcome
from harness.plan import Plan, PlannedRun
from harness.visible import for_terminal

STYLES = {
    "resolved": "green",
    "unresolved": "yellow",
    "no_patch": "yellow",
    "invalid": "red",
    "ungraded": "red",
}


class SweepView:
    """Implements harness.sweep.Progress."""

    def __init__(self, plan: Plan, console: Console, already: int = 0) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._total = self._bar.add_task("runs", total=len(plan.runs), completed=already)
        self.running = False  # whether a run has begun
        self._run = ""
        self._now = ""
        self._since = time.monotonic()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=1, transient=True)

    def __enter__(self) -> SweepView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, text: str) -> None:
        self._now, self._since = text, time.monotonic()
        if not self._console.is_terminal:
            self._console.print(for_terminal(text), markup=False, highlight=False, soft_wrap=True)

    def run_started(self, planned: PlannedRun, attempt: int) -> None:
        self.running = True
        again = f" (try {attempt})" if attempt > 1 else ""
        self._run = f"{planned.label}{again}"
        self._since = time.monotonic()

    def stage(self, name: str) -> None:
        self._now = f"{self._run}: {name}"

    def run_ended(self, planned: PlannedRun, row: Mapping[str, Any]) -> None:
        word = outcome(row["ended_by"], row["verdict"])
        self._bar.advance(self._total)
        calls = "" if row["calls"] is None else f", {row['calls']} calls"
        line = Text(f"{row['duration_s']:7.1f} s  ")
        line.append(f"{word:<10}", style=STYLES[word])
        line.append(f" {planned.label}")
        line.append(f"  ({row['ended_by']}{calls})", style="dim")
        self._console.print(line, soft_wrap=True)
        if word in ("invalid", "ungraded"):
            reason = row["ended_detail"] if word == "invalid" else row["verdict_detail"]
            self._console.print(
                f"           {for_terminal(str(reason))}", soft_wrap=True, markup=False, highlight=False
            )

    def _render(self) -> RenderableType:
        return Group(self._bar, Text(f"{self._now}  {time.monotonic() - self._since:.0f} s", style="dim"))
