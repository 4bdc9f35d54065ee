"""External power meters: a command that prints watts, or an HTTP endpoint whose answer has them.

`command:CMD` is run in a shell; each line that is a number is a reading. A command that prints one and ends is started
again a second after its last start; one that keeps running is read. `http://...#WHERE` is asked once a second; WHERE is
a dotted path into a JSON answer (`#meters.0.power`), or a metric of a Prometheus text (`#node_power_watts{chip="a"}`).
What is not a number of watts is a reading that failed. Nothing is repeated, interpolated or replaced.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections import deque
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from harness.errors import MachineError, UserError
from harness.meter.readings import Instrument, Readings

PERIOD_S = 1.0
HANG_S = 10.0
HTTP_LIMIT_S = 2.0
STOP_S = 2.0
MOST_W = 100_000.0
LINE_BYTES = 4096
BODY_BYTES = 1 << 20
MOST_READINGS = 200_000
MOST_PROBLEMS = 20
REASON_CHARACTERS = 120

_METRIC = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?$")
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


class BadReading(Exception):
    """What the meter said is no number of watts. The message is a short reason."""


class ExternalMeter:
    """One meter, read by a thread of its own from `start` to `stop`."""

    def __init__(self, text: str) -> None:
        """Raises UserError for a text that names no meter."""
        self._command: str | None = None
        self._url, self._where = "", ""
        if text.startswith("command:"):
            self._command = text.removeprefix("command:").strip()
            if not self._command:
                raise UserError(f"--meter {text}: the command is empty")
        elif text.startswith(("http://", "https://")):
            self._url, self._where = urldefrag(text)
            self._where = unquote(self._where)
            if not urlsplit(self._url).hostname:
                raise UserError(f"--meter {text}: the address has no host")
        else:
            raise UserError(f"--meter {text}: expected command:... or http://...#where")
        self._text = text
        self._lock = threading.Lock()
        self._readings: deque[tuple[float, float | None]] = deque(maxlen=MOST_READINGS)
        self._problems: dict[str, int] = {}
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    @property
    def instrument(self) -> Instrument:
        return Instrument("meter", "wall", "power", PERIOD_S, most_w=MOST_W)

    def check(self, limit_s: float = HANG_S + HTTP_LIMIT_S) -> float:
        """One reading, in watts. Raises MachineError that says what the meter answered instead."""
        self.start()
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and not self._ended.is_set():
            with self._lock:
                known = [watts for _, watts in self._readings if watts is not None]
                problems = list(self._problems)
            if known:
                return known[-1]
            if problems:
                break
            time.sleep(0.02)
        self.stop()
        reason = next(iter(self.problems()), f"it said nothing within {limit_s:g} s")
        raise MachineError(f"--meter {self._text}: a number of watts is expected, but: {reason}")

    def start(self) -> None:
        """Begin to read. Safe to call twice."""
        if not self._thread.is_alive() and not self._ended.is_set():
            self._thread.start()

    def take(self) -> Readings:
        """All readings since the last time, in watts; None: one that failed."""
        with self._lock:
            said = list(self._readings)
            self._readings.clear()
        return Readings([time_s for time_s, _ in said], [watts for _, watts in said])

    def problems(self) -> dict[str, int]:
        """What went wrong since the start, and how often."""
        with self._lock:
            return dict(self._problems)

    def stop(self) -> None:
        """End the reading, and the command with everything it started. Safe to call twice."""
        self._ended.set()
        self._kill()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            if self._command is not None:
                self._read_command(self._command)
            else:
                self._ask()
            self._ended.wait(max(0.0, began + PERIOD_S - time.monotonic()))

    def _note(self, text: str | None, problem: str | None = None) -> None:
        now = time.monotonic()
        watts = None
        if text is not None:
            try:
                watts = watts_of(text)
            except BadReading as error:
                problem = str(error)
        with self._lock:
            self._readings.append((now, watts))
            if problem is not None:
                reason = problem[:REASON_CHARACTERS]
                if reason in self._problems or len(self._problems) < MOST_PROBLEMS:
                    self._problems[reason] = self._problems.get(reason, 0) + 1

    def _read_command(self, command: str) -> None:
        try:
            process = self._process = subprocess.Popen(
                command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                bufsize=0, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._note(None, f"the command can't be started: {error.strerror}")
            return
        assert process.stdout is not None
        output, pending, heard = process.stdout.fileno(), b"", time.monotonic()
        try:
            while not self._ended.is_set():
                ready, _, _ = select.select([output], [], [], 0.2)
                if not ready:
                    if time.monotonic() - heard > HANG_S:
                        self._note(None, f"silent for {HANG_S:g} s")
                        return
                    continue
                chunk = os.read(output, 65536)
                if not chunk:
                    if pending.strip():
                        self._note(pending.decode(errors="replace"))
                    break
                heard = time.monotonic()
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        self._note(line.decode(errors="replace"))
                if len(pending) > LINE_BYTES:
                    self._note(None, f"a line of over {LINE_BYTES} bytes")
                    return
            if not self._ended.is_set():
                code = process.wait()
                if code:
                    self._note(None, f"the command ended with code {code}")
        finally:
            self._kill()
            process.stdout.close()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _ask(self) -> None:
        import httpx

        try:
            with httpx.stream("GET", self._url, timeout=HTTP_LIMIT_S, follow_redirects=True) as response:
                body = b""
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > BODY_BYTES:
                        raise BadReading(f"an answer of over {BODY_BYTES >> 20} MiB")
            if response.status_code != 200:
                raise BadReading(f"HTTP status {response.status_code}")
            self._note(find_watts(body.decode(errors="replace"), self._where))
        except httpx.TimeoutException:
            self._note(None, f"no answer in {HTTP_LIMIT_S:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._note(None, f"no answer: {error}")
        except BadReading as error:
            self._note(None, str(error))


def watts_of(text: str) -> float:
    """A number of watts. Raises BadReading."""
    try:
        watts = float(text)
    except ValueError:
        raise BadReading(f"not a number: {text.strip()[:40]!r}") from None
    if not math.isfinite(watts):
        raise BadReading(f"not a finite number: {text.strip()}")
    if watts < 0:
        raise BadReading(f"negative: {text.strip()}")
    return watts


def find_watts(body: str, where: str) -> str:
    """What stands for the watts in an answer, as text. Raises BadReading."""
    try:
        content = json.loads(body)
    except ValueError:
        return _in_prometheus(body, where) if where else body
    return _in_json(content, where)


def _in_json(content: Any, where: str) -> str:
    for step in where.split(".") if where else []:
        try:
            content = content[int(step)] if isinstance(content, list) else content[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise BadReading(f"the answer has no {where} (at {step!r})") from None
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))
    if isinstance(content, bool) or not isinstance(content, int | float | str):
        raise BadReading(f"not a number at {where or 'the top'}: {json.dumps(content)[:40]}")
    return str(content)


def _in_prometheus(body: str, where: str) -> str:
    from prometheus_client.parser import text_string_to_metric_families

    match = _METRIC.match(where)
    if match is None:
        raise BadReading(f'{where!r} is no metric: write name or name{{label="value"}}')
    name, labels = match[1], dict(_LABEL.findall(match[2] or ""))
    try:
        samples = [sample for family in text_string_to_metric_families(body) for sample in family.samples]
    except ValueError as error:
        raise BadReading(f"neither JSON nor Prometheus text: {error}") from None
    fitting = [s for s in samples if s.name == name and labels.items() <= s.labels.items()]
    if len(fitting) != 1:
        found = "no" if not fitting else str(len(fitting))
        raise BadReading(f"the answer has {found} samples of {where}: name one by its labels")
    return str(fitting[0].value)
