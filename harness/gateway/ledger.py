"""What is kept of every call: a record for the database, and a journal on disk with what was said.

The journal is two files. `calls.jsonl` has one object a call: the fields of its record, `messages` (hashes,
in order), `tools` (a hash or null) and `answer` (`text`, `thinking`, `tool_calls`). `messages.jsonl` has each
distinct message once, `{"sha256": ..., "message": {...}}`, and each distinct list of tools once,
`{"sha256": ..., "tools": [...]}`. The hash is SHA-256 over the JSON with sorted keys and without spaces.
A record is complete on disk when the next one begins: a crash loses at most the call under way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Literal

JOURNAL_BYTES = 512 << 20
"""Of a run. Frameworks come to a hundredth of it; what a sandbox can make a host write must have an end."""

CallStatus = Literal[
    "ok",
    "empty_after_thinking",  # thinking used up num_predict, no answer was left
    "context_overflow",  # the prompt does not fit the window
    "bad_request",  # the engine refused the request
    "engine_error",  # the engine broke: connection, 5xx, half an answer, rate limit
    "timeout",  # the call took longer than call_timeout_s, or the engine said so
    "aborted",  # the client left, or the run ended, before the answer was complete
    "refused",  # by the gateway: key, malformed, n > 1, tools in text mode; the engine was not asked
    "limit",  # the request that met a limit of the run; the engine was not asked
]


@dataclass(frozen=True)
class CallRecord:
    """One request of the agent. Counts and timings are the engine's own; what it did not tell is None.

    Offsets and durations are seconds of a monotonic clock. A call's time begins when it gets the engine (one
    at a time: the wait before is `queued_s`) and ends with the engine's last word, or with the failure.
    Requests that come after the run was stopped are answered with an error and not recorded.
    """

    index: int  # from 0, in the order in which the calls began; refused requests are numbered too
    call_id: str
    started_at: str  # UTC, ISO 8601
    offset_s: float  # from the opening of the door to the call's beginning
    queued_s: float
    duration_s: float
    first_token_s: float | None  # to the first piece of the answer, thinking included
    load_s: float | None
    prefill_s: float | None
    decode_s: float | None
    input_tokens: int | None  # cached part included
    cached_tokens: int | None
    thinking_tokens: int | None
    output_tokens: int | None  # thinking included
    status: CallStatus
    http_status: int | None  # what the client was answered; None when it had left
    error: str | None  # one sentence
    truncated: bool  # the answer was cut (num_predict, or the window was full), or the prompt did not fit
    finish_reason: str | None
    dialect: Literal["openai", "ollama"]
    streamed: bool  # whether the client asked for a stream; the engine is always streamed from
    sent: bool  # whether the engine was asked: `calls` of a run counts these
    seed: int | None  # None when the engine was not asked
    asked: Mapping[str, Any]  # the request as sent, less its messages; `tools` is their number
    tool_calls: int  # in the answer
    request_bytes: int
    refused_tokens: int | None = None  # of a prompt that did not fit; no work was done on it
    workdir: str | None = None  # fingerprint of the work directory when the request came; the sandbox's word: untrusted


@dataclass(frozen=True)
class Spoken:
    """What was said in one call, for the journal."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    text: str
    thinking: str
    tool_calls: Sequence[Mapping[str, Any]]


def canonical(value: object) -> bytes:
    """JSON with sorted keys and without spaces: equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class JournalFull(Exception):
    """A run said more than a journal holds."""


class Journal:
    """The two files of one run. What an unfinished try left in the folder is replaced.

    Writing happens in a thread of its own, off the path of the answers. `on_error` is called from there,
    once, with the first error or with JournalFull; nothing is written after it.
    """

    def __init__(self, folder: Path, on_error: Callable[[Exception], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a line is with the kernel as soon as it is written.
        self._calls = (folder / "calls.jsonl").open("wb", buffering=0)
        self._messages = (folder / "messages.jsonl").open("wb", buffering=0)
        self._known: set[str] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._written_bytes = 0
        self._on_error = on_error
        self._failed = False

    def add(self, record: CallRecord, spoken: Spoken) -> None:
        """Hand a finished call to the writer and return at once."""
        self._writer.submit(self._guarded, lambda: self._write(record, spoken))

    def close(self) -> None:
        """Return when everything is on disk."""
        self._writer.submit(self._guarded, self._sync)
        self._writer.shutdown(wait=True)
        self._calls.close()
        self._messages.close()

    def _guarded(self, write: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            write()
        except Exception as error:  # noqa: BLE001 - nobody else hears of one in this thread
            self._failed = True
            self._on_error(error)

    def _write(self, record: CallRecord, spoken: Spoken) -> None:
        line = asdict(record) | {
            "messages": [self._once("message", message) for message in spoken.messages],
            "tools": self._once("tools", list(spoken.tools)) if spoken.tools else None,
            "answer": {
                "text": spoken.text,
                "thinking": spoken.thinking,
                "tool_calls": list(spoken.tool_calls),
            },
        }
        self._append(self._calls, json.dumps(line).encode() + b"\n")
        if self._written_bytes > JOURNAL_BYTES:
            raise JournalFull(f"the run's calls said more than the {JOURNAL_BYTES >> 20} MB that are kept of a run")

    def _once(self, kind: str, value: object) -> str:
        encoded = canonical(value)
        sha256 = hashlib.sha256(encoded).hexdigest()
        if sha256 not in self._known:
            self._append(self._messages, b'{"sha256":"%s","%s":%s}\n' % (sha256.encode(), kind.encode(), encoded))
            self._known.add(sha256)
        return sha256

    def _append(self, file: FileIO, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # a disk that fills up takes the first part of a line
            rest = rest[file.write(rest) :]
        self._written_bytes += len(data)

    def _sync(self) -> None:
        os.fsync(self._calls.fileno())
        os.fsync(self._messages.fileno())
