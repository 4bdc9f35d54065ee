"""External power meters: a command that prints watts, or an HTTP endpoint whose answer has them.

`command:CMD` is run in a shell; each line that is a number is a reading. A command that prints one and ends is started
again a second after its last start; one that keeps running is read. `http://...#WHERE` is asked once a second; WHERE is
a dotted path into a JSON answer (`#meters.0.power`), or a metric of a Prometheus text (`#node_power_watts{chip="a"}`).
Its password is `$NAME`, a variable of the environment, which is not stored.
What is not a number of watts is a reading that failed. Nothing is repeated, interpolated or replaced.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from harness.errors import MachineError, UserError
from harness.meter.readings import Instrument, Readings
from harness.meter.watts import MOST_W, BadReading, find_watts, metric, watts_of

if TYPE_CHECKING:
    import httpx

PERIOD_S = 1.0
HANG_S = 10.0
HTTP_LIMIT_S = 2.0
STOP_S = 2.5  # the most that `stop` waits
GRACE_S = 1.0  # between asking a command to end and killing it
REAP_S = 0.5
LOOK_S = 0.2  # how often a silent command is looked at
FLOOD_PAUSE_S = 0.05  # a command that prints without end waits for us; we don't race it for the processor
LINE_BYTES = 4096
BODY_BYTES = 1 << 20
MOST_READINGS = 200_000
MOST_PROBLEMS = 20
REASON_CHARACTERS = 120
# Beside the command waits a shell for the end of its standard input, which comes when this process has died, however it
# died: then it kills the command with everything in its process group. The command itself has no input.
WITH_ITS_PARENT = """
exec 3<&0 0</dev/null
{ read -r _; kill -s KILL 0; } <&3 >/dev/null 2>&1 &
exec 3<&-
exec sh -c "$1"
"""
OTHER_REASONS = "other reasons"


Outcome = float | BadReading
Tell = Callable[[float, Outcome], None]
"""Takes one reading: the moment of the monotonic clock, and watts or why there are none."""


class _Source(Protocol):
    def read(self, ended: threading.Event, tell: Tell) -> None:
        """One answer, or one life of a command."""

    def close(self) -> None: ...


class ExternalMeter:
    """One meter, read by a thread of its own from `start` to `stop`."""

    def __init__(self, text: str) -> None:
        """Raises UserError for a text that names no meter."""
        self._text = text
        self._source = _source(text)
        self._lock = threading.Lock()
        self._readings: deque[tuple[float, float | None]] = deque(maxlen=MOST_READINGS)
        self._problems: dict[str, int] = {}
        self._first: Outcome | None = None
        self._heard = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    @property
    def instrument(self) -> Instrument:
        return Instrument("meter", "wall", "power", PERIOD_S, most_w=MOST_W)

    def check(self, timeout_s: float = HANG_S + HTTP_LIMIT_S) -> float:
        """One reading now, in watts; the first that the meter gives decides. Raises MachineError that says what it
        answered instead. To be called before `start`: the command is run for it and ended."""
        trial = ExternalMeter(self._text)
        trial.start()
        try:
            trial._heard.wait(timeout_s)
        finally:
            trial.stop()
        first = trial._first
        if isinstance(first, float):
            return first
        reason = f"it said nothing within {timeout_s:g} s" if first is None else str(first)
        answered = f" (it answered {first.answered!r})" if first is not None and first.answered else ""
        raise MachineError(f"--meter {self._text}: a number of watts is expected, but: {reason}{answered}")

    def start(self) -> None:
        """Begin to read. Safe to call twice; after `stop` it does nothing."""
        if not self._thread.is_alive() and not self._ended.is_set():
            self._thread.start()

    def take(self) -> Readings:
        """All readings since the last time, in watts; None: one that failed."""
        with self._lock:
            said = list(self._readings)
            self._readings.clear()
        return Readings([time_s for time_s, _ in said], [watts for _, watts in said])

    def problems(self) -> dict[str, int]:
        """What went wrong since the start, and how often. What doesn't fit is counted under one name."""
        with self._lock:
            return dict(self._problems)

    def stop(self) -> None:
        """End the reading, and the command with everything in its process group. Safe to call twice."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        # The command belongs to this thread alone, from its start to its end: so nobody signals a number that is gone.
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                self._source.read(self._ended, self._note)
            except Exception as error:  # noqa: BLE001 - a meter that fails in a way of its own goes on being asked
                self._note(time.monotonic(), BadReading(f"{type(error).__name__}: {error}"))
            self._ended.wait(max(0.0, began + PERIOD_S - time.monotonic()))
        self._source.close()

    def _note(self, time_s: float, outcome: Outcome) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            if isinstance(outcome, BadReading):
                self._readings.append((time_s, None))
                reason = " ".join(str(outcome).split())[:REASON_CHARACTERS]
                if reason not in self._problems and len(self._problems) >= MOST_PROBLEMS - 1:
                    reason = OTHER_REASONS
                self._problems[reason] = self._problems.get(reason, 0) + 1
            else:
                self._readings.append((time_s, outcome))
            if self._first is None:
                self._first = outcome
                self._heard.set()


def _source(text: str) -> _Source:
    if text.startswith("command:"):
        command = text.removeprefix("command:").strip()
        if not command:
            raise UserError(f"--meter {text}: the command is empty")
        if "\0" in command:
            raise UserError(f"--meter {text!r}: a command can't hold a NUL character")
        return _Command(command)
    if not text.lower().startswith(("http://", "https://")):
        raise UserError(f"--meter {text}: expected command:... or http://...#where")
    import httpx

    address, _, fragment = text.partition("#")
    try:
        url = httpx.URL(address)
        # What is typed is stored, and shown in lists of processes.
        if url.password and not url.password.startswith("$"):
            raise UserError("--meter: a password in it would be stored: name a variable, http://user:$VARIABLE@host/")
        if url.password:
            url = url.copy_with(username=url.username, password=os.path.expandvars(url.password))
    except (httpx.InvalidURL, ValueError) as error:
        raise UserError(f"--meter {text}: not an address ({error})") from None
    if not url.host:
        raise UserError(f"--meter {text}: the address has no host")
    if "%" in url.host:  # what httpx made of a blank
        raise UserError(f"--meter {text}: the host {url.netloc.decode()!r} is no name")
    if url.port is not None and not 0 < url.port < 1 << 16:
        raise UserError(f"--meter {text}: there is no port {url.port}")
    where = unquote(fragment)
    if "{" in where:
        try:
            metric(where)
        except BadReading as error:
            raise UserError(f"--meter {text}: {error}") from None
    return _Endpoint(url, where)


class _Command:
    def __init__(self, command: str) -> None:
        self._command = command

    def read(self, ended: threading.Event, tell: Tell) -> None:
        try:
            process = subprocess.Popen(
                ["sh", "-c", WITH_ITS_PARENT, "sh", self._command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            tell(time.monotonic(), BadReading(f"the command can't be started: {error.strerror}"))
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            _follow(process, process.stdout.fileno(), process.stderr.fileno(), ended, tell)
        finally:
            _end_group(process)
            process.stdin.close()
            process.stdout.close()
            process.stderr.close()

    def close(self) -> None:
        pass


def _follow(process: subprocess.Popen[bytes], output: int, errors: int, ended: threading.Event, tell: Tell) -> None:
    lines, complaints, told = _Lines(), b"", False
    open_files, heard = [output, errors], time.monotonic()
    while not ended.is_set():
        code = _exit_code(process)  # before the look at what it printed: so nothing of that is missed
        if open_files:
            ready = select.select(open_files, [], [], LOOK_S)[0]
        else:
            ready = []
            ended.wait(LOOK_S)
        now = time.monotonic()
        flood = False
        for file in ready:
            chunk = os.read(file, LINE_BYTES)
            flood = flood or len(chunk) == LINE_BYTES
            if not chunk:
                open_files.remove(file)
            elif file == errors:
                complaints = (complaints + chunk)[-LINE_BYTES:]
            else:
                for line in lines.add(chunk):
                    tell(now, _watts_in(line))
                    heard, told = now, True
        # What it started may hold the files open when it is gone: silence is the end, then.
        if code is not None and output not in ready:
            # An end without a newline is a number only if the command meant to end there.
            if lines.rest and code == 0:
                tell(now, _watts_in(lines.rest))
                told = True
            if code or not told:
                reason = f"the command ended with code {code}" + ("" if code else ", without a reading")
                tell(now, BadReading(reason, complaints.decode(errors="replace").strip()))
            return
        if now - heard > HANG_S:
            tell(now, BadReading(f"silent for {HANG_S:g} s", complaints.decode(errors="replace").strip()))
            return
        if flood:
            ended.wait(FLOOD_PAUSE_S)


class _Lines:
    """Cuts what a command prints into lines that are not blank. None: a line that is too long, told once."""

    def __init__(self) -> None:
        self.rest = b""  # what has no end yet
        self._skipping = False

    def add(self, chunk: bytes) -> Iterator[bytes | None]:
        *whole, self.rest = (self.rest + chunk).split(b"\n")
        for line in whole:
            if self._skipping:
                self._skipping = False
            elif len(line) > LINE_BYTES:
                yield None
            elif line.strip():
                yield line
        if len(self.rest) > LINE_BYTES and not self._skipping:
            self._skipping = True
            yield None
        if self._skipping or not self.rest.strip():
            self.rest = b""


def _watts_in(line: bytes | None) -> Outcome:
    if line is None:
        return BadReading(f"a line of over {LINE_BYTES} bytes")
    try:
        return watts_of(line.decode(errors="replace"))
    except BadReading as error:
        return error


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """None while it runs. It is not reaped: until then its number is that of its group and of nothing else."""
    told = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if told is None:
        return None
    return told.si_status if told.si_code == os.CLD_EXITED else -told.si_status


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the command to end, then kill its whole group. What can't be killed (sudo's, the kernel's) is left."""
    if _exit_code(process) is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while _exit_code(process) is None and time.monotonic() < deadline:
            time.sleep(0.01)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(REAP_S)


