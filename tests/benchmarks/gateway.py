"""What the gateway adds to a call. Exit code 1 when it is more than issue 2 allows.

The scripted engine's HTTP server is the stand-in for a model server, in a process of its own; it answers at
once with the same 40 words. A client in another process sends the same 25 kB chat request (OpenAI's, not
streamed) in turns to the stand-in directly and through the gateway, each over one kept connection, with the
same client library (httpx). The way through the gateway is the one of a run: Unix socket, key, policy, engine
streamed from in Ollama's dialect with httpx, limits, record and journal (messages hashed and written). The
messages differ from call to call in the last one, as a conversation's do.

    python tests/benchmarks/gateway.py [--calls 500]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from harness.engines.scripted import Scripted
from harness.gateway.policy import Policy
from harness.gateway.server import Gateway

REQUEST_BYTES = 25_000
WARM_UP = 30
LIMITS_MS = {"median": 2.0, "p99": 5.0}

SCRIPT = f"""
when_exhausted = "repeat"
[[answers]]
chunk_words = 0
text = "{"word " * 40}"
"""


def request(model: str, number: int) -> bytes:
    """A conversation of 20 messages, 25 kB in all."""
    text = "def f(x):\n    return x + 1  # as it was\n" * 40
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i} {text}"[:1200]} for i in range(20)]
    messages.append({"role": "user", "content": f"call {number} "})
    body = {"model": model, "messages": messages}
    messages[-1]["content"] += "x" * (REQUEST_BYTES - len(json.dumps(body)))
    return json.dumps(body).encode()


def timed(client: httpx.Client, body: bytes) -> float:
    began = time.perf_counter()
    response = client.post("/v1/chat/completions", content=body)
    seconds = time.perf_counter() - began
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"].startswith("word"), response.text
    return seconds


def client_process(address: str, socket: str, key: str, model: str, calls: int) -> None:
    """Times both ways in turns; prints both lists as JSON."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    through = httpx.HTTPTransport(uds=socket)
    ways = {
        "direct": httpx.Client(base_url=address, headers=headers, timeout=30, trust_env=False),
        "gateway": httpx.Client(base_url="http://gateway", headers=headers, timeout=30, transport=through),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + calls):
        body = request(model, number)
        order = list(ways) if number % 2 else list(reversed(ways))
        for name in order:
            took = timed(ways[name], body)
            if number >= WARM_UP:
                seconds[name].append(took)
    print(json.dumps(seconds))


def measure(calls: int) -> dict[str, list[float]]:
    server = subprocess.Popen(
        [sys.executable, "-m", "harness.engines.scripted_server"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory(prefix="gw") as folder:
            script = Path(folder) / "script.toml"
            script.write_text(SCRIPT)
            engine = Scripted(address=address)
            engine.prepare(str(script), 16_384)
            policy = Policy(str(script), 16_384, 2_048, 0.0, None, 1, False, "text", None, None, 60.0)
            gateway = Gateway(engine)
            door = gateway.open(Path(folder) / "door", policy, engine.describe(str(script)), Path(folder) / "journal")
            try:
                arguments = [address, str(Path(folder) / "door"), door.key, str(script), str(calls)]
                result = subprocess.run(
                    [sys.executable, __file__, "--client", *arguments], stdout=subprocess.PIPE, check=True
                )
                records = door.close()
                assert len(records) == WARM_UP + calls
                assert all(record.status == "ok" for record in records)
                journal = Path(folder) / "journal" / "calls.jsonl"
                assert len(journal.read_bytes().splitlines()) == len(records)
            finally:
                gateway.close()
                engine.close()
        seconds: dict[str, list[float]] = json.loads(result.stdout)
        return seconds
    finally:
        server.terminate()
        server.wait()


def report(seconds: dict[str, list[float]]) -> bool:
    """Print the table; whether all limits are kept."""
    percentile = {"median": statistics.median, "p99": lambda s: statistics.quantiles(s, n=100)[98]}
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: a busy machine shows in the p99")
    print(f"{'':8}{'direct ms':>12}{'gateway ms':>12}{'added ms':>12}{'ratio':>8}")
    passed = True
    for name, of in percentile.items():
        direct, gateway = (of(seconds[way]) * 1e3 for way in ("direct", "gateway"))
        print(f"{name:8}{direct:12.2f}{gateway:12.2f}{gateway - direct:12.2f}{gateway / direct:8.1f}")
        ok = gateway - direct <= LIMITS_MS[name]
        passed = passed and ok
        verdict = "PASS" if ok else "FAIL"
        print(f"{verdict} {name}: {gateway - direct:.2f} ms added, at most {LIMITS_MS[name]:.0f} ms")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        *where, calls = arguments.client
        client_process(*where, int(calls))
        return 0
    return 0 if report(measure(arguments.calls)) else 1


if __name__ == "__main__":
    sys.exit(main())
