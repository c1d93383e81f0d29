"""Verdicts are right as often as promised on data whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from replicate.study.claims.evidence import Evidence
from replicate.study.published import ORIGINAL
from replicate.study.records import Quantised
from tests.study import known_truth as known
from tests.study.known_truth import (
    DOUBLINGS,
    RULES,
    STILL,
    WRONG,
    Draw,
    both,
    family,
    formats,
    judged,
    tally,
    verdict,
)

CONCAVE = 300 * DOUBLINGS - 40 * DOUBLINGS**2


@pytest.mark.parametrize(
    ("claim", "draw"),
    [
        *(
            (claim, known.shuffles(np.full(4, 50.0), S))
            for claim in ("C1", "C2", "C9")
            for S in (3, 4, 8)
        ),
        ("C2", known.shuffles(300 * DOUBLINGS)),
        ("C3", known.grids(0.0)),
        ("C4", known.importances(0.5, 0.5)),
        ("C5", known.blocks(0.0)),
        *(("C7", known.varying(RULES.stable, S)) for S in (4, 8, 16)),
        ("C11", known.power_law(1.0, 0.3)),
    ],
)
def test_where_there_is_no_effect_wrong_verdicts_keep_to_the_level(claim: str, draw: Draw) -> None:
    found = tally(claim, draw)
    assert found["supported"] <= WRONG
    assert found["not supported"] <= WRONG


@pytest.mark.parametrize(
    ("claim", "draw"),
    [
        ("A1", known.falling(RULES.descent)),
        ("C6", known.clipped(RULES.negligible, 0.01)),
        ("C8", known.transfers(RULES.negligible, 0.02)),
    ],
)
def test_an_effect_at_the_margin_is_seldom_called_negligible(claim: str, draw: Draw) -> None:
    assert tally(claim, draw)["supported"] <= WRONG


@pytest.mark.parametrize(
    ("claim", "draw", "expected"),
    [
        ("A1", known.falling(0.0), "supported"),
        ("A1", known.falling(0.05), "not supported"),
        ("A1", known.falling(0.0, level=-50.0), "not supported"),
        ("A1", known.falling(0.0, error=0.1), "inconclusive"),
        ("C1", known.shuffles(20 * DOUBLINGS), "supported"),
        ("C1", known.shuffles(-20 * DOUBLINGS), "not supported"),
        ("C2", known.shuffles(CONCAVE), "supported"),
        ("C2", known.shuffles(-CONCAVE), "not supported"),
        ("C3", known.grids(3.0), "supported"),
        ("C3", known.grids(-3.0), "not supported"),
        ("C4", known.importances(0.9, 0.1), "supported"),
        ("C4", known.importances(0.1, 0.9), "not supported"),
        ("C5", known.blocks(-5.0), "supported"),
        ("C5", known.blocks(5.0), "not supported"),
        ("C6", known.clipped(0.0, 0.01), "supported"),
        ("C6", known.clipped(-0.3, 0.02), "not supported"),
        ("C6", known.clipped(0.0, 0.5), "inconclusive"),
        *(("C7", known.varying(0.02, S), "supported") for S in (4, 8, 16)),
        ("C7", known.varying(1.5), "not supported"),
        ("C8", known.transfers(0.0, 0.02), "supported"),
        ("C8", known.transfers(0.4, 0.02), "not supported"),
        ("C8", known.transfers(0.0, 0.5), "inconclusive"),
        ("C9", known.shuffles([0, 50]), "supported"),
        ("C9", known.shuffles([50, 0]), "not supported"),
        ("C11", known.power_law(3.0, 0.05), "not supported"),
        ("C11", known.power_law(1.0, 0.005), "supported"),
    ],
)
def test_a_clear_effect_is_found(claim: str, draw: Draw, expected: str) -> None:
    assert tally(claim, draw, 100)[expected] >= 95


INSIDE = (0.001, 0.0005)  # a rise of the loss within the margin, with its error


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([], "not run", id="nothing"),
        pytest.param(formats(*INSIDE, STILL), "not supported", id="within the margins"),
        pytest.param(formats(0.1, 0.001, STILL), "supported", id="the loss rises"),
        pytest.param(formats(0.011, 0.001, STILL), "inconclusive", id="the rise is open"),
        pytest.param(formats(*INSIDE, [0.5, 0.55, 0.45]), "supported", id="λ̂ moves"),
        pytest.param(formats(*INSIDE, [-0.3, 0.3, 0.1]), "inconclusive", id="λ̂ is open"),
        pytest.param(formats(*INSIDE, [0.01, None, 0]), "inconclusive", id="a shuffle diverged"),
        pytest.param(formats(*INSIDE, [0.01]), "inconclusive", id="one shuffle"),
        pytest.param(formats(9.0, 0.001, STILL, "int8"), "not run", id="int8 decides nothing"),
        pytest.param(
            formats(9.0, 0.001, STILL, moved="full"), "not run", id="moving all decides nothing"
        ),
        pytest.param(
            [*formats(*INSIDE, STILL), *formats(0.1, 0.001, STILL)], "supported", id="one of two"
        ),
    ],
)
def test_quantisation_moves_a_model_where_its_loss_rises_or_its_llc_changes(
    rows: list[Quantised], expected: str
) -> None:
    assert verdict("C10", Evidence(quantisation=rows)) == expected


@pytest.mark.parametrize("unhealthy", [{"rhat": 1.2}, {"drift_p": 0.001}, {"diverged_chains": 1}])
def test_a_setting_whose_chains_are_not_healthy_does_not_carry_over(
    unhealthy: dict[str, Any],
) -> None:
    evidence = known.transfers(0.0, 0.01, **unhealthy)(np.random.default_rng(0))
    assert verdict("C8", evidence) == "not supported"


def test_one_model_that_fails_a_claim_about_every_model_decides_it() -> None:
    fine, bad = (
        known.transfers(change, 0.01)(np.random.default_rng(0)).transfer for change in (0.0, 0.5)
    )
    other = [row.model_copy(update={"model": "n"}) for row in bad]
    assert verdict("C8", Evidence(transfer=[*fine, *other])) == "not supported"


def test_a_diverged_setting_is_the_least_stable() -> None:
    fine, diverged = np.arange(1.0, 21.0), np.full(20, np.nan)
    assert verdict("C3", known.search(fine, diverged)) == "supported"
    assert verdict("C3", known.search(diverged, fine)) == "not supported"
    assert verdict("C3", known.search(-fine, diverged)) == "inconclusive"


def test_one_llc_at_or_below_zero_leaves_a_minimum_open() -> None:
    values = np.array([[5.0, 6.0], [4.0, -1.0], [5.0, 6.0]])
    at = known.baselines(0.0, 0.0, error=0.001)
    assert verdict("A1", Evidence(full=family(values), baselines=at)) == "inconclusive"


def test_the_same_data_is_taken_from_who_says_so() -> None:
    here = {"mini": "Trained here."}
    assert verdict("A2", Evidence(provenance=here)) == "supported"
    assert verdict("A2", Evidence(provenance=here | {"other": None})) == "inconclusive"


def test_the_verdict_on_stability_is_that_of_the_write_ups_estimator() -> None:
    noise = np.random.default_rng(0).normal(size=(8, 2))
    steady, wild = 100 + noise, 100 * noise
    ours = {"controlled": steady, ORIGINAL: wild}
    found = judged("C7", Evidence(full=family(steady, estimates=ours)))
    assert found.verdict == "not supported"
    assert {part.verdict for part in found.parts if "controlled" in part.name} == {"supported"}
    theirs = {"controlled": wild, ORIGINAL: steady}
    assert verdict("C7", Evidence(full=family(wild, estimates=theirs))) == "supported"


# Invariance. The tables hold distinct integers in each shuffle, so that rounding breaks no ties.

ROWS = st.permutations(range(-40, 41, 7)).map(lambda row: row[:4])
TABLES = st.integers(3, 5).flatmap(
    lambda S: st.lists(ROWS, min_size=S, max_size=S).map(lambda rows: np.array(rows, float))
)


def claims_of(llc_SxM: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The verdicts, and for each claim its effect, its interval and its p value."""
    found = [judged(claim, both(llc_SxM)) for claim in ("C1", "C2", "C9")]
    numbers = [(claim.effect, *(claim.interval or ()), claim.p_value) for claim in found]
    return [claim.verdict for claim in found], np.array(numbers, float)


