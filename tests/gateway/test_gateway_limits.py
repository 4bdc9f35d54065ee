from __future__ import annotations

import threading
import time

import httpx
import pytest

from harness.gateway.limits import REFUSALS, Limits
from harness.gateway.policy import Policy

HELLO = 'when_exhausted = "repeat"\n[[answers]]\ntext = "one two three four"\n'


def policy(max_calls: int | None = None, max_tokens: int | None = None) -> Policy:
    return Policy("m", 4096, 64, 0.0, None, 1, False, "text", max_calls, max_tokens, 30.0)


def test_the_call_that_reaches_the_limit_is_answered_and_the_next_one_stops_the_run(open_run):
    run = open_run(HELLO, max_calls=2)
    assert [run.chat().status_code for _ in range(2)] == [200, 200]
    assert not run.door.stopped.is_set()
    response = run.chat()
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "budget_calls"
    assert "limit of 2 calls" in response.json()["error"]["message"]
    assert run.door.stopped.is_set()
    assert run.door.stop_reason == "budget_calls"
    for _ in range(30):  # a framework's retry loop
        assert run.chat().status_code == 403
    assert [record.status for record in run.close()] == ["ok", "ok", "limit"]
    assert len(run.upstream()) == 2


def test_tokens_of_input_and_output_count(open_run):
    run = open_run(HELLO, max_tokens=20)  # 6 in and 4 out a call
    assert [run.chat().status_code for _ in range(3)] == [200, 200, 403]
    assert run.door.stop_reason == "budget_tokens"
    assert "(20 were used)" in run.door.stop_detail


def test_errors_of_limits_in_ollamas_shape(open_run):
    run = open_run(HELLO, max_calls=0)
    response = run.client.post("/api/chat", json={"messages": [{"role": "user", "content": "x"}]})
    assert response.status_code == 403
    assert response.json() == {"error": "the run is over: the limit of 0 calls was reached"}


def test_context_overflow_twice_in_a_row(open_run):
    run = open_run(HELLO, num_ctx=5)  # the messages have 6 words
    response = run.chat()
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert "maximum context length is 5 tokens" in response.json()["error"]["message"]
    assert not run.door.stopped.is_set()
    assert run.chat().status_code == 400
    assert run.door.stop_reason == "context_overflow"
    assert run.chat().status_code == 403
    records = run.close()
    assert [(record.status, record.truncated) for record in records] == [("context_overflow", True)] * 2


def test_a_good_call_between_two_overflows_resets_the_count(open_run):
    overflow = '[[answers]]\nfault = "context_overflow"\n'
    run = open_run(overflow + '[[answers]]\ntext = "x"\n' + overflow)
    assert [run.chat().status_code for _ in range(3)] == [400, 200, 400]
    assert not run.door.stopped.is_set()


@pytest.mark.parametrize("fault", ["http_500", "http_503", "http_429", "refuse", "reset", "cut", "invalid_json"])
def test_three_engine_failures_in_a_row_end_the_run(open_run, fault):
    run = open_run(f'when_exhausted = "repeat"\n[[answers]]\ntext = "a b c d"\nfault = "{fault}"\nchunk_words = 1')
    assert run.chat().status_code == 403  # what can heal was tried again already, and what has ended may not be
    assert run.chat().status_code == 403
    assert run.door.stop_reason == "model_error"
    records = run.close()
    assert [record.status for record in records] == ["engine_error"] * 3
    assert [record.http_status for record in records] == [None, None, 403]
    assert all(record.error for record in records)
    assert len(run.upstream()) == 3


@pytest.mark.parametrize("fault", ["reset", "cut", "invalid_json"])
def test_a_failure_in_the_middle_of_a_stream_reaches_the_client(open_run, fault):
    toml = f'when_exhausted = "repeat"\n[[answers]]\ntext = "a b c d"\nfault = "{fault}"\nchunk_words = 1'
    run = open_run(toml)
    response = run.chat(stream=True)
    assert response.status_code == 200
    assert '"content":"a"' in response.text
    assert "engine_failed" in response.text
    assert "[DONE]" not in response.text
    answers = run.client.post("/api/chat", json={"messages": [{"role": "user", "content": "x"}]}).text
    assert '"error"' in answers.splitlines()[-1]
    assert [record.http_status for record in run.close()] == [200, 200]


