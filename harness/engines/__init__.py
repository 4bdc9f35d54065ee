"""Model servers. Each is imported when it is asked for."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from harness.engines.base import Engine
from harness.errors import UserError, nearest

PREFIXES = ("llamacpp", "litellm", "scripted")
ENGINES = ("ollama", *PREFIXES)


def split_model(text: str) -> tuple[str, str]:
    """`[engine/]name` as (engine, name). No known prefix means Ollama, whose own names may hold slashes
    ("hf.co/user/model"). The word `none` stands for agents that call no model: ("none", "none").

    Raises UserError when no name follows.
    """
    if text == "none":
        return "none", "none"
    prefix, slash, rest = text.partition("/")
    engine, name = (prefix, rest) if slash and prefix in PREFIXES else ("ollama", text)
    if not name.strip():
        raise UserError(f"the model {text!r} has no name; write [engine/]name, as in llamacpp/smollm2:135m")
    if engine == "ollama" and slash and (meant := difflib.get_close_matches(prefix, PREFIXES, n=1, cutoff=0.8)):
        raise UserError(f"unknown engine {prefix!r} in the model {text!r}; did you mean {meant[0]}/{rest}?")
    return engine, name


def open_engine(prefix: str, model_names: Sequence[str]) -> Engine:
    """The engine for a prefix as `split_model` gives it. `model_names` are the models it will be asked for.

    Raises UserError for an unknown engine, one whose extra is not installed, or a script that is malformed.
    """
    if prefix == "ollama":
        try:
            # The library makes a client of its own when it is imported.
            from harness.engines.ollama import Ollama

            return Ollama()
        except ValueError:
            host = os.environ.get("OLLAMA_HOST")
            raise UserError(f"OLLAMA_HOST={host} is no address; write host:port or http://host:port") from None
    if prefix == "llamacpp":
        from harness.engines.llamacpp import LlamaCpp

        return LlamaCpp()
    if prefix == "litellm":
        from harness.engines.litellm_engine import LiteLLM

        return LiteLLM()
    if prefix == "scripted":
        from harness.engines.scripted import Scripted

        if len(model_names) != 1:
            raise UserError(f"a sweep plays one script at a time, these are {len(model_names)}")
        return Scripted(Path(model_names[0]))
    raise UserError(f"unknown engine {prefix}; {nearest(prefix, ENGINES)}")
