"""What a GGUF file says about its model, read from its header: the weights are never touched."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.engines.base import Capability
from harness.errors import UserError

_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9

# llama.cpp's `llama_ftype`, the common ones. What is not here is shown as unknown.
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    32: "BF16",
}


@dataclass(frozen=True)
class Header:
    """The part of a GGUF header that matters here. Unknown facts are None."""

    context_tokens: int | None
    chat_template: str | None
    parameters: str | None
    quantization: str | None


def read(path: Path) -> Header:
    """Raises UserError when the file is missing or no GGUF."""
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"can't read the model file {path}: {error.strerror}") from None
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, _size: int, _mtime_ns: int) -> Header:
    try:
        facts = _metadata(path)
    except (OSError, ValueError, IndexError, UnicodeDecodeError, struct.error) as error:
        raise UserError(f"{path} is not a whole GGUF file ({error}); give a model file of llama.cpp") from None
    architecture = facts.get("general.architecture")
    window = facts.get(f"{architecture}.context_length")
    file_type = facts.get("general.file_type")
    return Header(
        context_tokens=int(window) if window is not None else None,
        chat_template=facts.get("tokenizer.chat_template"),
        parameters=facts.get("general.size_label"),
        quantization=_FILE_TYPES.get(file_type) if file_type is not None else None,
    )


def _metadata(path: Path) -> dict[str, Any]:
    """Every key that is no array. Arrays (the vocabulary) are stepped over."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, _tensors, count = struct.unpack_from("<IQQ", data, 4)
        if version < 2:
            raise ValueError(f"GGUF version {version}, 2 or newer is needed")
        at = 24
        facts: dict[str, Any] = {}
        for _ in range(count):
            key, at = _string(data, at)
            (kind,) = struct.unpack_from("<I", data, at)
            value, at = _value(data, kind, at + 4)
            if kind != _ARRAY:
                facts[key] = value
        return facts


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise ValueError("it ends within its header")
    return data[at + 8 : end].decode("utf-8"), end


def _value(data: mmap.mmap, kind: int, at: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, at)
    if kind == _ARRAY:
        return None, _after_array(data, at)
    scalar = _SCALARS.get(kind)
    if scalar is None:
        raise ValueError(f"unknown value type {kind}")
    return scalar.unpack_from(data, at)[0], at + scalar.size


def _after_array(data: mmap.mmap, at: int) -> int:
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind in _SCALARS:
        return at + int(count) * _SCALARS[kind].size
    length = struct.Struct("<Q")
    for _ in range(count):
        at = at + 8 + length.unpack_from(data, at)[0] if kind == _STRING else _value(data, kind, at)[1]
    return at


def template_capabilities(template: str | None) -> frozenset[Capability]:
    """What a chat template can express, found by rendering it: a template has tools if an offered tool shows
    up in the prompt, and thinking if the switch for it changes the prompt or it writes the tags itself.

    No template, or one that needs what only llama.cpp's own Jinja has, has neither.
    """
    if not template:
        return frozenset()
    plain = _render(template)
    if plain is None:
        return frozenset()
    found: set[Capability] = set()
    parameters = {"type": "object", "properties": {}}
    probe = {"name": "probe_tool", "description": "probe", "parameters": parameters}
    with_tool = _render(template, tools=[{"type": "function", "function": probe}])
    if with_tool is not None and "probe_tool" in with_tool:
        found.add("tools")
    switched = _render(template, enable_thinking=True) != _render(template, enable_thinking=False)
    if switched or "<think>" in template or "reasoning_effort" in template:
        found.add("thinking")
    return frozenset(found)


def _render(template: str, **variables: Any) -> str | None:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda _format: "2000-01-01"
    messages = [{"role": "user", "content": "probe"}]
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token="", **variables
        )
    # A template is a foreign program: it may also fail with whatever its filters raise.
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError):
        return None


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