def alike(one: np.ndarray, other: np.ndarray, scale: float = 1.0) -> None:
    """All but the p values are proportional to λ̂."""
    (verdicts_a, numbers_a), (verdicts_b, numbers_b) = claims_of(one), claims_of(other)
    assert verdicts_a == verdicts_b
    unit = np.array([scale, scale, scale, 1.0])
    np.testing.assert_allclose(numbers_b / unit, numbers_a, rtol=1e-6, atol=1e-6)


SHIFTS = arrays(float, 5, elements=st.integers(-1000, 1000).map(float))


@given(TABLES, st.randoms(use_true_random=False), SHIFTS, st.sampled_from([0.125, 8.0, 1024.0]))
@settings(max_examples=40, deadline=None)
def test_neither_the_order_of_the_shuffles_nor_what_their_models_share_nor_the_unit_matters(
    table: np.ndarray, random: Any, shift: np.ndarray, scale: float
) -> None:
    alike(table, table[random.sample(range(len(table)), len(table))])
    alike(table, table + shift[: len(table), None])
    alike(table, scale * table, scale)


@given(TABLES)
@settings(max_examples=40, deadline=None)
def test_a_mirrored_table_has_the_mirrored_verdict(table: np.ndarray) -> None:
    mirror = {"supported": "not supported", "not supported": "supported"}
    verdicts, mirrored = claims_of(table)[0], claims_of(-table)[0]
    assert [mirror.get(verdict, verdict) for verdict in mirrored] == verdicts


