"""Meters that behave and meters that don't: real commands, a real HTTP server."""

from __future__ import annotations

import http.server
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.errors import MachineError, UserError
from harness.meter import external
from harness.meter.accounting import Curve
from harness.meter.external import BadReading, ExternalMeter, find_watts, watts_of

PYTHON = f"command:{sys.executable} -u -c"


def read(text: str, seconds: float = 1.0) -> tuple[list[float | None], dict[str, int]]:
    """What a meter said in some seconds, and its problems."""
    meter = ExternalMeter(text)
    meter.start()
    time.sleep(seconds)
    meter.stop()
    return list(meter.take().values), meter.problems()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("echo 5", "expected command:... or http"),
        ("command: ", "the command is empty"),
        ("ftp://meter", "expected command:... or http"),
        ("http:///status", "the address has no host"),
        ("", "expected command:... or http"),
    ],
)
def test_a_text_that_names_no_meter(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^--meter .*{sentence}"):
        ExternalMeter(text)


def test_a_command_that_prints_one_number_is_started_again(tmp_path: Path) -> None:
    said, problems = read(f"command:echo x >> {tmp_path}/runs; echo 41.5", 2.6)
    assert said == [41.5] * 3
    assert problems == {}
    assert len((tmp_path / "runs").read_text().splitlines()) == 3


def test_a_command_that_keeps_running_is_read() -> None:
    said, problems = read(f"{PYTHON} 'import time\nfor n in range(50): print(n); time.sleep(0.02)\ntime.sleep(9)'", 1.8)
    assert said == [float(n) for n in range(50)]
    assert problems == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("warm", "not a number: 'warm'"),
        ("-3", "negative: -3"),
        ("nan", "not a finite number: nan"),
        ("inf", "not a finite number: inf"),
        ("5 W", "not a number: '5 W'"),
    ],
)
def test_what_is_no_number_of_watts_is_a_reading_that_failed(line: str, reason: str) -> None:
    said, problems = read(f"command:echo 10; echo '{line}'; echo 12; sleep 9")
    assert said == [10.0, None, 12.0]
    assert problems == {reason: 1}


def test_watts_may_fall() -> None:
    assert read("command:echo 90; echo 10; sleep 9")[0] == [90.0, 10.0]


def test_a_command_that_fails_says_its_code() -> None:
    said, problems = read("command:echo 10; exit 3", 0.5)
    assert said == [10.0, None]
    assert problems == {"the command ended with code 3": 1}


def test_a_command_that_hangs_is_killed_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "HANG_S", 0.6)
    said, problems = read("command:sleep 600", 2.2)
    assert said == [None, None]
    assert problems == {"silent for 0.6 s": 2}


def test_a_line_without_an_end_is_given_up() -> None:
    said, problems = read(f"{PYTHON} 'import sys\nwhile True: sys.stdout.write(\"9\" * 1000)'", 0.8)
    assert set(said) == {None}
    assert list(problems) == ["a line of over 4096 bytes"]


def test_stopping_kills_a_command_that_will_not_end_and_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.sh"
    script.write_text(f"trap '' TERM INT HUP\nsleep 600 &\necho $! > {tmp_path}/child\necho 5\nsleep 600\n")
    meter = ExternalMeter(f"command:sh {script}")
    assert meter.check() == 5.0
    child = int((tmp_path / "child").read_text())
    began = time.monotonic()
    meter.stop()
    meter.stop()
    assert time.monotonic() - began < 3
    deadline = time.monotonic() + 2
    while psutil.pid_exists(child) and psutil.Process(child).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_a_meter_is_asked_before_it_is_believed() -> None:
    with pytest.raises(MachineError, match=r"^--meter command:echo warm: a number of watts is expected, but: not"):
        ExternalMeter("command:echo warm").check()
    with pytest.raises(MachineError, match=r"it said nothing within 0\.4 s"):
        ExternalMeter("command:sleep 60").check(0.4)


def test_readings_nobody_takes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MOST_READINGS", 100)
    said, _ = read(f"{PYTHON} 'for n in range(3000): print(n)\nimport time; time.sleep(9)'")
    assert said == [float(n) for n in range(2900, 3000)]


