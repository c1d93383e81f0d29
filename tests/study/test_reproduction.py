"""Two sets of results are told apart by the errors of each number, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from replicate.study import records, reproduction
from replicate.study.reproduction import Comparison, Outcome
from tests.study.small_results import (
    Results,
    baseline,
    calibrated,
    changed,
    claim,
    estimate,
    make,
    small_results,
)

LEVEL = 0.05
CONTROLLED = {"model": "small", "estimator": "controlled"}
LLC = ("λ̂", "small", "controlled")
LOSS = ("loss at w*", "small", "")


def moved(errors: float) -> Results:
    """One λ̂ is moved by so many of its standard errors, its interval with it."""
    row = small_results()["estimates"][0]
    by = errors * row.standard_error
    interval = tuple(end + by for end in row.interval)
    return changed("estimates", CONTROLLED, llc=row.llc + by, interval=interval)


def judged(a: Results, b: Results | None = None) -> dict[tuple[str, str, str], Comparison]:
    pairs = reproduction.compare("study", a, small_results() if b is None else b)
    return {(x.kind, x.name, x.part): x for x in reproduction.judge(pairs, LEVEL)}


def of(found: dict[tuple[str, str, str], Comparison], status: str) -> set[tuple[str, str, str]]:
    return {key for key, pair in found.items() if pair.status == status}


def test_the_same_results_are_identical() -> None:
    found = judged(small_results())
    assert len(found) == 4 + 2 + 1 + 2
    assert all(pair.identical and pair.status == "reproduced" for pair in found.values())


def test_one_standard_error_is_a_reproduction_and_not_identical() -> None:
    pair = judged(moved(1))[LLC]
    assert (pair.status, pair.identical) == ("reproduced", False)
    assert pair.apart == pytest.approx(1 / np.sqrt(2))


def test_fifteen_standard_errors_differ_and_nothing_else_does() -> None:
    found = judged(moved(15))
    assert of(found, "differs") == {LLC}
    said = reproduction.answer(list(found.values()), "mine", "theirs")
    assert said == ("mine against theirs: 8 identical, 1 differs. What differs: λ̂ of small.")


def test_how_far_apart_is_judged_as_scipy_judges_the_shuffles_themselves() -> None:
    """Welch's test needs only the standard errors and intervals that are published."""
    rng = np.random.default_rng(0)
    for sizes in ((4, 4), (4, 7), (2, 9)):
        x, y = (rng.normal(0, scale, n) for n, scale in zip(sizes, (1.0, 3.0), strict=True))
        expected: Any = stats.ttest_ind(x, y, equal_var=False)
        results = [{"estimates": [of_shuffles("m", "controlled", sample)]} for sample in (x, y)]
        (pair,) = reproduction.compare("study", *results)
        assert pair.apart == pytest.approx(abs(expected.statistic))
        assert pair.p_value == pytest.approx(expected.pvalue)


def of_shuffles(model: str, estimator: str, llc_S: np.ndarray) -> records.Estimate:
    error, llc = float(llc_S.std(ddof=1) / np.sqrt(len(llc_S))), float(llc_S.mean())
    half = float(stats.t.ppf(0.975, len(llc_S) - 1)) * error
    row = estimate(model, estimator, 1, llc, error)
    return row.model_copy(update={"interval": (llc - half, llc + half)})


@pytest.mark.parametrize("widened", [1.0, 2.0], ids=["same spread", "twice the spread"])
def test_an_honest_rerun_is_rarely_said_to_differ(widened: float) -> None:
    """At most a share `level` of reruns alarm: 6 models of 4 shuffles, and 5 estimators that share
    most of their noise.
    """
    rng, reruns, alarms = np.random.default_rng(1), 1000, 0

    def run(scale: float) -> Results:
        rows = []
        for model in range(6):
            shared_S = rng.normal(0, scale, 4)
            for estimator in range(5):
                llc_S = 100 * (model + 1) + shared_S + rng.normal(0, 0.3 * scale, 4)
                rows.append(of_shuffles(str(model), str(estimator), llc_S))
        return {"estimates": rows}

    for _ in range(reruns):
        found = judged(run(1.0), run(widened))
        assert sum(pair.p_value is not None for pair in found.values()) == 30
        alarms += bool(of(found, "differs"))
    assert stats.binomtest(alarms, reruns, LEVEL, alternative="greater").pvalue > 0.001, alarms


def test_an_error_of_nothing_leaves_no_room() -> None:
    exact = {"standard_error": 0.0, "interval": (1.0, 1.0)}
    found = judged(*(changed("estimates", CONTROLLED, llc=x, **exact) for x in (1.0, 1.0001)))
    assert of(found, "differs") == {LLC}


def loss(value: float) -> records.Baseline:
    return baseline("m", 1).model_copy(update={"loss": value})


def coverage(covered: int) -> records.Coverage:
    return make(records.Coverage, repeats=200, covered=covered, share=covered / 200)


