"""Keys and passwords of the user's environment: a sweep with a remote engine leaves none in anything that it writes."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import Harness
from docker.errors import NotFound

from harness import paths
from harness.sandbox.daemon import KIND, connect

pytestmark = [pytest.mark.docker, pytest.mark.network]
if importlib.util.find_spec("litellm") is None:
    pytest.skip("the litellm extra is not installed", allow_module_level=True)

KEY = "planted-key-7f3a9c5e"
PLANTED = {
    "OPENAI_API_KEY": KEY,
    "ANTHROPIC_API_KEY": "planted-anthropic-1d2c",
    "OLLAMA_API_KEY": "planted-ollama-88ab",
    "HF_TOKEN": "planted-hub-token-55",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-3",
    "HTTPS_PROXY": "http://someone:planted-proxy-pw-4@127.0.0.1:9",
    "UV_INDEX_URL": "http://someone:planted-index-pw-5@127.0.0.1:9/simple",
    "PIP_INDEX_URL": "http://someone:planted-pip-pw-66@127.0.0.1:9/simple",
    "OLLAMA_HOST": "http://someone:planted-ollama-pw-7@127.0.0.1:9",
    "METER_PASSWORD": "planted-meter-pw-8",
}
MARKS = ("planted-", base64.b64encode(b"someone:planted-").rstrip(b"=")[:-1].decode())

# Asks twice, keeps what it is answered, and looks for the key wherever a sandbox could have it.
ASKS = """
import json, os, subprocess, urllib.error, urllib.request

for number in range(2):
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        json.dumps({"model": os.environ["HARNESS_MODEL"], "messages": [{"role": "user", "content": "hi"}]}).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]},
    )
    try:
        print(urllib.request.urlopen(request).read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, dict(error.headers), error.read().decode())
print(dict(os.environ))
subprocess.run("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /opt/harness/task.json; mount; env", shell=True)
found = subprocess.run(
    "grep -rlsI plan''ted- /opt/harness /run /etc /root /tmp /home /testbed --exclude-dir=agent", shell=True,
    stdout=subprocess.PIPE,
)
print("FOUND", found.stdout)
with open("notes.txt", "w") as notes:
    notes.write("done")
"""


class Provider(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that demands the key; one that is to refuse repeats what it was sent."""

    refuses: str | None = None
    keys: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        sent = self.headers["Authorization"] or ""
        self.keys.append(sent)
        if sent != f"Bearer {KEY}" or self.refuses is not None:
            error = {"message": f"{self.refuses}: {sent}", "type": "invalid_request_error", "code": sent}
            self.answer(int((self.refuses or "401")[:3]), json.dumps({"error": error}).encode(), "application/json")
            return
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        parts: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a word"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        lines = [f"data: {json.dumps(head | part)}\n\n" for part in parts] + ["data: [DONE]\n\n"]
        self.answer(200, "".join(lines).encode(), "text/event-stream")

    def do_GET(self) -> None:  # the meter
        wanted = "Basic " + base64.b64encode(f"someone:{PLANTED['METER_PASSWORD']}".encode()).decode()
        if self.headers["Authorization"] != wanted:
            self.answer(401, f"who is {self.headers['Authorization']}?".encode(), "text/plain")
        else:
            self.answer(200, b'{"watts": 42.0}', "application/json")

    def answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[tuple[str, type[Provider]]]:
    class Ours(Provider):
        pass

    Ours.keys = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ours)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Ours
    server.shutdown()
    server.server_close()


def planted_in(content: bytes) -> list[str]:
    """The marks in a file, also where it is compressed."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return [content[max(0, at - 80) : at + 60].decode(errors="replace") for mark in MARKS
            if (at := content.find(mark.encode())) >= 0]  # fmt: skip


def found_below(folder: Path, since: float = 0.0) -> dict[str, list[str]]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.lstat().st_mtime >= since]
    return {str(path): marks for path in files if (marks := planted_in(path.read_bytes()))}


@contextmanager
def inspecting(seen: list[Any]) -> Iterator[None]:
    """What Docker says of every container of a harness's, while it is there."""
    ended = threading.Event()

    def look() -> None:
        api = connect().api
        while not ended.wait(0.2):
            for container in api.containers(filters={"label": KIND}):
                with suppress(NotFound):
                    seen.append(api.inspect_container(container["Id"]))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


@pytest.mark.parametrize("refuses", [None, "401 Incorrect API key provided", "500 broken"])
def test_nothing_that_a_sweep_writes_has_a_secret(
    harness: Harness, provider: tuple[str, type[Provider]], refuses: str | None
) -> None:
    address, server = provider
    server.refuses = refuses
    began = time.time()
    temporary = harness.folder / "temporary"
    temporary.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HARNESS_RUNS")},
        **PLANTED, "OPENAI_API_BASE": f"{address}/v1", "TMPDIR": str(temporary), "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    agent = harness.agent("asks", ASKS, calls_model=True, runner="run.py")
    images = {image.id for image in connect().images.list(all=True)}
    said = []

    def run(*words: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words], cwd=harness.folder, env=environment, capture_output=True,
            check=False, timeout=600,
        )  # fmt: skip
        said.append(done.stdout + done.stderr)
        assert done.returncode in codes, (words, done.stderr.decode())
        return done.stdout.decode()

    meter = address.replace("://", "://someone:$METER_PASSWORD@") + "/#watts"
    sweep = ["sweep", "--agents", agent, "--models", "litellm/openai/gpt-4o", "--tasks", "smoke", "--limit", "1",
             "--num-ctx", "4096", "--meter", meter, "--idle", "0", "--retries", "0"]  # fmt: skip
    seen: list[Any] = []
    with inspecting(seen):
        run(*sweep, codes=(0, 1))
    assert server.keys
    assert set(server.keys) == {f"Bearer {KEY}"}
    [row] = harness.rows("SELECT * FROM runs")
    log = gzip.decompress(next(harness.runs.rglob("agent.log.gz")).read_bytes()).decode()
    assert "FOUND b''" in log
    if refuses is None:
        assert (row["calls"], row["ended_by"]) == (2, "gave_up")
    else:
        assert "($OPENAI_API_KEY)" in json.dumps(harness.rows("SELECT error FROM calls"))
    run("runs", "show", row["run_id"])
    if refuses is None:
        for form in ("html", "md", "latex", "json", "csv"):
            run("report", "--format", form, "--output", str(harness.folder / f"report.{form}"))
        for form in ("bundle", "atif"):
            run("export", row["sweep_id"], "--format", form, "--output", str(harness.folder / form))
        for words in ("doctor --json", "agents list --json", "models list --json", "db datasette"):
            run(*words.split(), codes=(0, 1))
        run("sweep", "--agents", agent, "--models", "gemma3:4b", "--tasks", "smoke", "--limit", "1", codes=(1, 2))
    typed = meter.replace("$METER_PASSWORD", PLANTED["METER_PASSWORD"])
    run(*[typed if word == meter else word for word in sweep], codes=(2,))

    assert not [text for output in said for text in planted_in(output)]
    shutil.rmtree(Path(agent))  # the planted words are in the script itself, cut in two
    assert found_below(harness.folder) == {}
    assert found_below(paths.cache(), began) == {}
    client = connect()
    made = [image for image in client.images.list(all=True) if image.id not in images]
    described = json.dumps([[image.attrs, image.history()] for image in made], default=str)
    described += json.dumps(seen)
    assert row["sweep_id"] in described
    assert not planted_in(described.encode())
