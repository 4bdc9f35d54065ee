"""What an agent can send to a door, by the kind: each attack is given a client and checks what came back.

Attacks on HTTP itself go over a raw socket, those on what is said in it are requests that a library would send.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

LIMIT_S = 20.0
CHAT, OLLAMA, GENERATE, SHOW = "/v1/chat/completions", "/api/chat", "/api/generate", "/api/show"
MODELS = "/v1/models"


class Broken(Exception):
    """The gateway did not do what it promises."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


@dataclass
class Client:
    """Who sits in a sandbox: one door's socket and key, and what its requests were answered."""

    socket: Path
    key: str
    other_key: str  # of a run beside it
    statuses: list[int] = field(default_factory=list)

    def send(self, *pieces: bytes, answers: int = 1, wait: str = "read") -> list[Answer]:
        """Over a connection of its own. `wait`: "read" so many answers, "end" of the connection after closing this
        half of it, or "leave" at once."""
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(LIMIT_S)
            _connect(raw, self.socket)
            try:
                for piece in pieces:
                    raw.sendall(piece)
                if wait == "end":
                    raw.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has its answer already
            if wait == "leave":
                return []
            found = list(_answers(raw, answers if wait == "read" else None))
        self.statuses += [answer.status for answer in found]
        if wait == "read" and len(found) < answers:
            raise Broken(f"{len(found)} of {answers} answers came")
        return found

    def ask(self, method: str, path: str, body: object, *headers: str, key: str | None = None) -> Answer:
        """One whole request; `body` is sent as it is when it is bytes."""
        return self.send(self.request(method, path, body, *headers, key=key))[0]

    def request(self, method: str, path: str, body: object, *headers: str, key: str | None = None) -> bytes:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = self.key if key is None else key
        lines = [f"{method} {path} HTTP/1.1", "host: gateway", f"content-length: {len(content)}", *headers]
        if given:
            lines.append(f"authorization: Bearer {given}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _connect(raw: socket.socket, path: Path) -> None:
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            return raw.connect(str(path))
        except BlockingIOError:  # more wait at the door than it has room for
            if time.monotonic() > until:
                raise Broken("the door takes nobody in") from None
            time.sleep(0.01)


def _answers(raw: socket.socket, most: int | None) -> list[Answer]:
    """What a connection brings, until so many answers are whole or it ends."""
    found: list[Answer] = []
    data, ended = b"", False
    while most is None or len(found) < most:
        head, parted, rest = data.partition(b"\r\n\r\n")
        body = _body(head, rest, ended) if parted else None
        if body is not None:
            content, data = body
            status = int(head.split(b" ", 2)[1])
            if status != 100:
                found.append(Answer(status, content))
        elif ended:
            break
        else:
            try:
                more = raw.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            except TimeoutError:
                raise Broken(f"no answer within {LIMIT_S:g} s, after {data[:200]!r}") from None
            data, ended = data + more, not more
    return found


def _body(head: bytes, rest: bytes, ended: bool) -> tuple[bytes, bytes] | None:
    """A body and what follows it; None while it is not whole."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if head.split(b" ", 2)[1] == b"100":
        return b"", rest
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        end = rest.find(b"0\r\n\r\n")
        while end > 0 and rest[end - 2 : end] != b"\r\n":
            end = rest.find(b"0\r\n\r\n", end + 1)
        return (rest[:end], rest[end + 5 :]) if end >= 0 else None
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        return (rest[:length], rest[length:]) if len(rest) >= length else None
    return (rest, b"") if ended else None


def messages(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "You fix bugs."}, {"role": "user", "content": text}]


def valid(client: Client, rng: Random) -> None:
    """A request as a framework sends it is answered, and right: the engine says what it was told, backwards."""
    text = f"{rng.getrandbits(64):x} ünïcödé 🐚"
    stream = rng.random() < 0.5
    path = rng.choice((CHAT, OLLAMA, GENERATE))
    body: dict[str, Any] = {"model": "any", "stream": stream}
    body |= {"prompt": text} if path == GENERATE else {"messages": messages(text)}
    answer = client.ask("POST", path, body)
    said = json.dumps(text[::-1])[1:-1].encode()
    if answer.status != 200 or said not in answer.body:
        raise Broken(f"a valid request was answered {answer.status}: {answer.body[:300]!r}")
    if not stream:
        json.loads(answer.body)


def _refused(answer: Answer, *statuses: int) -> None:
    if answer.status not in statuses:
        raise Broken(f"answered {answer.status}, not {statuses}: {answer.body[:300]!r}")


# Below HTTP.


def not_http(client: Client, rng: Random) -> None:
    line = rng.choice(
        (
            b"\0" * rng.randint(1, 64), rng.randbytes(rng.randint(1, 200)), b"GET\r\n\r\n", b"FOO BAR BAZ\r\n\r\n",
            b"GET /v1/models HTTP/9.9\r\n\r\n", b"GET /v1/mo\0dels HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
            b"GET /v1/models HTTP/1.1\r\n\r\n",  # without its host
            b"POST " + CHAT.encode() + b" HTTP/1.1\nhost: x\ncontent-length: 3\n\n{}",
        )
    )  # fmt: skip
    client.send(line, wait="end")


def bad_headers(client: Client, rng: Random) -> None:
    lines = rng.choice(
        (
            [b"x-%d: %d" % (n, n) for n in range(2_000)], [b"x: " + b"y" * (1 << 17)], [b"no colon here"],
            [b" folded: x"], [b"content-length: 5", b"content-length: 6"], [b"content-length: -1"],
            [b"content-length: many"], [b"content-length: 99999999999999999999999"], [b"a\0b: c"], [b"a: \0"],
            [b"transfer-encoding: gzip"], [b"transfer-encoding: chunked", b"content-length: 5"],
            [b"connection: " + b"close, " * 500], [b"authorization: " + b"Bearer " * 500],
        )
    )  # fmt: skip
    client.send(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: x\r\n" + b"\r\n".join(lines) + b"\r\n\r\n", wait="end")


def bad_chunks(client: Client, rng: Random) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {client.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = rng.choice(
        (
            b"zz\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffffffffffff\r\n{}", b"-1\r\n{}\r\n", b"2\r\n{}xx0\r\n\r\n",
            b"2;" + b"x" * 5_000 + b"\r\n{}\r\n0\r\n\r\n",
            b"0\r\n" + b"x: y\r\n" * 5_000 + b"\r\n", b"2\r\n{", b"\r\n" * 99,
            b"1\r\n{\r\n" * 3 + b"0\r\n\r\n",
        )
    )  # fmt: skip
    client.send(head.encode(), chunks, wait="end")


def wrong_length(client: Client, rng: Random) -> None:
    """Shorter than what comes: the rest is taken for a request. Longer: the rest never comes."""
    body = json.dumps({"messages": messages("x")}).encode()
    length = len(body) + rng.choice((-30, -3, 1, 1_000, 1 << 40))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {client.key}\r\ncontent-length: {length}\r\n\r\n"
    client.send(head.encode(), body, wait="end")


def pipelined(client: Client, rng: Random) -> None:
    """Several requests at once are answered in turn; garbage behind a valid one costs that one nothing."""
    get = client.request("GET", MODELS, b"")
    count = rng.randint(2, 12)
    if rng.random() < 0.5:
        found = client.send(get * count, answers=count)
        if {answer.status for answer in found} != {200}:
            raise Broken(f"pipelined requests were answered {[answer.status for answer in found]}")
        return
    chat = client.request("POST", CHAT, {"messages": messages("abc")})
    first, _ = client.send(chat + rng.choice((b"\0\0\0\r\n\r\n", b"GET nonsense\r\n\r\n")), answers=2)
    if first.status != 200 or b"cba" not in first.body:
        raise Broken(f"a valid request before garbage was answered {first.status}")


def half_and_gone(client: Client, rng: Random) -> None:
    """A request that its client breaks off, anywhere, or whose answer nobody reads."""
    whole = client.request("POST", rng.choice((CHAT, OLLAMA)), {"messages": messages("x" * rng.choice((1, 5_000)))})
    client.send(whole[: rng.randint(0, len(whole))], wait="leave")


def slowly(client: Client, rng: Random) -> None:
    whole = client.request("POST", CHAT, {"messages": messages("slow")})
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(client.socket))
        for place in range(rng.randint(1, 10)):
            raw.sendall(whole[place * 7 : place * 7 + 7])
            time.sleep(0.002)


def upgrades(client: Client, rng: Random) -> None:
    """What asks for another protocol gets HTTP or nothing."""
    headers = rng.choice(
        (
            ("connection: upgrade", "upgrade: websocket", "sec-websocket-key: x", "sec-websocket-version: 13"),
            ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"),
            ("expect: 100-continue",),
        )
    )
    _refused(client.ask("GET", MODELS, b"", *headers), 200)


def strange_methods_and_paths(client: Client, rng: Random) -> None:
    method = rng.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"))
    path = rng.choice(
        (
            "/v1/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//v1//models", "/v1/models/%00", "/%ff%fe", "*",
            "http://127.0.0.1:11434/api/delete", "127.0.0.1:11434", "/api/pull", "/api/delete", "/api/create",
            "/api/push", "/api/blobs/sha256:0", "/v1/embeddings", "/scripted/reset",
            "/" + "a" * 9_000, "/v1/models?x=" + "y" * 999,
            "/api/show/../chat", "/;/api/chat", "/v1/chat/completions/extra",
        )
    )  # fmt: skip
    _refused(client.ask(method, path, {"messages": messages("x")}), 200, 400, 404)


def head_requests(client: Client, rng: Random) -> None:
    found = client.send(client.request("HEAD", rng.choice((MODELS, "/", "/nothing")), b""), wait="end")
    if any(answer.body for answer in found):
        raise Broken("a HEAD was answered with a body")


def wrong_keys(client: Client, rng: Random) -> None:
    key = rng.choice((client.other_key, "x", client.key[:-1], client.key + "x", "Ünïcödé", "x" * 9_000))
    _refused(client.ask("POST", rng.choice((CHAT, OLLAMA, "/api/show")), {"messages": messages("x")}, key=key), 401)
    _refused(client.ask("POST", CHAT, {"messages": messages("x")}, key=""), 401)


# In what is said.


def not_json(client: Client, rng: Random) -> None:
    deep = rng.choice((70, 900, 990, 5_000, 500_000))
    body = rng.choice(
        (
            b"", b"null", b"[]", b"7", b'"x"', b"{", b'{"messages": NaN}', b'{"a": Infinity}', b'{"a": 1e999}',
            b'{"a": -1e999}', b'{"a": ' + b"9" * 5_000 + b"}", b"[" * deep, b'{"a":' * deep + b"1" + b"}" * deep,
            b'{"messages": ' + b"[" * deep + b"]" * deep + b"}", b'{"a": "\xff\xfe"}', "{}".encode("utf-16"),
            b"\xef\xbb\xbf{}", b'{"a": "\0"}', b'{"a": \0}', rng.randbytes(300), b'{"a": "\xed\xa0\x80"}',
        )
    )  # fmt: skip
    _refused(client.ask("POST", rng.choice((CHAT, OLLAMA, GENERATE)), body), 400, 413)


def odd_json(client: Client, rng: Random) -> None:
    """Strange and valid: answered."""
    surrogate = b'{"messages": [{"role": "user", "content": "cut \\ud83d here \\udc1a"}]}'
    twice = b'{"messages": 5, "messages": [{"role": "user", "content": "x"}], "n": 7, "n": 1}'
    numbers = b'{"messages": [{"role": "user", "content": "x"}], "seed": %s, "top_k": 1e308}' % (b"9" * 4_000)
    nested = b'{"messages": [{"role": "user", "content": "x"}], "a": ' + b"[" * 60 + b"]" * 60 + b"}"
    junk = json.dumps({"messages": messages("x"), "junk": "x" * (1 << 17)}).encode()
    _refused(client.ask("POST", CHAT, rng.choice((surrogate, twice, numbers, nested, junk))), 200)


ODD: Sequence[Any] = (
    None, True, False, 0, -1, 2, 1.5, 10**400, "", "x", "x" * 3_000, [], [[]], [{}], [None], [1], ["x"], {}, {"a": 1},
    {"role": "user"}, [{"role": "user"}], [{"role": 7, "content": "x"}], [{"type": "image_url"}], [{"type": []}],
    [{"function": 5}], [{"function": {"name": "f", "arguments": 5}}], [{"id": {}, "function": {"name": "f"}}],
    [{"function": {"name": "f", "arguments": "{not json"}}], [{"type": "text", "text": {"a": []}}],
    {"type": "json_schema"},
)  # fmt: skip
FIELDS: dict[str, Sequence[str]] = {
    CHAT: (
        "messages", "model", "n", "functions", "function_call", "tools", "tool_choice", "stop", "stream",
        "stream_options", "response_format", "temperature", "max_tokens", "seed", "logprobs", "user",
    ),
    OLLAMA: ("messages", "model", "tools", "options", "format", "stream", "keep_alive", "think"),
    GENERATE: ("prompt", "system", "raw", "template", "suffix", "context", "images", "options", "format", "stream"),
    SHOW: ("model", "name", "verbose"),
}  # fmt: skip
OF_A_MESSAGE = (
    "role", "content", "name", "tool_calls", "tool_call_id", "tool_name", "thinking", "reasoning_content", "images",
    "refusal",
)  # fmt: skip


def wrong_types(client: Client, rng: Random) -> None:
    """Any field of any dialect may be anything: it is refused, or ignored, or passed on and refused by the engine."""
    path = rng.choice(tuple(FIELDS))
    body: dict[str, Any] = {"messages": messages("x"), "prompt": "x"}
    for _ in range(rng.randint(1, 2)):
        if path in (CHAT, OLLAMA) and rng.random() < 0.6 and isinstance(body["messages"], list):
            role = rng.choice(("user", "assistant", "tool", "system", "developer"))
            body["messages"].append({"role": role, "content": "y", rng.choice(OF_A_MESSAGE): rng.choice(ODD)})
        else:
            body[rng.choice(FIELDS[path])] = rng.choice(ODD)
    _refused(client.ask("POST", path, body), 200, 400, 401)


def mutated(client: Client, rng: Random) -> None:
    whole = bytearray(client.request("POST", rng.choice((CHAT, OLLAMA)), {"messages": messages("mutate me")}))
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(whole))
        rng.choice((whole.__delitem__, lambda at: whole.insert(at, rng.randrange(256))))(place)
    client.send(bytes(whole), wait="end")


# Of what there is much of.


def large(client: Client, rng: Random) -> None:
    path = rng.choice((CHAT, OLLAMA))
    values = b'{"messages": [%s{}]}' % (b"[]," * rng.choice((300_000, 5_000_000)))
    body = rng.choice((b" " * (17 << 20), values, b'{"messages": "' + b"x" * (17 << 20) + b'"}'))
    _refused(client.ask("POST", path, body), 413)


def large_and_valid(client: Client, rng: Random) -> None:
    body = {"messages": [*messages("x" * (4 << 20)), {"role": "user", "content": "abc"}]}
    answer = client.ask("POST", CHAT, body)
    if answer.status != 200 or b"cba" not in answer.body:
        raise Broken(f"a request of 4 MB was answered {answer.status}")


def crowd(client: Client, rng: Random) -> None:
    """More connections than a door takes, each with the beginning of a large request that stays unfinished."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {client.key}\r\ncontent-length: {15 << 20}\r\n\r\n"
    )
    with_body = head.encode() + b'{"messages": "' + b"x" * (1 << 18)
    crowded: list[socket.socket] = []
    try:
        for _ in range(300):
            raw = socket.socket(socket.AF_UNIX)
            raw.settimeout(LIMIT_S)
            crowded.append(raw)
            try:
                _connect(raw, client.socket)
                raw.sendall(with_body if len(crowded) <= 40 else head.encode())
            except (BrokenPipeError, ConnectionResetError):
                continue
    finally:
        for raw in crowded:
            raw.close()
    until = time.monotonic() + 2
    while True:  # its place may not be free yet
        try:
            _refused(client.ask("GET", MODELS, b""), 200)
        except Broken:
            if time.monotonic() > until:
                raise
        else:
            return


Attack = Callable[[Client, Random], None]

ATTACKS: Sequence[tuple[Attack, float, int]] = (
    # how often, and how many requests that may count as refused
    (valid, 30, 0), (not_http, 6, 2), (bad_headers, 6, 1), (bad_chunks, 4, 1), (wrong_length, 4, 1), (pipelined, 6, 1),
    (half_and_gone, 6, 1), (slowly, 0.5, 0), (upgrades, 3, 0), (strange_methods_and_paths, 6, 1), (head_requests, 2, 0),
    (wrong_keys, 4, 2), (not_json, 8, 1), (odd_json, 6, 0), (wrong_types, 20, 1), (mutated, 8, 2),
    (large, 0.1, 1), (large_and_valid, 0.1, 0), (crowd, 0.05, 0),
)  # fmt: skip
