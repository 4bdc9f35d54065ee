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
from harness.meter.external import ExternalMeter
from harness.meter.watts import BadReading, find_watts, watts_of

PYTHON = f"command:{sys.executable} -u -c"


def read(text: str, seconds: float = 1.0) -> tuple[list[float | None], dict[str, int]]:
    """What a meter said in some seconds, and its problems."""
    meter = ExternalMeter(text)
    meter.start()
    time.sleep(seconds)
    meter.stop()
    return list(meter.take().values), meter.problems()


def gone(pid: int) -> bool:
    """Whether a process ends within two seconds."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("echo 5", "expected command:... or http"),
        ("command: ", "the command is empty"),
        ("ftp://meter", "expected command:... or http"),
        ("http:///status", "the address has no host"),
        ("", "expected command:... or http"),
        ("command:echo \0", "NUL"),
        ("http://[::1#power", "not an address"),
        ("http://plug:99999/", "there is no port 99999"),
        ("http://my plug/", "is no name"),
        ("http://plug/metrics#watts{chip=a}", "is no metric"),
        ('http://plug/metrics#watts{chip="a" sensor="b"}', "is no metric"),
        ('http://plug/metrics#watts{chip="a"', "is no metric"),
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


def test_three_numbers_and_a_failure_every_time() -> None:
    said, problems = read("command:echo 10; echo 11; echo 12; exit 3", 1.5)
    assert said == [10.0, 11.0, 12.0, None] * 2
    assert problems == {"the command ended with code 3": 2}


def test_a_command_that_says_nothing_and_ends_well_is_no_silence() -> None:
    said, problems = read("command:true", 0.5)
    assert said == [None]
    assert problems == {"the command ended with code 0, without a reading": 1}


def test_half_a_number_is_no_number() -> None:
    assert read("command:printf 12", 0.5) == ([12.0], {})
    said, problems = read("command:printf 12; kill -9 $$", 0.5)  # it may have been on its way to 123
    assert said == [None]
    assert problems == {"the command ended with code -9": 1}


def test_a_command_that_leaves_something_behind_has_ended(tmp_path: Path) -> None:
    said, problems = read(f"command:sleep 600 & echo $! > {tmp_path}/child; echo 5", 1.5)
    assert said == [5.0, 5.0]
    assert problems == {}
    assert gone(int((tmp_path / "child").read_text()))


def test_a_command_that_closes_its_output_and_goes_on_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "HANG_S", 0.6)
    said, problems = read("command:echo 5; exec >&- 2>&-; sleep 600", 2.2)
    assert said == [5.0, None] * 2 + [5.0]
    assert problems == {"silent for 0.6 s": 2}


def test_a_command_that_hangs_is_killed_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "HANG_S", 0.6)
    said, problems = read("command:sleep 600", 2.2)
    assert said == [None, None]
    assert problems == {"silent for 0.6 s": 2}


def test_blank_lines_and_ends_of_lines_from_elsewhere_are_nothing() -> None:
    assert read(r"command:printf '10\r\n\n  \n 11 \n'; sleep 9") == ([10.0, 11.0], {})


def test_a_line_that_is_too_long_is_one_reading_that_failed() -> None:
    # Cut anywhere, so many nines would be numbers.
    long = "import time; print(10); print('9' * 5000); print('1' * 30_000, flush=True); print(12, flush=True)"
    said, problems = read(f'{PYTHON} "{long}; time.sleep(9)"', 1.5)
    assert said == [10.0, None, None, 12.0]
    assert problems == {"a line of over 4096 bytes": 2}


def test_a_line_without_an_end_is_given_up() -> None:
    said, problems = read(f"{PYTHON} 'import sys\nwhile True: sys.stdout.write(\"9\" * 1000)'", 0.8)
    assert set(said) == {None}
    assert list(problems) == ["a line of over 4096 bytes"]


def test_stopping_kills_a_command_that_will_not_end_and_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "stubborn.sh"
    script.write_text(f"trap '' TERM INT HUP\nsleep 600 &\necho $! > {tmp_path}/child\necho 5\nsleep 600\n")
    meter = ExternalMeter(f"command:sh {script}")
    meter.start()
    while not (said := list(meter.take().values)):
        time.sleep(0.02)
    assert said == [5.0]
    child = int((tmp_path / "child").read_text())
    began = time.monotonic()
    meter.stop()
    meter.stop()
    assert time.monotonic() - began < 3
    assert gone(child)
    meter.start()  # what has ended has ended
    assert meter.take().values == []


def test_a_command_may_tidy_up_when_it_is_stopped(tmp_path: Path) -> None:
    read(f"command:trap 'echo done > {tmp_path}/tidied; exit' TERM; echo 5; sleep 600 & wait", 0.5)
    assert (tmp_path / "tidied").exists()


def test_a_meter_that_never_began_can_be_stopped() -> None:
    meter = ExternalMeter("command:echo 5")
    meter.stop()
    assert (meter.take().values, meter.problems()) == ([], {})


def test_asking_leaves_nothing_running_and_no_readings(tmp_path: Path) -> None:
    meter = ExternalMeter(f"command:echo $$ > {tmp_path}/pid; echo 5; exec sleep 600")
    assert meter.check() == 5.0
    assert gone(int((tmp_path / "pid").read_text()))
    assert (meter.take().values, meter.problems()) == ([], {})
    meter.start()
    time.sleep(0.5)
    meter.stop()
    assert meter.take().values == [5.0]


def test_a_meter_is_asked_before_it_is_believed() -> None:
    with pytest.raises(MachineError, match=r"^--meter command:echo warm: a number of watts is expected, but: not"):
        ExternalMeter("command:echo warm").check()
    with pytest.raises(MachineError, match=r"ended with code 127 \(it answered '.*no-such-meter.*not found'\)$"):
        ExternalMeter("command:no-such-meter").check()
    with pytest.raises(MachineError, match="not a number: 'Watts'"):  # the first decides, whatever comes after it
        ExternalMeter("command:echo Watts; echo 5").check()
    with pytest.raises(MachineError, match="more than 100000 W, is it in watts"):
        ExternalMeter("command:echo 230000").check()
    with pytest.raises(MachineError, match=r"it said nothing within 0\.4 s"):
        ExternalMeter("command:sleep 60").check(0.4)


def test_readings_nobody_takes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MOST_READINGS", 100)
    said, _ = read(f"{PYTHON} 'for n in range(3000): print(n)\nimport time; time.sleep(9)'")
    assert said == [float(n) for n in range(2900, 3000)]


def test_endless_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MOST_READINGS", 100)
    said, problems = read("command:yes 5")
    assert (said, problems) == ([5.0] * 100, {})


def test_reasons_do_not_pile_up() -> None:
    said, problems = read(f"{PYTHON} 'for n in range(300): print(chr(97 + n % 26) * n)\nimport time; time.sleep(9)'")
    assert 1 < len(problems) <= external.MOST_PROBLEMS
    assert all(len(reason) <= external.REASON_CHARACTERS for reason in problems)
    assert problems[external.OTHER_REASONS] > 1
    assert sum(problems.values()) == len(said)


def test_a_reading_has_the_moment_at_which_it_came() -> None:
    meter = ExternalMeter("command:echo 1; sleep 0.4; echo 2; sleep 9")
    began = time.monotonic()
    meter.start()
    time.sleep(1.0)
    meter.stop()
    said = meter.take()
    assert said.values == [1.0, 2.0]
    assert began < said.times_s[0] < said.times_s[1] < time.monotonic()
    assert said.times_s[1] - said.times_s[0] > 0.3


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


def test_one_bad_line_is_passed_over_and_not_replaced() -> None:
    meter = ExternalMeter("command:for n in 1 2 3; do echo 50; sleep 0.2; done; echo err; echo 0 W; echo 50; sleep 9")
    meter.start()
    time.sleep(1.5)
    meter.stop()
    said = meter.take()
    assert said.values == [50.0, 50.0, 50.0, None, None, 50.0]
    begin_s, end_s = said.times_s[0], said.times_s[-1]
    energy = Curve(meter.instrument, said).energy(begin_s, end_s)
    assert energy.joules == pytest.approx(50 * (end_s - begin_s))
    assert energy.gap is None


PROMETHEUS = """# HELP node_power_watts Power.
# TYPE node_power_watts gauge
node_power_watts{chip="a",sensor="in"} 55.5
node_power_watts{chip="b",sensor="in"} 7
# TYPE room_watts gauge
room_watts 123.25
# TYPE odd_watts gauge
odd_watts{name="a \\"b\\" \\\\ c, d}"} 3
odd_watts{name="e",at="f"} 4
# TYPE twice_watts gauge
twice_watts 5
twice_watts 5
# TYPE spent_total counter
spent_total 99
"""


@pytest.mark.parametrize(
    ("body", "where", "found"),
    [
        ("17.5\n", "", "17.5"),
        ('{"power": 12}', "", "12"),
        ('{"meters": [{"power": 8.5}, {"power": 9}]}', "meters.1.power", "9"),
        ('{"StatusSNS": {"ENERGY": {"Power": "31"}}}', "StatusSNS.ENERGY.Power", "31"),
        ('{"unit": "W", "on": true, "plug": {"power": [8.25]}}', "", "8.25"),
        ('{"switch:0": {"0": 6}}', "switch:0.0", "6"),
        ("\n1e2\n", "", "100"),
        (PROMETHEUS, "room_watts", "123.25"),
        (PROMETHEUS, "room_watts{}", "123.25"),
        (PROMETHEUS, 'room_watts{chip=""}', "123.25"),
        (PROMETHEUS, r'odd_watts{name="a \"b\" \\ c, d}",}', "3"),
        (PROMETHEUS, 'odd_watts{at="f"}', "4"),
        (PROMETHEUS, 'odd_watts{at=""}', "3"),
        (PROMETHEUS, 'node_power_watts{chip="b"}', "7.0"),
        (PROMETHEUS, 'node_power_watts{sensor="in", chip="a"}', "55.5"),
    ],
)
def test_where_the_watts_stand(body: str, where: str, found: str) -> None:
    assert watts_of(find_watts(body, where)) == float(found)


@pytest.mark.parametrize(
    ("body", "where", "reason"),
    [
        ('{"a": 1, "b": 2}', "", "not a number at the top: the answer has 2 numbers"),
        ('{"a": "1", "b": true}', "", "not a number at the top: the answer has no numbers"),
        ("12", "power", "the answer has no power"),
        ('{"a": [1]}', "a.-1", "the answer has no a.-1"),
        ('{"a": [1]}', "a.b", "the answer has no a.b"),
        ("[" * 100_000, "a", "no samples"),
        ("", "room_watts", "no samples"),
        (PROMETHEUS, 'room_watts{chip="a"}', "the answer has no samples"),
        (PROMETHEUS, 'odd_watts{name="e",name="e"}', "is no metric"),
        (PROMETHEUS, "twice_watts", "the answer has 2 samples of twice_watts"),
        (PROMETHEUS, "spent_total", "spent_total is a counter"),
        ("room_watts warm", "room_watts", "neither JSON nor Prometheus text"),
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


@pytest.mark.parametrize(
    ("body", "where", "reason"),
    [
        ('{"power": "off"}', "power", "not a number: 'off'"),
        ('{"power": NaN}', "power", "not a finite number: nan"),
        ('{"power": -1.5}', "power", "negative: -1.5"),
        ('{"power": 1e999}', "", "not a finite number: inf"),
        ("", "", "not a number: ''"),
        ("1_000", "", "not a number: '1_000'"),
        ("٣", "", "not a number"),
        ("room_watts NaN", "room_watts", "not a finite number: nan"),
        ("room_watts -5", "room_watts", "negative: -5"),
    ],
)
def test_what_stands_there_is_no_number_of_watts(body: str, where: str, reason: str) -> None:
    with pytest.raises(BadReading, match=reason):
        watts_of(find_watts(body, where))


class _Plug(http.server.BaseHTTPRequestHandler):
    """A meter on a local port that the test drives."""

    answers: dict[str, tuple[int, bytes, float]] = {}  # noqa: RUF012 - one server a test

    def do_GET(self) -> None:
        status, body, delay_s = self.answers.get(self.path, (404, b"", 0.0))
        time.sleep(delay_s)
        self.send_response(status)
        self.end_headers()
        for piece in [body[n : n + 1] for n in range(len(body))] if self.path == "/drip" else [body]:
            try:
                self.wfile.write(piece)
            except OSError:  # who asked has had enough
                return
            time.sleep(0.1 if self.path == "/drip" else 0)

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
    _Plug.answers |= {"/drip": (200, b"61.500000", 0.0), "/huge": (200, b"9" * (external.BODY_BYTES + 1), 0.0)}
    for path, reason in (("drip", "no answer in 0.4 s"), ("huge", "an answer of over 1 MiB")):
        with pytest.raises(MachineError, match=reason):
            ExternalMeter(f"{plug}/{path}").check()


def test_an_answer_of_another_kind_is_shown(plug: str) -> None:
    _Plug.answers = {"/": (200, b'{"error": "login first"}', 0.0)}
    with pytest.raises(MachineError) as raised:
        ExternalMeter(f"{plug}/#power").check()
    assert str(raised.value) == (
        f"--meter {plug}/#power: a number of watts is expected, but: the answer has no power (at 'power')"
        """ (it answered '{"error": "login first"}')"""
    )


def test_a_server_that_goes_away_half_way_leaves_a_gap_and_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "PERIOD_S", 0.1)
    _Plug.answers = {"/": (200, b"40", 0.0)}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plug)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    meter = ExternalMeter(f"http://127.0.0.1:{server.server_port}/")
    meter.start()
    begun = time.monotonic()
    time.sleep(1.2)
    server.shutdown()
    server.server_close()
    time.sleep(1.2)
    end = time.monotonic()
    meter.stop()
    said = meter.take()
    known = [watts for watts in said.values if watts is not None]
    assert len(known) >= 3
    assert set(known) == {40.0}
    assert list(said.values) == known + [None] * (len(said.values) - len(known))
    assert len(said.values) > len(known)
    assert any(reason.startswith("no answer: ") for reason in meter.problems())
    energy = Curve(meter.instrument, said).energy(begun + 0.3, end)
    assert (energy.joules, energy.high) == (None, None)
    assert energy.gap is not None


class _StandInSource:
    """Fails in a way that nobody thought of."""

    def read(self, ended: threading.Event, tell: external.Tell) -> None:
        raise LookupError("a surprise")

    def close(self) -> None:
        pass


def test_a_surprise_is_a_reading_that_failed_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "PERIOD_S", 0.1)
    monkeypatch.setattr(external, "_source", lambda text: _StandInSource())
    said, problems = read("command:anything", 0.5)
    assert len(said) > 1
    assert problems == {"LookupError: a surprise": len(said)}
