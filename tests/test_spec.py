"""The rules of a sweep, from flags and files: what wins, and in which words a mistake is told."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli import app
from harness.errors import UserError
from harness.spec import Spec, find_spec, flag_of, read_spec

ONE = 'agents = ["oracle"]\n'


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "spec.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, ONE + "limit = 3\n[experiment]\nrest_s = 2\n")
    spec = read_spec(file, {"limit": 1, "only": None})
    assert (spec.agents, spec.limit, spec.rest_s, spec.max_calls, spec.num_predict) == (["oracle"], 1, 2.0, 50, 2048)


def test_a_wrong_value_in_the_file_does_not_matter_once_a_flag_replaces_it(tmp_path: Path) -> None:
    assert read_spec(written(tmp_path, ONE + "limit = 0\n"), {"limit": 2}).limit == 2


def test_without_a_file_the_stored_spec_stands_for_it() -> None:
    stored = Spec(agents=["nop"], limit=2).model_dump()
    assert read_spec(None, {"limit": None}, stored) == Spec(agents=["nop"], limit=2)
    with pytest.raises(UserError, match=r"^--max-calls: expected 1 or more, found 0$"):
        read_spec(None, {"max_calls": 0}, stored)
    with pytest.raises(
        UserError, match=r"^the stored spec: \[experiment\] order: expected 'blocks' or 'listed', found 'up'$"
    ):
        read_spec(None, {}, stored | {"order": "up"})


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + ONE.encode(), ONE.replace("\n", "\r\n").encode()])
def test_files_that_editors_of_other_systems_write_are_read(tmp_path: Path, content: bytes) -> None:
    assert read_spec(written(tmp_path, content), {}).agents == ["oracle"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('agent = ["oracle"]', "'agent': no such field; did you mean agents?"),
        (ONE + "[sweep]\nlimit = 1", "'sweep': no such field"),
        (ONE + '"a\\nb" = 1', r"'a\nb': no such field"),
        ('agents = "oracle"', "agents: expected a list, found 'oracle'"),
        ("agents = []", "agents: expected a list of at least one, found []"),
        ("agents = [3]", "agents: expected a text, found 3"),
        (ONE + "models = ['']", "models: expected a text that is not empty, found ''"),
        (ONE + "tasks = ['smoke']", "tasks: expected a text, found ['smoke']"),
        (ONE + "limit = 'two'", "limit: expected a whole number, found 'two'"),
        (ONE + "limit = 1.5", "limit: expected a whole number, found 1.5"),
        (ONE + "limit = true", "limit: expected a whole number, found True"),
        (ONE + "[experiment]\nrest_s = true", "[experiment] rest_s: expected a number, found True"),
        (ONE + "[experiment]\nrest_s = -1", "[experiment] rest_s: expected 0 or more, found -1"),
        (ONE + "[experiment]\nrest_s = inf", "[experiment] rest_s: expected a finite number, found inf"),
        (ONE + "temperature = nan", "temperature: expected a finite number, found nan"),
        (ONE + "temperature = 9", "temperature: expected 2 or less, found 9"),
        (ONE + "time_limit_s = 0", "time_limit_s: expected more than 0, found 0"),
        (ONE + "time_limit_s = 1" + "0" * 400, "time_limit_s: expected a number, found 1000"),
        (ONE + "max_calls = 9999999999999999999999", "max_calls: expected 9223372036854775807 or less, found 99999"),
        (ONE + "num_ctx = 2", "num_ctx: expected 256 or more, found 2"),
        (ONE + "think = 'off'", "think: expected true or false, found 'off'"),
        (ONE + "[experiment]\norder = 'foo'", "[experiment] order: expected 'blocks' or 'listed', found 'foo'"),
        (ONE + "repeats = 2", "repeats belongs in the table [experiment]"),
        (ONE + "country = 'DEU'", "country belongs in the table [energy]"),
        (ONE + "[experiment]\nlimit = 2", "limit belongs above all tables"),
        (ONE + "[experiment]\nmeter = 'command:x'", "meter belongs in the table [energy]"),
        (ONE + "[experiment]\nrepeat = 2", "[experiment] 'repeat': no such field; did you mean repeats"),
        (ONE + "experiment = 3", "experiment: expected a table, found 3"),
        (ONE + "[energy]\ncountry = 'de'", "[energy] country: expected a text that matches ^[A-Z]{3}$"),
        (ONE + "[energy]\nrequire = 'estimated'", "[energy] require: expected 'measured'"),
        ("agents = [", "not valid TOML"),
        (b"\xff\xfe\x00", "not valid TOML"),
    ],
)
def test_a_wrong_spec_file_is_one_sentence_with_file_and_field(
    tmp_path: Path, content: str | bytes, sentence: str
) -> None:
    file = written(tmp_path, content)
    with pytest.raises(UserError) as raised:
        read_spec(file, {})
    assert str(raised.value).startswith(f"{file}: {sentence}")
    assert "\n" not in str(raised.value)


def test_the_published_design_comes_with_the_harness() -> None:
    spec = read_spec(find_spec("swenergy"), {})
    assert (spec.agents, spec.models) == (
        ["swe-agent", "openhands", "mini-swe-agent", "autocoderover"],
        ["gemma3:4b", "qwen3:1.7b"],
    )
    suite = tomllib.loads((Path("tasks") / spec.tasks / "suite.toml").read_text())
    assert len(spec.agents) * len(spec.models) * len(suite["ids"]) * spec.repeats == 1200


def test_what_the_paper_does_not_state_is_marked_as_our_choice() -> None:
    stated = {"agents"}
    for line in find_spec("swenergy").read_text().splitlines():
        name, equals, _ = line.partition(" = ")
        if equals and not line.startswith("#") and name.strip() not in stated:
            assert "# our choice" in line, line


def test_a_spec_that_is_neither_a_file_nor_shipped() -> None:
    with pytest.raises(UserError, match=r"^--spec swenergie: there is no such file, .*did you mean swenergy\?"):
        find_spec("swenergie")


def test_a_spec_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no spec file .*missing\.toml"):
        read_spec(tmp_path / "missing.toml", {})
    with pytest.raises(UserError, match="can't be read: Is a directory"):
        read_spec(tmp_path, {})


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({}, "--agents is missing: name what should run, or give a --spec file"),
        ({"agents": []}, "--agents is empty: name at least one"),
        ({"agents": ["oracle"], "only": []}, "--only is empty: name at least one, or leave the flag out"),
        ({"agents": ["oracle"], "tasks": ""}, "--tasks: expected a text that is not empty"),
        ({"agents": ["oracle"], "repeats": 0}, "--repeats: expected 1 or more, found 0"),
        ({"agents": ["oracle"], "rest_s": -1.0}, "--rest: expected 0 or more, found -1.0"),
        ({"agents": ["oracle"], "time_limit_s": 0.0}, "--time-limit: expected more than 0, found 0.0"),
        ({"agents": ["oracle"], "cpus": 0.0}, "--cpus: expected 0.01 or more, found 0.0"),
        ({"agents": ["\udcc3"]}, "--agents: expected a text, found '\\udcc3'"),
    ],
)
def test_a_wrong_flag_is_one_sentence_with_its_own_name(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        read_spec(None, flags)
    assert str(raised.value).startswith(sentence)


def test_every_field_has_a_flag_of_the_name_that_its_errors_give() -> None:
    command = typer.main.get_command(app).commands["sweep"]
    assert {flag_of(field) for field in Spec.model_fields} <= {
        name for option in command.params for name in option.opts
    }