# Numbers


def test_growth_with_a_shared_baseline_is_seen_in_order_but_not_in_size() -> None:
    """The published case: Page's test alone would call it supported."""
    rows = [[-4370.85, -3764.19, -3619.32, -4151.62], [-771.82, -1257.76, -1079.89, -365.43]]
    rows += [[483.14, 858.20, 3169.17, 3586.90], [798.83, 2420.50, 2688.82, 2896.44]]
    values = np.array(rows)
    found = judged("C1", Evidence(full=family(values, estimator=ORIGINAL)))
    assert found.verdict == "inconclusive"
    assert found.p_value == pytest.approx(stats.page_trend_test(values, method="exact").pvalue)
    assert found.p_value is not None
    assert found.p_value < RULES.level
    slopes = [stats.linregress(np.log2(known.SIZES), row).slope for row in values]  # pyright: ignore[reportAttributeAccessIssue]
    assert found.interval == pytest.approx(stats.ttest_1samp(slopes, 0).confidence_interval(0.95))


def test_the_second_difference_is_that_of_a_parabola() -> None:
    x = np.log2(known.SIZES)
    found = judged("C2", Evidence(full=family(np.vstack([3 * x**2 - x, 3 * x**2 + 5]))))
    assert found.effect == pytest.approx(6.0)


def test_the_exponent_is_that_of_a_power_law() -> None:
    values = np.outer([2.0, 2.1, 1.9], known.SIZES**0.4)
    found = judged("C2", Evidence(full=family(values)))
    exponent = next(part for part in found.parts if "exponent" in part.name)
    assert exponent.effect == pytest.approx(0.4)
    assert exponent.verdict == "supported"
    assert found.verdict == "not supported"  # the gain of a power law grows with every doubling
