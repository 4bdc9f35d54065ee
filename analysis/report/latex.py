"""A report as LaTeX: a document that compiles as it is, its tables (booktabs) ready to be copied, its plots as PDF
files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from harness.analysis.report.document import Block, Bullets, Document, Note, Number, Paragraph, Plot, Table, shown
from harness.analysis.report.plots import as_pdf

HEAD = r"""\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{array,booktabs,longtable,graphicx}
\usepackage[hidelinks]{hyperref}
\setlength{\LTcapwidth}{\linewidth}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\begin{document}
"""
ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|":
    r"\textbar{}", "×": r"$\times$", "–": "--", "−": r"$-$", "²": r"\textsuperscript{2}", "·": r"$\cdot$", "…":
    r"\dots{}", "'": r"\textquotesingle{}", '"': r"\textquotedbl{}", "\n": " ", "°": r"\textdegree{}", "µ": r"$\mu$",
}  # fmt: skip
SPECIAL = re.compile("|".join(map(re.escape, ESCAPES)))
WIDE = 18  # characters of a text column, from which on its cells are folded


def write(document: Document, target: Path) -> list[Path]:
    """Returns the files that were written. Raises OSError."""
    folder = target.with_name(f"{target.stem}-plots")
    files = [target]
    for plot in document.plots():
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{plot.name}.pdf")
        files[-1].write_bytes(as_pdf(plot.draw()))
    lines = [f"\\section*{{{escaped(document.title)}}}", escaped(document.subtitle), ""]
    for section in document.sections:
        lines += [f"\\section{{{escaped(section.title)}}}"]
        for block in section.blocks:
            lines += [*_block(block, folder.name), ""]
    target.write_text(HEAD + "\n".join(lines) + "\n\\end{document}\n", encoding="utf-8")
    return files


def escaped(text: str) -> str:
    """As text of LaTeX; characters that its fonts lack become a question mark, so that it compiles whatever comes."""
    made = SPECIAL.sub(lambda match: ESCAPES[match[0]], text.replace("--", "-\N{ZERO WIDTH SPACE}-"))
    made = made.replace("\N{ZERO WIDTH SPACE}", "{}")  # else two hyphens would be set as a dash
    return "".join(letter if ord(letter) < 256 else "?" for letter in made if letter.isprintable())


def _block(block: Block, folder: str) -> Iterator[str]:
    match block:
        case Paragraph(text):
            yield f"{escaped(text)}\n"
        case Note(text):
            yield f"\\textit{{{escaped(text)}}}\n"
        case Bullets(items):
            yield "\\begin{itemize}"
            yield from (f"\\item {escaped(item)}" for item in items)
            yield "\\end{itemize}"
        case Plot():
            yield "\\begin{figure}[htbp]\\centering"
            yield f"\\includegraphics[width=.8\\linewidth]{{{folder}/{block.name}.pdf}}"
            yield f"\\caption{{{escaped(block.caption)}}}\\label{{fig:{block.name}}}"
            yield "\\end{figure}"
        case Table():
            yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    texts = [[escaped(shown(value, table.digits)) for value in row] for row in table.rows]
    columns = [_column(number, table) for number in range(len(table.columns))]
    yield "{\\footnotesize\\setlength{\\tabcolsep}{3pt}"
    yield f"\\begin{{longtable}}{{{''.join(columns)}}}"
    yield f"\\caption{{{escaped(table.caption)}}}\\label{{tab:{table.name}}}\\\\"
    head = " & ".join(escaped(column) for column in table.columns)
    yield f"\\toprule {head} \\\\ \\midrule \\endfirsthead"
    yield f"\\toprule {head} \\\\ \\midrule \\endhead"
    yield "\\bottomrule \\endlastfoot"
    yield from (f"{' & '.join(row)} \\\\" for row in texts)
    yield "\\end{longtable}}"


def _column(number: int, table: Table) -> str:
    values = [row[number] for row in table.rows]
    if all(value is None or isinstance(value, int | float | Number) for value in values):
        return "r"
    longest = max((len(str(value)) for value in values if value is not None), default=0)
    return ">{\\raggedright\\arraybackslash}p{0.15\\linewidth}" if longest > WIDE else "l"
