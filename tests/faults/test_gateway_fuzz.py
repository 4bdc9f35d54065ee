from __future__ import annotations

from gateway_fuzz import fuzz, leaks


def test_a_gateway_under_attack_goes_on_answers_right_records_and_leaks_nothing(thorough: bool) -> None:
    done = fuzz(100_000 if thorough else 2_500, seed=1)
    assert leaks(done) == []
    assert done.statuses[200] > done.requests / 3
    assert min(done.statuses[status] for status in (400, 401, 404, 413)) > 0
    assert max(done.statuses) < 500
    assert done.peak_bytes < 256 << 20  # with bodies of 16 MB, and of values that would take thirty times their bytes
