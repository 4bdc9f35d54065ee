"""Keys and passwords of the user's environment, kept out of what is said and stored, and out of sandboxes.

Servers repeat a wrong key in their answers, and libraries name addresses with their passwords in their errors; such
words end up in records, reports and in what an agent is answered. So every error's words go through `hidden`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

NAMED = re.compile(r"(?:KEY|TOKEN|SECRET|PASS|PASSWORD|PASSWD|CREDENTIALS?|AUTHORIZATION)(?:_|\d|$)", re.IGNORECASE)
SHORTEST = 8  # characters; what is shorter (`none`, `ollama`) is as likely a word as a secret
WITH_PASSWORD = re.compile(r"(?<=://)[^/\s'\"@]*:[^/\s'\"]*(?=@)|(?<=https://)[^/\s'\":@]+(?=@)")


def hidden(text: str) -> str:
    """The text with the values of variables such as OPENAI_API_KEY, and what stands before the @ of an address,
    replaced by what they are called."""
    for name, value in _secrets():
        if value in text:
            text = text.replace(value, f"(${name})")
    return WITH_PASSWORD.sub("***", text)


def _secrets() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if NAMED.search(name) and len(value) >= SHORTEST:
            yield name, value
        elif "@" in value and "://" in value:
            for word in value.split():
                password = _password(word)
                for written in {password, unquote(password)}:
                    if len(written) >= SHORTEST:
                        yield name, written


def _password(address: str) -> str:
    try:
        found = urlsplit(address)
        return found.password or ("" if found.scheme == "ssh" else found.username) or ""
    except ValueError:
        return ""
