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
    calibrated,
    changed,
    claim,
    estimate,
    small_results,
)

LEVEL = 0.05
CONTROLLED = {"model": "small", "estimator": "controlled"}


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


LLC = ("λ̂", "small", "controlled")
LOSS = ("loss at w*", "small", "")
SETTING = ("sampler setting", "f", "small")


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
        sides = [{"estimates": [of_shuffles("m", "controlled", sample)]} for sample in (x, y)]
        (pair,) = reproduction.compare("study", *sides)
        assert pair.apart == pytest.approx(abs(expected.statistic))
        assert pair.p_value == pytest.approx(expected.pvalue)
        outcomes = [Outcome(s.mean(), s.std(ddof=1) / len(s) ** 0.5, len(s) - 1) for s in (x, y)]
        assert reproduction.welch(*outcomes)[1] == pytest.approx(expected.df)


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


def test_a_true_difference_is_found_among_many_that_agree() -> None:
    """A λ̂ of 200 ± 2 for one of 100 ± 2 is found in each of 100 reruns."""
    rng = np.random.default_rng(2)

    def run(means: list[float]) -> Results:
        llc = [mean + rng.normal(0, 2) for mean in means]
        return {"estimates": [estimate(str(i), "plain", 1, x, 2.0) for i, x in enumerate(llc)]}

    for _ in range(100):
        found = judged(run([100.0] * 30), run([100.0] * 29 + [200.0]))
        assert of(found, "differs") == {("λ̂", "29", "plain")}


def test_an_error_of_nothing_leaves_no_room() -> None:
    exact = {"standard_error": 0.0, "interval": (1.0, 1.0)}
    found = judged(*(changed("estimates", CONTROLLED, llc=x, **exact) for x in (1.0, 1.0001)))
    assert of(found, "differs") == {LLC}


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        ("not supported", "supported", "differs"),
        ("inconclusive", "supported", "changed"),
        ("not run", "supported", "not run"),
        ("supported", "supported", "reproduced"),
    ],
)
def test_an_opposite_verdict_differs_and_an_open_one_has_changed(
    a: str, b: str, status: str
) -> None:
    found = judged({"claims": [claim("C1", a)]}, {"claims": [claim("C1", b)]})
    assert found["verdict", "C1", ""].status == status


def test_another_sampler_setting_has_changed_and_is_spelled_out() -> None:
    pair = judged(changed("search", {"chosen": True}, lr=3e-4))[SETTING]
    assert (pair.status, pair.p_value) == ("changed", None)
    assert pair.a == Outcome("sgld, lr 0.0003, localization 500")
    assert pair.b == Outcome("sgld, lr 0.0001, localization 500")


def test_a_loss_at_w_star_is_judged_by_its_own_error() -> None:
    for loss, status in ((1.01, "reproduced"), (1.1, "differs")):
        assert judged(changed("baselines", {"model": "small"}, loss=loss))[LOSS].status == status


def test_what_is_not_finite_or_has_no_error_has_changed() -> None:
    for change in ({"llc": None}, {"llc": 5.1, "standard_error": None, "interval": None}):
        pair = judged(changed("estimates", CONTROLLED, **change))[LLC]
        assert (pair.status, pair.notes) == ("changed", ("without a standard error",))


@pytest.mark.parametrize(
    ("llc", "status"), [(50.0, "reproduced"), (50.2, "reproduced"), (60.0, "differs")]
)
def test_calibration_is_judged_like_an_estimate(llc: float, status: str) -> None:
    found = judged({"calibration": [calibrated(llc)]}, {"calibration": [calibrated(50.0)]})
    assert found["calibration", "linear regression", "λ 50"].status == status


def test_coverage_of_every_interval_has_an_error_and_a_control_that_escapes_differs() -> None:
    row = {"target": "t", "true_llc": 5.0, "repeats": 200, "interval": (0.9, 1.0)}
    control = {"control": "no noise", "target": "t", "expected": 1.0, "llc": 1.0}
    sides = [
        {
            "coverage": [records.Coverage(**row, covered=n, share=n / 200)],
            "controls": [records.NegativeControl(**control, standard_error=0.1, caught=n == 200)],
        }
        for n in (200, 199)
    ]
    found = judged(*sides)
    assert found["coverage", "t", "95 % intervals"].status == "reproduced"
    assert found["negative control", "no noise", "t"].status == "differs"


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
        ("provenance", {"revision": "b"}, None),  # unknown on the other side
        ("provenance", {"seed": 2}, "seeds 2 and 1"),
        ("provenance", {"device": "arm"}, "on arm and x86"),
        ("provenance", {"code": "d"}, "other code"),
        (
            "provenance",
            {"parameters": {"sampling": "u", "transfer": "t"}},
            "other parameters: sampling",
        ),
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


def test_what_one_side_lacks_was_not_run_and_does_not_differ() -> None:
    without = small_results() | {"estimates": []}
    for sides in ((without, small_results()), (small_results(), without)):
        found = judged(*sides)
        assert {key[0] for key in of(found, "not run")} == {"λ̂"}
        assert not of(found, "differs")


def test_a_model_that_is_asked_for_and_that_neither_side_has_was_not_run() -> None:
    planned = ("small", "larger")
    found = reproduction.compare("study", small_results(), small_results(), planned)
    lacking = [(pair.kind, pair.name) for pair in found if pair.status == "not run"]
    assert lacking == [("λ̂", "larger")]
