"""The main job with real small models: the embedded llama.cpp and a running Ollama."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.network]

WORDS = ["--agents", "mini-swe-agent,oracle,nop", "--tasks", "smoke", "--limit", "1", "--max-calls", "4"]


def check_the_record(harness) -> None:
    rows = {row["agent"]: row for row in harness.rows("SELECT * FROM runs_summary JOIN runs USING (run_id)")}
    assert set(rows) == {"mini-swe-agent", "oracle", "nop"}
    assert rows["oracle"]["outcome"] == "resolved"
    assert rows["nop"]["outcome"] == "no_patch"
    run = rows["mini-swe-agent"]
    assert run["outcome"] != "invalid"
    calls = harness.rows("SELECT * FROM calls WHERE run_id = ? AND sent ORDER BY call_index", run["run_id"])
    assert 1 <= len(calls) == run["calls"] <= 4
    assert run["model_digest"].startswith("sha256:")
    assert run["engine_version"]
    assert run["engine_peak_bytes"] > 100e6
    assert run["num_ctx"] == 8192  # the model's own, smaller than the default
    for call in calls:
        assert 0 < call["output_tokens"] <= 128
        assert call["input_tokens"] > 500
        assert call["prefill_s"] > 0
        assert call["decode_s"] > 0
        # The engine's own timings fit into the call's, give or take a rounding.
        assert call["prefill_s"] + call["decode_s"] <= call["duration_s"] + 0.1
    assert not calls[0]["cached_tokens"]
    # The history only grows: reading it anew costs more than the first prompt.
    assert calls[-1]["input_tokens"] >= calls[0]["input_tokens"]


@pytest.mark.model
def test_the_embedded_engine(harness) -> None:
    done = harness("sweep", *WORDS, "--models", "llamacpp/smollm2:135m", "--num-predict", "128")
    assert done.code == 0, done.err
    for line in ("database ", "artefacts ", "summary ", "next "):
        assert line in done.out
    check_the_record(harness)


@pytest.mark.ollama
def test_ollama(harness) -> None:
    done = harness("sweep", *WORDS, "--models", "smollm2:135m", "--num-predict", "128")
    assert done.code == 0, done.err
    check_the_record(harness)
