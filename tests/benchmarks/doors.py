"""What a call takes through the relay, beside the mounted socket. Exit code 1 when it is over twice as long.

One container with both doors: a forwarder that leads through the socket, another through the relay, both to the same
door of a gateway with the scripted engine behind it. A client in the container sends the same 25 kB chat request in
turns through both, each over one kept connection.

    python tests/benchmarks/doors.py [--calls 500]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from docker.types import Mount
from gateway import SCRIPT, request

from harness import paths
from harness.engines.scripted import Scripted
from harness.gateway.policy import Policy
from harness.gateway.server import Gateway
from harness.images.locate import prepare_all
from harness.sandbox.container import Container, tar_of
from harness.sandbox.container import running as running_container
from harness.sandbox.daemon import connect
from harness.sandbox.doors import SOCKET_DIR, SOCKET_NAME, shared_folder
from harness.sandbox.relay import Relay, attach
from harness.sandbox.removal import wait_for_removals
from harness.sandbox.runtime import TRIAL
from harness.suites import choose, load_suite

WARM_UP = 30
MOST_RATIO = 2.0  # of the medians
PORTS = {"socket": 1101, "relay": 1102}
FORWARD = "import asyncio, sys; sys.path.insert(0, '/opt'); import forward; asyncio.run(forward.{})"
CLIENT = """
import http.client, json, sys, time
key, ports, calls, warm_up = json.loads(sys.argv[1])
ways = {name: http.client.HTTPConnection("127.0.0.1", port) for name, port in ports.items()}
seconds = {name: [] for name in ways}
body = open("/opt/request.json", "rb").read()
for number in range(warm_up + calls):
    for name in list(ways) if number % 2 else list(reversed(ways)):
        began = time.perf_counter()
        ways[name].request("POST", "/v1/chat/completions", body,
                           {"content-type": "application/json", "authorization": "Bearer " + key})
        answer = ways[name].getresponse()
        answer.read()
        took = time.perf_counter() - began
        assert answer.status == 200
        if number >= warm_up:
            seconds[name].append(took)
print(json.dumps(seconds))
"""


def measure(calls: int) -> dict[str, list[float]]:
    """Seconds of each call, by door."""
    client = connect()
    server = subprocess.Popen(
        [sys.executable, "-m", "harness.engines.scripted_server"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        engine = Scripted(address=server.stdout.readline().strip())
        with tempfile.TemporaryDirectory() as folder, shared_folder() as shared:
            [prepared] = prepare_all(client, choose(load_suite("smoke"), [], 1), Path(folder), print).values()
            script = Path(folder, "script.toml")
            script.write_text(SCRIPT)
            engine.prepare(str(script), 16_384)
            policy = Policy(str(script), 16_384, 2_048, 0.0, None, 1, False, "text", None, None, 60.0)
            gateway = Gateway(engine)
            door = gateway.open(shared / SOCKET_NAME, policy, engine.describe(str(script)), Path(folder, "journal"))
            ours = ("forward.py", "multiplex.py", "watch.py")
            files = {f"/opt/{name}": paths.PACKAGE / "sandbox" / name for name in ours}
            files |= {"/opt/request.json": request(str(script), 0), "/opt/client.py": CLIENT.encode()}
            mount = Mount(SOCKET_DIR, str(shared), type="bind", read_only=True)
            with running_container(
                client, prepared.image, kind="run", limits=TRIAL, files=tar_of(files), mounts=[mount]
            ) as container:  # fmt: skip
                relay = _forwarders(container, shared / SOCKET_NAME)
                said = bytearray()
                asked = json.dumps([door.key, PORTS, calls, WARM_UP])
                done = container.exec(["python3", "/opt/client.py", asked], sink=said.extend)
                assert done.code == 0, said.decode()
                relay.close()
            gateway.close()
            engine.close()
        found: dict[str, list[float]] = json.loads(said)
        return found
    finally:
        wait_for_removals()
        server.terminate()
        server.wait()


def _forwarders(container: Container, socket: Path) -> Relay:
    """Both, once both listen."""
    ready = {name: threading.Event() for name in PORTS}
    by_socket = FORWARD.format(f"by_socket({PORTS['socket']}, '{SOCKET_DIR}/{SOCKET_NAME}', '/testbed')")
    by_relay = FORWARD.format(f"by_relay({PORTS['relay']}, '/testbed')")
    container.begin(["python3", "-c", by_socket], sink=lambda _: ready["socket"].set())
    attached = attach(container, ["python3", "-c", by_relay])
    relay = Relay(attached, socket, lambda _: ready["relay"].set(), print, lambda: None)
    assert all(each.wait(20) for each in ready.values())
    return relay


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    seconds = measure(parser.parse_args().calls)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':8}{'socket ms':>12}{'relay ms':>12}{'added ms':>12}{'ratio':>8}")
    medians = {door: statistics.median(each) * 1e3 for door, each in seconds.items()}
    ninety_nine = {door: statistics.quantiles(each, n=100)[98] * 1e3 for door, each in seconds.items()}
    for name, each in (("median", medians), ("p99", ninety_nine)):
        added = each["relay"] - each["socket"]
        print(f"{name:8}{each['socket']:12.2f}{each['relay']:12.2f}{added:12.2f}{each['relay'] / each['socket']:8.1f}")
    passed = medians["relay"] <= MOST_RATIO * medians["socket"]
    print(f"{'PASS' if passed else 'FAIL'} median: at most {MOST_RATIO:g} times as long")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
