"""The documentation against the code: generated pages are fresh, and commands that pages show can be typed."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "agents" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()
COMMANDS: dict[str, Any] = {words: command for words, command, _ in generate.commands()}


def test_generated_pages_are_fresh() -> None:
    assert generate.stale() == [], "run `make docs`"


def test_a_stale_page_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("loops.md", "statistics.md"):  # made in part
        (tmp_path / name).write_text((generate.FOLDER / name).read_text())
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    for name, make in generate.PAGES.items():
        (tmp_path / name).write_text(make())
    assert generate.stale() == []
    (tmp_path / "cli.md").write_text("as it was last year")
    assert generate.stale() == ["docs/cli.md"]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_option_is_explained(words: str) -> None:
    command = COMMANDS[words]
    assert command.help
    assert command.help.strip()
    assert [param.name for param in command.params if not param.help] == []
    assert f"## {words}\n" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_pages_do_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = generate.cli_page()
    monkeypatch.setenv("COLUMNS", "40")
    assert generate.cli_page() == before


def shown(text: str) -> list[str]:
    """The `harness` commands in a page's blocks of shell and its indented blocks, continued lines joined."""
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    fenceless = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks.append("\n".join(re.findall(r"^ {4}(\S.*)$", fenceless, re.MULTILINE)))
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ") for line in lines if re.match(r"\s*(\$ )?harness\s", line)]


def parse(line: str) -> None:
    """Parse a command as the command line would, without running it. Raises Typer's usage errors."""
    _, *rest = shlex.split(line, comments=True)
    words = "harness"
    while rest and f"{words} {rest[0]}" in COMMANDS:
        words += f" {rest.pop(0)}"
    if any(word in ("-h", "--help") for word in rest):
        return
    assert not hasattr(COMMANDS[words], "commands"), f"{line}: {words} has no command {' '.join(rest[:1])!r}"
    COMMANDS[words].make_context(words, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_pages_show_can_be_typed(page: Path) -> None:
    for line in shown(page.read_text(encoding="utf-8")):
        parse(line)


def test_commands_are_found_in_pages_and_wrong_ones_refused() -> None:
    page = "text\n\n    harness agents list  # all\n\n```sh\nharness sweep --agents all \\\n  --limit 1\n```\n"
    assert shown(page) == ["harness sweep --agents all    --limit 1", "harness agents list  # all"]
    for line in shown(page):
        parse(line)
    with pytest.raises(Exception, match="No such option"):
        parse("harness sweep --agnts all")
    with pytest.raises(Exception, match="valid integer"):
        parse("harness sweep --limit many")
    with pytest.raises(AssertionError, match="no command 'lst'"):
        parse("harness runs lst")


def test_what_security_rests_on_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8")))
    assert len(named) > 10
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]
