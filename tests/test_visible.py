"""What agents, models and data sets are called and say reaches a terminal and a spreadsheet as text, and as no more."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from harness.analysis.report.data_files import write_csv
from harness.analysis.report.document import Document, Section, Table
from harness.cli.options import print_table
from harness.visible import for_terminal

ESCAPES = "\x1b[2J\x1b]0;title\x07\x1b]52;c;aGk=\x07a\rb\x9b31m\u202egnp.exe\u200b\x00\udcff"


def test_no_sequence_of_a_terminals_is_left() -> None:
    said = for_terminal(f"{ESCAPES}\r\n\tü [red]x[/red]")
    assert said.endswith("\n\tü [red]x[/red]")
    assert not {*said} & {"\x1b", "\x07", "\r", "\x9b", "\u202e", "\u200b", "\x00", "\udcff"}
    said.encode()


@pytest.mark.parametrize(
    "text", ["[red]x[/red]", r"\[/x]", "[/]", r"\\[bold]x", "[link=file:///etc/passwd]x[/link]", ":smile:", ESCAPES]
)
def test_a_cell_of_a_table_is_text(capsys: pytest.CaptureFixture[str], text: str) -> None:
    print_table("t", ["said"], [[text]])
    assert for_terminal(text) in capsys.readouterr().out


def test_a_file_gets_whole_words_however_wide_the_table_is(capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"{number:02d}-{'x' * 24}" for number in range(12)]
    print_table("t", [f"column_{number}" for number in range(12)], [words])
    printed = capsys.readouterr().out
    assert [word for word in words if word not in printed] == []


def test_a_spreadsheet_reckons_with_no_text(tmp_path: Path) -> None:
    odd = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1+cmd|x", "-1+cmd|x", "\t=1", "\r=1"]
    plain = ["a=b", "-3.5", "+1,200", "-12 %", "-", "x"]
    table = Table("names", "Names", ("name",), tuple((text,) for text in (*odd, *plain)), "")
    write_csv(Document("t", "", (), (Section("s", "S", (table,)),)), tmp_path)
    with (tmp_path / "names.csv").open(newline="", encoding="utf-8") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    assert cells == [*(f"'{text}" for text in odd), *plain]