class _Endpoint:
    def __init__(self, url: httpx.URL, where: str) -> None:
        self._url = url
        self._where = where
        self._web: httpx.Client | None = None

    def read(self, ended: threading.Event, tell: Tell) -> None:
        import httpx

        if self._web is None:
            # Made once: reading the machine's certificates each time would cost more than all the rest. Connections are
            # not kept, so that no reading is lost to one that the meter has closed.
            direct: Any = {"all://localhost": None, "all://127.0.0.1": None, "all://[::1]": None}  # no proxy
            self._web = httpx.Client(
                timeout=HTTP_LIMIT_S, follow_redirects=True, headers={"Accept-Encoding": "identity"}, mounts=direct,
                limits=httpx.Limits(max_keepalive_connections=0),
            )  # fmt: skip
        outcome: Outcome
        body = ""
        try:
            body = _body(self._web, self._url)
            arrived_s = time.monotonic()
            outcome = watts_of(find_watts(body, self._where))
        except httpx.TimeoutException:
            arrived_s, outcome = time.monotonic(), BadReading(f"no answer in {HTTP_LIMIT_S:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            arrived_s, outcome = time.monotonic(), BadReading(f"no answer: {error or type(error).__name__}")
        except BadReading as error:
            arrived_s, outcome = time.monotonic(), BadReading(str(error), error.answered or body.strip()[:200])
        tell(arrived_s, outcome)

    def close(self) -> None:
        if self._web is not None:
            self._web.close()


def _body(web: httpx.Client, url: httpx.URL) -> str:
    """The answer's text. Raises BadReading and httpx's errors."""
    began = time.monotonic()
    body = b""
    with web.stream("GET", url) as response:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > BODY_BYTES:
                raise BadReading(f"an answer of over {BODY_BYTES >> 20} MiB")
            if time.monotonic() - began > HTTP_LIMIT_S:
                break
    if time.monotonic() - began > HTTP_LIMIT_S:  # httpx's own limit is for each step, of which there may be many
        raise BadReading(f"no answer in {HTTP_LIMIT_S:g} s")
    text = body.decode("utf-8-sig", errors="replace")
    if response.status_code != 200:
        raise BadReading(f"HTTP status {response.status_code}", text.strip()[:200])
    return text
