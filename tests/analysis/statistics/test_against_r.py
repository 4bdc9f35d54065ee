"""The tests of scipy, statsmodels and scikit-posthocs as they are called here, against R 4.2.2 on its own data sets.

Each figure is followed by the R call that gave it.
"""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.statistics.comparisons import cliffs_delta, compare, normality, smallest_ratio
from harness.analysis.statistics.estimates import Values
from harness.analysis.statistics.factors import importance, pearson, spearman
from harness.analysis.statistics.success import compare_rates

# The 22 players of ?friedman.test (Hollander and Wolfe 1973), three ways of rounding first base.
ROUNDING = np.array(
    [5.40, 5.50, 5.55, 5.85, 5.70, 5.75, 5.20, 5.60, 5.50, 5.55, 5.50, 5.40, 5.90, 5.85, 5.70, 5.45, 5.55, 5.60, 5.40,
     5.40, 5.35, 5.45, 5.50, 5.35, 5.25, 5.15, 5.00, 5.85, 5.80, 5.70, 5.25, 5.20, 5.10, 5.65, 5.55, 5.45, 5.60, 5.35,
     5.45, 5.05, 5.00, 4.95, 5.50, 5.50, 5.40, 5.45, 5.55, 5.50, 5.55, 5.55, 5.35, 5.45, 5.50, 5.55, 5.50, 5.45, 5.25,
     5.65, 5.60, 5.40, 5.70, 5.65, 5.55, 6.30, 6.30, 6.25]
).reshape(22, 3)  # fmt: skip

# warpbreaks, in its order: wool A then B, each with tension L, M, H, nine looms each.
BREAKS = [26, 30, 54, 25, 70, 52, 51, 26, 67, 18, 21, 29, 17, 12, 18, 35, 30, 36, 36, 21, 24, 18, 10, 43, 28, 15, 26,
          27, 14, 29, 19, 29, 31, 41, 20, 44, 42, 26, 19, 16, 39, 28, 21, 39, 29, 20, 21, 24, 17, 13, 15, 15, 16,
          28]  # fmt: skip

MPG = [21.0, 21.0, 22.8, 21.4, 18.7, 18.1, 14.3, 24.4, 22.8, 19.2, 17.8, 16.4, 17.3, 15.2, 10.4, 10.4, 14.7, 32.4, 30.4,
       33.9, 21.5, 15.5, 15.2, 13.3, 19.2, 27.3, 26.0, 30.4, 15.8, 19.7, 15.0, 21.4]  # fmt: skip
WT = [2.620, 2.875, 2.320, 3.215, 3.440, 3.460, 3.570, 3.190, 3.150, 3.440, 3.440, 4.070, 3.730, 3.780, 5.250, 5.424,
      5.345, 2.200, 1.615, 1.835, 2.465, 3.520, 3.435, 3.840, 3.845, 1.935, 2.140, 1.513, 3.170, 2.770, 3.570,
      2.780]  # fmt: skip


def by_task(values: object) -> Values:
    return {f"t{number:03d}": [float(value)] for number, value in enumerate(np.asarray(values))}


def test_friedman_and_signed_ranks_with_holm() -> None:
    cells = {name: by_task(ROUNDING[:, number]) for number, name in enumerate(("round", "narrow", "wide"))}
    found = compare(cells)
    assert found.tasks == 22
    assert found.overall is not None
    # friedman.test(RoundingTimes)
    assert found.overall.statistic == pytest.approx(11.14285714)
    assert found.overall.p == pytest.approx(0.00380504078)
    pairs = {(pair.one, pair.other): pair for pair in found.pairs}
    # wilcox.test(x, y, paired=TRUE, exact=FALSE, correct=FALSE)$p.value, then p.adjust(p, "holm")
    for names, p, adjusted in (
        (("narrow", "round"), 0.35494830497221, 0.35494830497221),
        (("round", "wide"), 0.01398528423393, 0.02797056846786),
        (("narrow", "wide"), 0.00182481816548, 0.00547445449644),
    ):
        assert pairs[names].test.p == pytest.approx(p)
        assert pairs[names].p_adjusted == pytest.approx(adjusted)


