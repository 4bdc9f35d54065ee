"""How things are named to people."""

from __future__ import annotations


def label(engine: str, model: str) -> str:
    """A model as it is named on the command line."""
    return model if engine in ("ollama", "none") else f"{engine}/{model}"
