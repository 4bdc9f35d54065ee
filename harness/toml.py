"""TOML files that are checked as they are read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

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