def test_the_exact_test_of_signed_ranks() -> None:
    # wilcox.test(x, y, paired=TRUE): the depression data of ?wilcox.test, V = 40
    before = by_task([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = by_task([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    [pair] = compare({"before": before, "after": after}).pairs
    assert pair.test.p == pytest.approx(0.0390625)
    assert pair.test.p == pair.p_adjusted


def test_kruskal_and_shapiro() -> None:
    tension = {level: by_task(BREAKS[9 * at : 9 * at + 9] + BREAKS[27 + 9 * at : 36 + 9 * at])
               for at, level in enumerate("LMH")}  # fmt: skip
    found = compare(tension, "unblocked")
    assert found.overall is not None
    # kruskal.test(breaks ~ tension, data = warpbreaks)
    assert found.overall.statistic == pytest.approx(10.8092652706172)
    assert found.overall.p == pytest.approx(0.00449570566138)
    told = normality(by_task(BREAKS))
    # shapiro.test(warpbreaks$breaks)
    assert told.statistic == pytest.approx(0.892510841036469)
    assert told.p == pytest.approx(0.000158076538298, rel=1e-3)
    # r <- rank(breaks); v <- n*(n+1)/12 - sum(t^3-t)/(12*(n-1)), t the sizes of ties;
    # 2*pnorm(-abs(difference of mean ranks / sqrt(v*(2/18))))
    dunn = {("L", "M"): 0.0907680484009, ("L", "H"): 0.00101159137227, ("M", "H"): 0.110506019092}
    for (one, other), p in dunn.items():
        pair = next(pair for pair in found.pairs if {pair.one, pair.other} == {one, other})
        assert pair.test.p == pytest.approx(p)


def test_mcnemar_is_the_binomial_test_of_what_differs() -> None:
    # binom.test(86, 236)$p.value, of the approval ratings of ?mcnemar.test
    both = {f"c{n}": [True] for n in range(99)}
    one = both | {f"a{n}": [False] for n in range(86)} | {f"b{n}": [True] for n in range(150)}
    other = both | {f"a{n}": [True] for n in range(86)} | {f"b{n}": [False] for n in range(150)}
    found = compare_rates(one, other)
    assert found.test.p == pytest.approx(3.71593614e-05)
    assert found.value.value == pytest.approx(64 / 335)


def test_shares_of_variance() -> None:
    wool = ["A"] * 27 + ["B"] * 27
    tension = [level for _ in range(2) for level in "LMH" for _ in range(9)]
    found = importance(BREAKS, {"wool": wool, "tension": tension})
    # a <- anova(lm(log(breaks) ~ wool * tension, data = warpbreaks)); a[["Sum Sq"]] / sum(a[["Sum Sq"]])
    assert found.shares == pytest.approx(
        {
            "wool": 0.0308960111702,
            "tension": 0.2151280263142,
            "wool × tension": 0.0902705910357,
            "rest": 0.6637053714799,
        }
    )


def test_correlations() -> None:
    pairs = {f"t{n}": [(mpg, wt)] for n, (mpg, wt) in enumerate(zip(MPG, WT, strict=True))}
    found = pearson(pairs)
    # cor.test(mtcars$mpg, mtcars$wt), and with method = "spearman"
    assert found.value == pytest.approx(-0.867659376517)
    assert spearman(pairs).value == pytest.approx(-0.88642203327)
    assert found.low is not None
    assert found.high is not None
    # Its interval is -0.934 to -0.744, by another method.
    assert found.low == pytest.approx(-0.934, abs=0.04)
    assert found.high == pytest.approx(-0.744, abs=0.08)


def test_the_smallest_ratio() -> None:
    # power.t.test(n = 20, sd = 1, power = 0.8, type = "paired")$delta
    spread = np.resize([1.0, -1.0], 20) * np.sqrt(19 / 20)
    found = smallest_ratio(by_task(np.exp(spread)), by_task(np.ones(20)))
    assert np.log(found.value or 0) == pytest.approx(0.66044090857, rel=1e-5)


def test_cliffs_delta_by_hand() -> None:
    found = cliffs_delta(by_task([1, 2, 3, 4, 5]), by_task([3, 3, 3, 3, 3]), paired=False)
    assert found.value == 0
    found = cliffs_delta(by_task([2, 3, 4, 5, 6]), by_task([1, 2, 3, 4, 5]), paired=True)
    assert found.value == pytest.approx((15 - 6) / 25)