def test_reasons_do_not_pile_up() -> None:
    _, problems = read(f"{PYTHON} 'for n in range(300): print(chr(97 + n % 26) * n)\nimport time; time.sleep(9)'")
    assert 1 < len(problems) <= external.MOST_PROBLEMS
    assert all(len(reason) <= external.REASON_CHARACTERS for reason in problems)


def test_a_meter_that_stops_half_way_leaves_a_gap_and_no_figure() -> None:
    begun = time.monotonic()
    meter = ExternalMeter("command:for n in 1 2 3 4 5 6 7 8; do echo 50; sleep 0.1; done; sleep 600")
    meter.start()
    time.sleep(1.0)
    seen = time.monotonic()
    time.sleep(4.5)
    meter.stop()
    curve = Curve(meter.instrument, meter.take())
    whole = curve.energy(begun + 0.2, seen + 4.4)
    assert (whole.joules, whole.high) == (None, None)
    assert "no reading in the last" in str(whole.gap)
    assert 20 < (whole.low or 0) < 50
    assert curve.energy(begun + 0.2, begun + 0.6).joules == pytest.approx(20, rel=0.01)


PROMETHEUS = """# HELP node_power_watts Power.
# TYPE node_power_watts gauge
node_power_watts{chip="a",sensor="in"} 55.5
node_power_watts{chip="b",sensor="in"} 7
# TYPE room_watts gauge
room_watts 123.25
"""


@pytest.mark.parametrize(
    ("body", "where", "found"),
    [
        ("17.5\n", "", "17.5"),
        ('{"power": 12}', "", "12"),
        ('{"meters": [{"power": 8.5}, {"power": 9}]}', "meters.1.power", "9"),
        ('{"StatusSNS": {"ENERGY": {"Power": "31"}}}', "StatusSNS.ENERGY.Power", "31"),
        (PROMETHEUS, "room_watts", "123.25"),
        (PROMETHEUS, 'node_power_watts{chip="b"}', "7.0"),
        (PROMETHEUS, 'node_power_watts{sensor="in", chip="a"}', "55.5"),
    ],
)
def test_where_the_watts_stand(body: str, where: str, found: str) -> None:
    assert watts_of(find_watts(body, where)) == float(found)


@pytest.mark.parametrize(
    ("body", "where", "reason"),
    [
        ('{"a": 1, "b": 2}', "", "not a number at the top"),
        ('{"a": {"b": 2}}', "a.c", r"the answer has no a.c \(at 'c'\)"),
        ('{"a": [1]}', "a.4", r"the answer has no a.4"),
        ('{"a": true}', "a", "not a number at a: true"),
        ('{"a": [1, 2]}', "a", "not a number at a"),
        (PROMETHEUS, "node_power_watts", "the answer has 2 samples of node_power_watts: name one by its labels"),
        (PROMETHEUS, "other_watts", "the answer has no samples"),
        (PROMETHEUS, "9{", "is no metric"),
        ("<html>", "room_watts", "neither JSON nor Prometheus text|no samples"),
    ],
)
def test_where_no_watts_stand(body: str, where: str, reason: str) -> None:
    with pytest.raises(BadReading, match=reason):
        find_watts(body, where)


class _Plug(http.server.BaseHTTPRequestHandler):
    """A meter on a local port that the test drives."""

    answers: dict[str, tuple[int, bytes, float]] = {}  # noqa: RUF012 - one server a test

    def do_GET(self) -> None:
        status, body, delay_s = self.answers.get(self.path, (404, b"", 0.0))
        time.sleep(delay_s)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def plug() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plug)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_http_meter(plug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "HTTP_LIMIT_S", 0.4)
    _Plug.answers = {
        "/status": (200, b'{"meters": [{"power": 61.5}]}', 0.0),
        "/metrics": (200, PROMETHEUS.encode(), 0.0),
        "/broken": (500, b"61.5", 0.0),
        "/slow": (200, b"61.5", 1.0),
    }
    assert ExternalMeter(f"{plug}/status#meters.0.power").check() == 61.5
    assert ExternalMeter(f'{plug}/metrics#node_power_watts{{chip="a"}}').check() == 55.5
    for path, reason in (("broken", "HTTP status 500"), ("slow", "no answer in 0.4 s"), ("gone", "HTTP status 404")):
        with pytest.raises(MachineError, match=reason):
            ExternalMeter(f"{plug}/{path}").check()
    with pytest.raises(MachineError, match="no answer: "):
        ExternalMeter("http://127.0.0.1:9/").check()
