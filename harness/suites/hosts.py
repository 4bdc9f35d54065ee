"""Whether a host on the internet answers from here, asked once, before anything waits for it in vain."""

from __future__ import annotations

import functools
import socket

HTTPS = 443
WAIT_S = 5.0


@functools.cache
def answers(host: str, port: int = HTTPS) -> bool:
    """Whether a connection to `host` can be made."""
    try:
        socket.create_connection((host, port), timeout=WAIT_S).close()
    except (OSError, UnicodeError):  # the latter for what is no name of a host
        return False
    return True