def test_a_request_that_the_engine_refuses_twice_ends_the_run(open_run):
    run = open_run('when_exhausted = "repeat"\n[[answers]]\nfault = "http_400"\n')
    assert [run.chat().status_code for _ in range(3)] == [400, 400, 403]
    assert run.door.stop_reason == "crashed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["hang", "endless"])
def test_a_call_has_a_time_limit(open_run, fault, stream):
    run = open_run(f'[[answers]]\ntext = "again "\nfault = "{fault}"', call_timeout_s=0.3)
    began = time.monotonic()
    response = run.chat(stream=stream)
    assert time.monotonic() - began < 5
    assert "not complete after 0.3 s" in response.text
    run.engine.settle(1.0)
    [record] = run.close()
    assert record.status == "timeout"
    assert record.duration_s >= 0.3


def test_a_storm_of_refused_requests_ends_the_run(open_run):
    run = open_run(HELLO)
    for _ in range(REFUSALS):
        assert run.chat(n=2).status_code == 400
    assert not run.door.stopped.is_set()
    run.chat(n=2)
    assert run.door.stop_reason == "crashed"
    assert run.chat().status_code == 403
    assert len(run.close()) == REFUSALS + 1


def test_the_first_reason_stays(open_run):
    run = open_run(HELLO)
    run.door.stop("timeout", "30 s were over")
    run.door.stop("cancelled", "Ctrl-C")
    assert (run.door.stop_reason, run.door.stop_detail) == ("timeout", "30 s were over")
    assert "30 s were over" in run.chat().json()["error"]["message"]
    assert run.close() == []


def test_an_engine_failure_is_not_charged_and_an_aborted_call_is():
    limits = Limits(policy(max_calls=1))
    assert limits.after("engine_error", 0, "x") is None
    assert limits.before() is None
    assert limits.after("aborted", 0, "x") is None
    stop = limits.before()
    assert stop is not None
    assert stop.reason == "budget_calls"


def test_failures_count_in_a_row_only():
    limits = Limits(policy())
    mixed = ("bad_request", "ok", "bad_request", "engine_error", "timeout", "ok", "engine_error", "engine_error")
    for status in mixed:
        assert limits.after(status, 0, "x") is None
    stop = limits.after("timeout", 0, "the last straw")
    assert stop is not None
    assert stop.reason == "model_error"
    assert "the last straw" in stop.detail


HEALS = '[[answers]]\nfault = "refuse"\n[[answers]]\ntext = "one"\n[[answers]]\ntext = "two"\n'


def test_a_further_try_is_a_call_of_its_own_with_the_same_seed_that_nobody_was_told_of(open_run):
    run, plain = open_run(HEALS), open_run(HELLO)
    assert [run.chat().json()["choices"][0]["message"]["content"] for _ in range(2)] == ["one", "two"]
    plain.chat()
    plain.chat()
    records = run.close()
    assert [(r.index, r.status, r.http_status) for r in records] == [
        (0, "engine_error", None), (1, "ok", 200), (2, "ok", 200)
    ]  # fmt: skip
    assert [r.seed for r in records[1:]] == [r.seed for r in plain.close()]  # a hiccup shifts no seed
    assert records[0].seed == records[1].seed
    assert all(r.queued_s < 0.1 for r in records)
    assert len(run.lines("calls.jsonl")) == 3


@pytest.mark.parametrize("who", ["client", "run"])
def test_whoever_leaves_during_the_pause_is_not_kept_and_makes_no_call(open_run, monkeypatch, who):
    monkeypatch.setattr("harness.gateway.limits.ENGINE_PAUSES_S", (30.0, 30.0))
    run = open_run('when_exhausted = "repeat"\n[[answers]]\nfault = "refuse"\n')
    began = time.monotonic()
    if who == "client":
        with pytest.raises(httpx.ReadTimeout):
            run.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}, timeout=0.5)
        time.sleep(0.2)
    else:
        threading.Timer(0.3, run.door.stop, ("timeout", "it was time")).start()
        assert run.chat().status_code == 403
    records = run.close()
    assert time.monotonic() - began < 5
    assert [(r.status, r.http_status) for r in records] == [("engine_error", None)]


def test_a_stream_that_has_begun_is_not_tried_again(open_run):
    run = open_run('[[answers]]\ntext = "a b c d"\nfault = "cut"\nchunk_words = 1\n[[answers]]\ntext = "whole"\n')
    assert "engine_failed" in run.chat(stream=True).text
    assert [r.status for r in run.close()] == ["engine_error"]
