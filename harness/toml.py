"""TOML files that are checked as they are read, and values as TOML writes them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.errors import UserError
from harness.spec import expected

T = TypeVar("T")


def read_toml(path: Path, shape: TypeAdapter[T]) -> T:
    """The content of a file in a shape. Raises UserError that names file, field and what was expected."""
    try:
        return shape.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{path}: {field}: expected {expected(problem)}, found {problem['input']!r}") from error


def toml_value(value: Any) -> str:
    """A value as TOML writes it on one line. JSON's strings are TOML's but for two things: pairs of surrogates, which
    JSON would write for what lies beyond the first 65,536 characters, and DEL."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_value(name)} = {toml_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