def control(caught: bool) -> records.NegativeControl:
    return make(records.NegativeControl, caught=caught)


@pytest.mark.parametrize(
    ("file", "a", "b", "status"),
    [
        ("claims", claim("C1", "not supported"), claim("C1", "supported"), "differs"),
        ("claims", claim("C1", "inconclusive"), claim("C1", "supported"), "changed"),
        ("claims", claim("C1", "not run"), claim("C1", "supported"), "not run"),
        ("claims", claim("C1", "supported"), claim("C1", "supported"), "reproduced"),
        ("baselines", loss(1.01), loss(1.0), "reproduced"),
        ("baselines", loss(1.1), loss(1.0), "differs"),
        ("calibration", calibrated(50.0), calibrated(50.0), "reproduced"),
        ("calibration", calibrated(50.2), calibrated(50.0), "reproduced"),
        ("calibration", calibrated(60.0), calibrated(50.0), "differs"),
        ("coverage", coverage(200), coverage(199), "reproduced"),
        ("controls", control(True), control(False), "differs"),
    ],
)
def test_each_result_is_judged_by_its_own_error(
    file: str, a: records.Record, b: records.Record, status: str
) -> None:
    (pair,) = judged({file: [a]}, {file: [b]}).values()
    assert pair.status == status


def test_another_sampler_setting_has_changed_and_is_spelled_out() -> None:
    pair = judged(changed("search", {"chosen": True}, lr=3e-4))["sampler setting", "f", "small"]
    assert (pair.status, pair.p_value) == ("changed", None)
    assert pair.a == Outcome("sgld, lr 0.0003, localization 500")
    assert pair.b == Outcome("sgld, lr 0.0001, localization 500")


def test_what_is_not_finite_or_has_no_error_has_changed() -> None:
    for change in ({"llc": None}, {"llc": 5.1, "standard_error": None, "interval": None}):
        pair = judged(changed("estimates", CONTROLLED, **change))[LLC]
        assert (pair.status, pair.notes) == ("changed", ("without a standard error",))


# What is comparable


@pytest.mark.parametrize(
    ("file", "change", "reason", "loss_too"),
    [
        ("estimates", {"nbeta": 100.0}, "nβ 100 and 30", False),
        ("estimates", {"sampled_parameters": 5}, "other parameters are sampled", False),
        ("baselines", {"sampled": {"norm": 1_000}}, "other parameters are sampled", False),
        ("baselines", {"parameters": 2_000}, "models of 2,000 and 1,000 parameters", True),
        ("baselines", {"windows": "other"}, "another text", True),
    ],
)
def test_numbers_of_different_quantities_are_not_comparable_even_if_they_are_equal(
    file: str, change: dict[str, Any], reason: str, loss_too: bool
) -> None:
    found = judged(changed(file, {"model": "small"}, **change))
    pair = found[LLC]
    assert (pair.status, pair.identical, pair.apart) == ("not comparable", False, None)
    assert pair.notes == (reason,)
    assert (found[LOSS].status == "not comparable") == loss_too
    assert found["λ̂", "large", "controlled"].status == "reproduced"


@pytest.mark.parametrize(
    ("file", "change", "note"),
    [
        ("provenance", {"weights": {"model.safetensors": "v"}}, "at another w*"),
        ("provenance", {"revision": "b"}, None),  # unknown in the other set
        ("provenance", {"seed": 2}, "seeds 2 and 1"),
        ("provenance", {"device": "arm"}, "on arm and x86"),
        ("provenance", {"code": "d"}, "other code"),
        ("provenance", {"parameters": {"sampling": "u"}}, "other parameters: sampling"),
        ("provenance", {"parameters": {"sampling": "s", "transfer": "u"}}, None),
        ("estimates", {"localization": 300.0}, "γ 300 and 500"),
        ("estimates", {"weights": "nf4"}, "weights in nf4 and float32"),
    ],
)
def test_what_else_is_not_the_same_is_noted_and_decides_nothing(
    file: str, change: dict[str, Any], note: str | None
) -> None:
    other = changed(file, {"model": "small"}, **change)
    assert of(judged(other), "reproduced") == set(judged(other))
    other["estimates"] = [
        row.model_copy(update={"llc": row.llc + 0.1}) for row in other["estimates"]
    ]
    assert judged(other)[LLC].notes == (() if note is None else (note,))


# What was not run


def test_what_one_set_lacks_was_not_run_and_does_not_differ() -> None:
    without = small_results() | {"estimates": []}
    for a, b in ((without, small_results()), (small_results(), without)):
        found = judged(a, b)
        assert {key[0] for key in of(found, "not run")} == {"λ̂"}
        assert not of(found, "differs")


def test_a_planned_model_that_neither_set_has_was_not_run() -> None:
    planned = ("small", "larger")
    found = reproduction.compare("study", small_results(), small_results(), planned)
    lacking = [(pair.kind, pair.name) for pair in found if pair.status == "not run"]
    assert lacking == [("λ̂", "larger")]
