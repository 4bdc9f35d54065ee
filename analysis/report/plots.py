"""The plots of a report: vector pictures that can be printed, told apart without colour, and drawn the same every time.

Each function takes plain numbers and gives a figure; what is in it is chosen by the sections.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#e08a3c", "#7a5195", "#332288")
"""Told apart by people who see few colours (Paul Tol's bright scheme and more); markers and hatches differ, too."""
MARKERS = "osD^vP*Xp"
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "+++", "ooo", "|||", "---")
"""Nine each, so that of the ten colours none comes again with the same one before the ninetieth."""
INK = "#1b1c1d"
"""Of text and lines: pages put the reader's own text colour in its place."""
WIDTH_IN = 7.2
LONGEST_NAME = 44  # characters
MOST_POINTS = 200
"""Of a box that are drawn, and a tenth of those of a cloud: more can't be told apart, and make a page heavy."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",
    "pdf.fonttype": 42,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.5,
    "hatch.color": "white",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

_NONE = NullFormatter()
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 10 or value == 0 else f"{value:g}")


def as_svg(figure: Figure) -> str:
    """Without a header, for the middle of a page."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a page brings a font that has the letter, or a box stands there
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def as_pdf(figure: Figure) -> bytes:
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        FigureCanvasPdf(figure).print_pdf(out, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return out.getvalue()


def new(height_in: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        made = figure.subplots(1, columns, squeeze=False)
    return figure, list(made[0])


def colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


def some(values: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """Evenly spaced ones where there are more than so many."""
    if len(values) <= most:
        return list(values)
    return [values[number * len(values) // most] for number in range(most)]


def of_cloud(points: Sequence[Any], groups: int) -> list[Any]:
    """Those that are drawn of one of so many kinds."""
    return some(points, 10 * MOST_POINTS // max(1, groups))


def boxes(groups: Mapping[str, Sequence[float]], axis: str, log: bool = False) -> Figure:
    """A box and its points for each name, lying, from top to bottom."""
    with matplotlib.rc_context(STYLE):
        figure, [axes] = new(0.6 + 0.42 * len(groups))
        chance = np.random.default_rng(0)
        for number, values in enumerate(groups.values()):
            if not len(values):
                continue
            axes.boxplot(
                [list(values)], positions=[number], orientation="horizontal", widths=0.5, showfliers=False,
                patch_artist=True, boxprops={"facecolor": colour(number), "alpha": 0.35, "edgecolor": INK},
                medianprops={"color": INK, "linewidth": 1.6}, whiskerprops={"color": INK}, capprops={"color": INK},
                manage_ticks=False,
            )  # fmt: skip
            points = some(sorted(values))
            axes.plot(
                points, number + chance.uniform(-0.18, 0.18, len(points)), marker(number), markersize=2.6, alpha=0.65,
                color=colour(number), markeredgewidth=0,
            )  # fmt: skip
        _names(axes, list(groups))
        axes.set_xlabel(axis)
        if log:
            _log(axes.set_xscale, axes.xaxis)
        else:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(THOUSANDS)
        return figure


def stacked(groups: Mapping[str, Mapping[str, float]], axis: str, percent: bool = False) -> Figure:
    """A lying bar for each name, made of named parts; the parts have the same look in every bar."""
    parts = list(dict.fromkeys(part for of_group in groups.values() for part in of_group))
    with matplotlib.rc_context(STYLE):
        figure, [axes] = new(1.1 + 0.36 * len(groups) + 0.16 * (len(parts) // 4))
        left = np.zeros(len(groups))
        for number, part in enumerate(parts):
            widths = np.array([of_group.get(part, 0.0) for of_group in groups.values()])
            axes.barh(
                range(len(groups)), widths, left=left, height=0.62, label=shortened(part), color=colour(number),
                hatch=HATCHES[number % len(HATCHES)], edgecolor="white", linewidth=0.4,
            )  # fmt: skip
            left += widths
        _names(axes, list(groups))
        axes.set_xlabel(axis)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0) if percent else THOUSANDS)
        figure.legend(loc="outside upper center", ncols=4)
        return figure


def cloud(groups: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> Figure:
    """Points of several kinds, on logarithmic axes where they spread widely."""
    with matplotlib.rc_context(STYLE):
        figure, [axes] = new(3.6)
        for number, (name, points) in enumerate(groups.items()):
            shown = of_cloud(points, len(groups))
            if shown:
                xs, ys = zip(*shown, strict=True)
                axes.plot(
                    xs, ys, marker(number), label=shortened(name), color=colour(number), markersize=3.4, alpha=0.6,
                    markeredgewidth=0,
                )  # fmt: skip
        points = [point for group in groups.values() for point in group]
        for number, (set_scale, axis) in enumerate(((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis))):
            values = [point[number] for point in points]
            if is_wide(values):
                _log(set_scale, axis)
            else:
                axis.set_major_formatter(THOUSANDS)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        figure.legend(loc="outside upper center", ncols=3)
        return figure


def crosses(
    groups: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]],
    across: str,
    up: str,
    front: Sequence[str],
) -> Figure:
    """A point with both intervals for each name: ((value, low, high) across, the same up), and the front as steps."""
    with matplotlib.rc_context(STYLE):
        figure, [axes] = new(3.6)
        for number, (name, (x, y)) in enumerate(groups.items()):
            axes.errorbar(
                x[0], y[0], xerr=[[x[0] - x[1]], [x[2] - x[0]]], yerr=[[y[0] - y[1]], [y[2] - y[0]]],
                fmt=marker(number), color=colour(number), label=shortened(name), markersize=6, elinewidth=0.9,
                capsize=2,
            )  # fmt: skip
        best = sorted((groups[name][0][0], groups[name][1][0]) for name in front)
        if best:
            best.append((max(x[2] for x, _ in groups.values()), best[-1][1]))
            axes.step(*zip(*best, strict=True), where="post", color=INK, linewidth=1.2, linestyle="--")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=-0.005)
        axes.xaxis.set_major_formatter(THOUSANDS)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.legend(loc="outside upper center", ncols=3)
        return figure


LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))


def lines(
    groups: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    up: str,
    *,
    steps: bool = False,
    percent: Literal["", "y"] = "",
    height_in: float = 3.2,
) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure, [axes] = new(height_in)
        for number, (name, points) in enumerate(groups.items()):
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            line = LINES[number % len(LINES)]
            look: dict[str, Any] = {
                "color": colour(number),
                "linestyle": line,
                "linewidth": 1.4,
                "label": shortened(name),
            }
            if steps:
                axes.step(xs, ys, where="post", **look)
            else:
                axes.plot(xs, ys, **look)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(THOUSANDS)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0) if percent else THOUSANDS)
        figure.legend(loc="outside upper center", ncols=3)
        return figure


def is_wide(values: Sequence[float]) -> bool:
    """Whether they ask for a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 20


def shortened(name: str) -> str:
    """So that a long name leaves room for what it names."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _log(set_scale: Callable[[str], None], axis: Any) -> None:
    """A logarithmic axis that says 1, 2, 5, 10, and so on."""
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(THOUSANDS)
    axis.set_minor_formatter(_NONE)


def _names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
