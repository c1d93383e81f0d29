"""Verdicts are right as often as promised on data whose truth is known, and depend on nothing that
should not matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from replicate.estimation import statistics as inference
from replicate.pipeline.config import load
from replicate.pipeline.stages import claims as stage
from replicate.pipeline.stages import collect
from replicate.study import records as results
from replicate.study.claims import CLAIMS, ORIGINAL, Evidence, Family, Rules, judge
from replicate.study.claims.settings import diffusion_blocks
from replicate.study.records import (
    Baseline,
    Claim,
    Estimate,
    Extraction,
    Importance,
    Quantised,
    Reexamined,
    Trace,
    Training,
    Transferred,
    Trial,
)
from tests.conftest import ROOT

RULES = Rules(
    level=0.05,
    bootstrap=100,
    descent=0.01,
    negligible=0.1,
    stable=0.25,
    rhat=1.05,
    drift=0.01,
    local=0.25,
    seed=1,
)
SIZES = np.array([124e6, 355e6, 774e6, 1558e6])
REPEATS = 300
WRONG = int(
    stats.binom.ppf(0.9999, REPEATS, RULES.level)
)  # more wrong verdicts than this, and the level is not kept


def family(llc_GxM: np.ndarray, **changes: Any) -> Family:
    M = llc_GxM.shape[1]
    sizes = SIZES[:M]
    values = {
        "name": "f",
        "models": tuple(f"m{i}" for i in range(M)),
        "parameters_M": sizes,
        "sampled_M": sizes,
        "loss_M": np.ones(M),
    }
    values |= {"estimator": "controlled", "nbeta": 30.0, "localization": 100.0, "tokenizer": "t"}
    return Family(llc_GxM=llc_GxM, **(values | changes))


def make(kind: type[results.Record], **values: Any) -> Any:
    """A record that was run, with nothing in the fields that are not given."""
    fields = kind.model_fields
    nothing = {
        name: [] if "list" in str(field.annotation) else None for name, field in fields.items()
    }
    return kind.model_validate(nothing | ({"status": "run"} if "status" in fields else {}) | values)


def verdict(claim: str, evidence: Evidence, rules: Rules = RULES) -> str:
    found = CLAIMS[claim][0](evidence, rules)
    return "not run" if found is None else found.verdict


def tally(
    claim: str, draw: Callable[[np.random.Generator], Evidence], repeats: int = REPEATS
) -> Counter[str]:
    """Verdicts over independent repeats of a study."""
    generator = np.random.default_rng(int.from_bytes(claim.encode(), "big"))
    return Counter(verdict(claim, draw(generator)) for _ in range(repeats))


def shuffles(
    trend_M: Iterable[float], spread: float = 10.0, G: int = 4
) -> Callable[[np.random.Generator], Evidence]:
    """λ̂ of `trend_M`, noise of `spread`, and a shift of each shuffle that all its models share, as
    a common minibatch would give.
    """
    mean_M = np.array(list(trend_M))

    def draw(generator: np.random.Generator) -> Evidence:
        values = (
            mean_M
            + spread * generator.normal(size=(G, len(mean_M)))
            + 1000 * generator.normal(size=(G, 1))
        )
        return Evidence(full=family(values), quantised=family(values))

    return draw


DOUBLINGS = np.log2(SIZES / SIZES[0])


# C1, C2, C9: trends over shuffles


@pytest.mark.parametrize("G", [3, 4, 8])
@pytest.mark.parametrize("claim", ["C1", "C2", "C9"])
def test_without_a_trend_wrong_verdicts_keep_to_the_level(claim: str, G: int) -> None:
    found = tally(claim, shuffles(np.full(4, 50.0), G=G))
    assert found["supported"] <= WRONG
    assert found["not supported"] <= WRONG


def test_a_trend_is_found_in_the_direction_it_has() -> None:
    rising, falling = 20 * DOUBLINGS, -20 * DOUBLINGS
    assert tally("C1", shuffles(rising), 100)["supported"] >= 95
    assert tally("C1", shuffles(falling), 100)["not supported"] >= 95
    assert tally("C9", shuffles([0, 50]), 100)["supported"] >= 95
    assert tally("C9", shuffles([50, 0]), 100)["not supported"] >= 95


def test_a_gain_that_diminishes_is_told_from_one_that_grows() -> None:
    concave = 300 * DOUBLINGS - 40 * DOUBLINGS**2
    assert tally("C2", shuffles(concave), 100)["supported"] >= 95
    assert tally("C2", shuffles(-concave), 100)["not supported"] >= 95
    straight = tally("C2", shuffles(300 * DOUBLINGS))
    assert straight["supported"] <= WRONG
    assert straight["not supported"] <= WRONG


def test_growth_with_a_shared_baseline_is_seen_in_order_but_not_in_size() -> None:
    """The published case: Page's test alone would call it supported."""
    values = np.array(
        [[-4370.85, -3764.19, -3619.32, -4151.62], [-771.82, -1257.76, -1079.89, -365.43]]
    )
    values = np.vstack(
        [values, [[483.14, 858.20, 3169.17, 3586.90], [798.83, 2420.50, 2688.82, 2896.44]]]
    )
    found = CLAIMS["C1"][0](Evidence(full=family(values, estimator=ORIGINAL)), RULES)
    assert found is not None
    assert found.verdict == "inconclusive"
    assert found.p is not None
    assert found.interval is not None
    assert found.p == pytest.approx(stats.page_trend_test(values, method="exact").pvalue)
    assert found.p < RULES.level
    slopes = [stats.linregress(np.log2(SIZES), row).slope for row in values]  # pyright: ignore[reportAttributeAccessIssue]
    assert found.interval == pytest.approx(stats.ttest_1samp(slopes, 0).confidence_interval(0.95))
    assert found.interval[0] < 0 < found.interval[1]


def test_the_second_difference_is_that_of_a_parabola() -> None:
    x = np.log2(SIZES)
    found = CLAIMS["C2"][0](Evidence(full=family(np.vstack([3 * x**2 - x, 3 * x**2 + 5]))), RULES)
    assert found is not None
    assert found.effect == pytest.approx(6.0)


def test_the_exponent_is_that_of_a_power_law() -> None:
    values = np.vstack([2.0 * SIZES**0.4, 2.1 * SIZES**0.4, 1.9 * SIZES**0.4])
    found = CLAIMS["C2"][0](Evidence(full=family(values)), RULES)
    assert found is not None
    exponent = next(part for part in found.parts if "exponent" in part.name)
    assert exponent.effect == pytest.approx(0.4)
    assert exponent.verdict == "supported"
    assert found.verdict == "not supported"  # the gain of a power law grows with every doubling


def test_what_would_decide_it_does_decide_it() -> None:
    """The number of shuffles named in an open verdict, of the same mean and spread, suffices, and
    one fewer does not.
    """
    values = np.array([3.0, -1.0, 2.0, 0.5])
    count = inference.needed(values, 0.05)
    assert count is not None

    def low(n: int) -> float:
        half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
        return float(values.mean() - half)

    assert low(count) > 0 > low(count - 1)


def test_a_shuffle_whose_chains_failed_is_left_out_and_told() -> None:
    values = 50 * DOUBLINGS + np.random.default_rng(0).normal(size=(5, 4))
    broken = np.vstack([values, [[np.nan, 1.0, 2.0, 3.0]]])
    whole, part = (CLAIMS["C1"][0](Evidence(full=family(v)), RULES) for v in (values, broken))
    assert whole is not None
    assert part is not None
    assert (part.effect, part.interval, part.p) == (whole.effect, whole.interval, whole.p)
    assert "1 of 6 shuffles" in part.why


# Invariance


def claims_of(llc_GxM: np.ndarray) -> list[tuple[Any, ...]]:
    evidence = Evidence(full=family(llc_GxM), quantised=family(llc_GxM))
    found = [CLAIMS[claim][0](evidence, RULES) for claim in ("C1", "C2", "C9")]
    return [(f.verdict, f.effect, f.interval, f.p) for f in found if f is not None]


def alike(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]], scale: float = 1.0) -> None:
    for (verdict_a, effect_a, interval_a, p_a), (verdict_b, effect_b, interval_b, p_b) in zip(
        one, other, strict=True
    ):
        assert verdict_a == verdict_b
        assert scale * effect_a == pytest.approx(effect_b, rel=1e-6, abs=1e-6 * scale)
        assert [scale * end for end in interval_a] == pytest.approx(
            interval_b, rel=1e-6, abs=1e-6 * scale
        )
        assert p_a == pytest.approx(p_b, rel=1e-6, abs=1e-9)


# distinct integers a shuffle: no ties that rounding could break, and a spread that is not lost in
# it
TABLES = st.integers(3, 5).flatmap(lambda G: st.lists(st.permutations(range(-40, 41, 7)), min_size=G, max_size=G)).map(
    lambda rows: np.array([row[:4] for row in rows], float)
)  # fmt: skip


@given(TABLES, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_shuffles_is_no_matter(table: np.ndarray, random: Any) -> None:
    alike(claims_of(table), claims_of(table[random.sample(range(len(table)), len(table))]))


@given(TABLES, arrays(float, 5, elements=st.integers(-1000, 1000).map(float)))
@settings(max_examples=40, deadline=None)
def test_what_the_models_of_a_shuffle_share_is_no_matter(
    table: np.ndarray, shift: np.ndarray
) -> None:
    alike(claims_of(table), claims_of(table + shift[: len(table), None]))


@given(TABLES, st.sampled_from([0.125, 0.5, 8.0, 1024.0]))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_llc_is_no_matter(table: np.ndarray, scale: float) -> None:
    alike(claims_of(table), claims_of(scale * table), scale)


@given(TABLES)
@settings(max_examples=40, deadline=None)
def test_a_mirrored_table_has_the_mirrored_verdict(table: np.ndarray) -> None:
    mirror = {
        "supported": "not supported",
        "not supported": "supported",
        "inconclusive": "inconclusive",
    }
    assert [mirror[row[0]] for row in claims_of(table)] == [row[0] for row in claims_of(-table)]


# A1, A2


def lowered(
    fall: float, error: float = 0.002, level: float = 50.0
) -> Callable[[np.random.Generator], Evidence]:
    def draw(generator: np.random.Generator) -> Evidence:
        values = level + generator.normal(size=(4, 2))
        descents = {f"m{i}": (fall + error * generator.normal(), error) for i in range(2)}
        return Evidence(full=family(values), descents=descents)

    return draw


def test_a_minimum_is_told_from_a_slope() -> None:
    assert tally("A1", lowered(0.0), 100)["supported"] >= 95
    assert tally("A1", lowered(0.05), 100)["not supported"] >= 95
    assert tally("A1", lowered(0.0, level=-50.0), 100) == {"not supported": 100}
    assert tally("A1", lowered(0.0, error=0.1), 100)["inconclusive"] >= 95
    assert tally("A1", lowered(RULES.descent))["supported"] <= WRONG


def test_one_llc_at_or_below_zero_leaves_a_minimum_open() -> None:
    values = np.array([[5.0, 6.0], [4.0, -1.0], [5.0, 6.0]])
    assert (
        verdict(
            "A1", Evidence(full=family(values), descents={"m0": (0.0, 0.001), "m1": (0.0, 0.001)})
        )
        == "inconclusive"
    )


def test_signs_of_llc_alone_do_not_decide_about_a_minimum() -> None:
    values = np.array([[-4000.0, -3000.0], [-700.0, -1200.0], [500.0, 900.0], [800.0, 2400.0]])
    found = CLAIMS["A1"][0](Evidence(full=family(values)), RULES)
    assert found is not None
    assert found.verdict == "inconclusive"
    assert "4 of 8" in found.why


def test_the_same_data_is_taken_from_who_says_so() -> None:
    assert verdict("A2", Evidence(provenance={"mini": "Trained here."})) == "supported"
    assert (
        verdict("A2", Evidence(provenance={"mini": "Trained here.", "other": None}))
        == "inconclusive"
    )


# C3, C4, C5: the search


def trial(**changes: Any) -> Trial:
    values = {
        "family": "f",
        "model": "m",
        "proposed_by": "grid",
        "sampler": "sgld",
        "lr": 1e-5,
        "weight_decay": 0.0,
        "localization": 1.0,
    }
    return make(
        Trial,
        **(values | {"healthy": True, "failed_chains": 0, "chains": 3, "chosen": False} | changes),
    )


def search(sgld: np.ndarray, sgnht: np.ndarray) -> Evidence:
    rows = [("sgld", value) for value in sgld] + [("sgnht", value) for value in sgnht]
    return Evidence(
        trials=[
            trial(sampler=sampler, mean=float(i), stability=None if np.isnan(value) else value)
            for i, (sampler, value) in enumerate(rows)
        ]
    )


def test_the_more_stable_sampler_is_found_and_chance_is_not() -> None:
    def grids(shift: float) -> Callable[[np.random.Generator], Evidence]:
        return lambda generator: search(
            5 + shift + generator.normal(size=27), 5 + generator.normal(size=9)
        )

    assert tally("C3", grids(3.0), 50)["supported"] >= 47
    assert tally("C3", grids(-3.0), 50)["not supported"] >= 47
    chance = tally("C3", grids(0.0), 200)
    assert max(chance["supported"], chance["not supported"]) <= stats.binom.ppf(
        0.9999, 200, RULES.level
    )


def test_a_failed_setting_is_the_least_stable() -> None:
    fine, failed = np.arange(1.0, 21.0), np.full(20, np.nan)
    assert verdict("C3", search(fine, failed)) == "supported"
    assert verdict("C3", search(failed, fine)) == "not supported"
    assert verdict("C3", search(-fine, failed)) == "inconclusive"


def test_superiority_counts_pairs() -> None:
    a, b = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 0.0, 4.0])
    counted = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert inference.superiority(a, b, 0.05, 10, 1).value == pytest.approx(counted)


def test_a_box_that_never_bound_is_no_further_evidence() -> None:
    once = [
        trial(sampler="sgld", mean=float(i), standard_deviation=1.0, stability=float(i))
        for i in range(3)
    ]
    once += [trial(sampler="sgnht", mean=9.0, standard_deviation=1.0, stability=0.0)]
    twice = once + [row.model_copy(update={"bounding_box": 0.5}) for row in once]
    assert CLAIMS["C3"][0](Evidence(trials=once), RULES) == CLAIMS["C3"][0](
        Evidence(trials=twice), RULES
    )
    blocks = [
        trial(sampler="sgnht", diffusion=a, mean=1 / a, bounding_box=box)
        for a in (0.1, 0.01, 0.001)
        for box in (None, 0.5)
    ]
    assert diffusion_blocks(blocks).tolist() == [[1000.0, 100.0, 10.0]]


def test_four_pairs_of_medians_cannot_decide() -> None:
    found = CLAIMS["C3"][0](
        Evidence(medians={"sgld": np.array([4.0, 3.0, 2.0, 1.0]), "sgnht": np.zeros(4)}), RULES
    )
    assert found is not None
    assert found.verdict == "inconclusive"
    assert found.p == pytest.approx(1 / 16)


def importances(lr: float, other: float, error: float) -> Callable[[np.random.Generator], Evidence]:
    def draw(generator: np.random.Generator) -> Evidence:
        rows = []
        for name, truth in (("lr", lr), ("localization", other), ("weight_decay", 0.0)):
            value = truth + error * generator.normal()
            resamples = (value + error * generator.normal(size=200)).tolist()
            row = {
                "family": "f",
                "sampler": "sgld",
                "hyperparameter": name,
                "importance": value,
                "interval": (0.0, 1.0),
            }
            rows.append(Importance.model_validate(row | {"resamples": resamples}))
        return Evidence(importances=rows)

    return draw


def test_the_learning_rate_matters_where_it_does() -> None:
    assert tally("C4", importances(0.9, 0.1, 0.05), 100)["supported"] >= 95
    assert tally("C4", importances(0.1, 0.9, 0.05), 100)["not supported"] >= 95
    chance = tally("C4", importances(0.5, 0.5, 0.05))
    assert max(chance["supported"], chance["not supported"]) <= WRONG


def test_a_search_at_one_learning_rate_says_nothing_of_it() -> None:
    evidence = importances(0.9, 0.1, 0.05)(np.random.default_rng(0))
    assert (
        verdict(
            "C4",
            Evidence(
                importances=[row for row in evidence.importances if row.hyperparameter != "lr"]
            ),
        )
        == "not run"
    )


def test_a_trend_along_the_diffusion_factor_is_found() -> None:
    def blocks(slope: float) -> Callable[[np.random.Generator], Evidence]:
        return lambda generator: Evidence(
            diffusion_BxA=generator.normal(size=(4, 3)) + slope * np.arange(3)
        )

    assert tally("C5", blocks(-5.0), 100)["supported"] >= 95
    assert tally("C5", blocks(5.0), 100)["not supported"] >= 95
    chance = tally("C5", blocks(0.0))
    assert max(chance["supported"], chance["not supported"]) <= WRONG


def test_one_block_of_three_has_one_chance_in_six() -> None:
    found = CLAIMS["C5"][0](
        Evidence(diffusion_BxA=np.array([[6487.0, 5410.0, 2571.0]]), noise_follows=False), RULES
    )
    assert found is not None
    assert found.verdict == "inconclusive"
    assert found.p == pytest.approx(1 / 6)
    assert "initial friction" in found.why


def test_pages_test_of_one_block_is_the_share_of_orders_that_rise_as_much() -> None:
    row = np.array([2.0, 1.0, 4.0, 3.0])
    orders = [stats.spearmanr(order, np.arange(4)).statistic for order in permutations(range(4))]  # pyright: ignore[reportAttributeAccessIssue]
    seen = stats.spearmanr(row, np.arange(4)).statistic  # pyright: ignore[reportAttributeAccessIssue]
    assert inference.page(row[None]) == pytest.approx(np.mean(np.array(orders) >= seen - 1e-12))


def test_healthy_blocks_come_before_those_that_merely_survived() -> None:
    rows = [
        trial(sampler="sgnht", lr=lr, diffusion=a, mean=i + 10 * j, healthy=j < healthy)
        for healthy in (2,)
        for j, lr in enumerate((1e-8, 1e-7, 1e-6))
        for i, a in enumerate((0.001, 0.01, 0.1))
    ]
    assert len(diffusion_blocks(rows)) == 2
    assert (
        len(diffusion_blocks([row.model_copy(update={"healthy": row.lr == 1e-8}) for row in rows]))
        == 3
    )
    failed = [
        row.model_copy(update={"failed_chains": int(row.lr == 1e-6 and row.diffusion == 0.1)})
        for row in rows
    ]
    assert len(diffusion_blocks([row.model_copy(update={"healthy": False}) for row in failed])) == 2


# C6, C7, C8: stability


def test_clipping_is_idle_where_it_is() -> None:
    def change(truth: float, error: float) -> Callable[[np.random.Generator], Evidence]:
        return lambda generator: Evidence(clipping={"m": truth + error * generator.normal(size=4)})

    assert tally("C6", change(0.0, 0.01), 100)["supported"] >= 95
    assert tally("C6", change(-0.3, 0.02), 100)["not supported"] >= 95
    assert tally("C6", change(0.0, 0.5), 100)["inconclusive"] >= 90
    assert tally("C6", change(RULES.negligible, 0.01))["supported"] <= WRONG


def test_a_chain_that_failed_is_a_loss_that_exploded() -> None:
    found = CLAIMS["C6"][0](
        Evidence(clipping={"m": np.array([0.0, 0.001, np.nan]), "n": np.zeros(3)}), RULES
    )
    assert found is not None
    assert found.verdict == "not supported"
    assert "exploded: chains of m" in found.why


def varying(cv: float, G: int) -> Callable[[np.random.Generator], Evidence]:
    return lambda generator: Evidence(
        full=family(100 * (1 + cv * generator.normal(size=(G, 1))), estimator=ORIGINAL)
    )


@pytest.mark.parametrize("G", [4, 8, 16])
def test_stability_is_judged_at_its_level(G: int) -> None:
    at_limit = tally("C7", varying(RULES.stable, G))
    assert max(at_limit["supported"], at_limit["not supported"]) <= WRONG
    assert tally("C7", varying(0.02, G), 100)["supported"] >= 95


def test_the_interval_of_a_variation_misses_as_often_on_either_side() -> None:
    generator = np.random.default_rng(5)
    found = [
        inference.variation(100 + generator.normal(size=4), 0.05, 0.25).interval
        for _ in range(1500)
    ]
    above, below = (
        np.mean([side(ends) for ends in found if ends])
        for side in (lambda e: e[0] > 0.01, lambda e: e[1] < 0.01)
    )
    assert 0.014 < above < 0.036
    assert 0.014 < below < 0.036


def test_an_estimate_that_varies_as_much_as_its_mean_is_not_stable() -> None:
    assert tally("C7", varying(1.5, 8), 100)["not supported"] >= 95


def test_the_verdict_on_stability_is_that_of_the_write_ups_estimator() -> None:
    steady, wild = (
        100 + np.random.default_rng(0).normal(size=(8, 2)),
        100 * np.random.default_rng(0).normal(size=(8, 2)),
    )
    found = CLAIMS["C7"][0](Evidence(full=family(steady, others={ORIGINAL: wild})), RULES)
    assert found is not None
    assert found.verdict == "not supported"
    assert {part.verdict for part in found.parts if "controlled" in part.name} == {"supported"}
    assert verdict("C7", Evidence(full=family(wild, others={ORIGINAL: steady}))) == "supported"


def test_components_of_variance_are_found() -> None:
    """Shuffle 4, chain 2, draws 1 (of a chain's mean), over many shuffles."""
    generator = np.random.default_rng(3)
    chains_GxC = 2 * generator.normal(size=(4000, 1)) + np.sqrt(2 + 1) * generator.normal(
        size=(4000, 5)
    )
    within = float(chains_GxC.var(1, ddof=1).mean())
    shares = inference.components(chains_GxC.mean(1), within, 5, draws=1.0)
    assert shares == pytest.approx((4 / 7, 2 / 7, 1 / 7), abs=0.03)


def transferred(factor: float, groups: Iterable[float | None], **changes: Any) -> Transferred:
    values = {
        "family": "f",
        "model": "m",
        "rhat": 1.01,
        "drift_p": 0.5,
        "chains": 4,
        "failed_chains": 0,
    }
    return make(Transferred, factor=factor, groups=list(groups), **(values | changes))


def transfers(
    change: float, error: float, **chosen: Any
) -> Callable[[np.random.Generator], Evidence]:
    def draw(generator: np.random.Generator) -> Evidence:
        one = 50 + 20 * generator.random(4)  # shuffles differ: only pairs agree
        third = one * (1 + change + error * generator.normal(size=4))
        return Evidence(
            transfer=[
                transferred(0.333, third),
                transferred(1.0, one, **chosen),
                transferred(3.0, 9 * one),
            ]
        )

    return draw


def test_a_step_size_that_carries_over_is_told_from_one_that_does_not() -> None:
    assert tally("C8", transfers(0.0, 0.02), 100)["supported"] >= 95
    assert tally("C8", transfers(0.4, 0.02), 100)["not supported"] >= 95
    assert tally("C8", transfers(0.0, 0.5), 100)["inconclusive"] >= 90
    assert tally("C8", transfers(RULES.negligible, 0.02))["supported"] <= WRONG


@pytest.mark.parametrize("sick", [{"rhat": 1.2}, {"drift_p": 0.001}, {"failed_chains": 1}])
def test_chains_that_are_not_healthy_do_not_carry_over(sick: dict[str, float]) -> None:
    assert verdict("C8", transfers(0.0, 0.01, **sick)(np.random.default_rng(0))) == "not supported"


def test_one_model_that_fails_a_claim_about_every_model_decides_it() -> None:
    fine, bad = (
        transfers(change, 0.01)(np.random.default_rng(0)).transfer for change in (0.0, 0.5)
    )
    assert (
        verdict(
            "C8",
            Evidence(transfer=[*fine, *(row.model_copy(update={"model": "n"}) for row in bad)]),
        )
        == "not supported"
    )


# C10, C11


def test_a_restricted_model_is_not_compared_with_a_whole_one() -> None:
    values = np.array([[10.0, 20.0, 40.0], [11.0, 21.0, 39.0]])
    full, restricted = family(values), family(values[:, :2], sampled_M=SIZES[:2] / 2)
    found = CLAIMS["C11"][0](Evidence(full=full, quantised=restricted), RULES)
    assert found is not None
    assert found.verdict == "not supported"
    assert "0.5 of the parameters of m1" in found.why
    assert (
        verdict("C11", Evidence(full=full, quantised=replace(family(values[:, :2]), nbeta=10.0)))
        == "not supported"
    )


def test_a_family_off_the_power_law_is_found_and_one_on_it_seldom_rejected() -> None:
    def pair(
        factor: float, error: float, models: int = 8
    ) -> Callable[[np.random.Generator], Evidence]:
        sizes = np.geomspace(1e4, 1e6, models)

        def of(generator: np.random.Generator, sizes: np.ndarray, factor: float) -> Family:
            mean = factor * sizes**0.4 * np.exp(error * generator.normal(size=len(sizes)))
            names = tuple(map(str, range(len(sizes))))
            changes = {
                "models": names,
                "parameters_M": sizes,
                "sampled_M": sizes,
                "loss_M": np.ones(len(sizes)),
            }
            return family(mean * (1 + 1e-3 * generator.normal(size=(4, len(sizes)))), **changes)

        return lambda generator: Evidence(
            full=of(generator, sizes, 1.0), quantised=of(generator, np.array([1e5]), factor)
        )

    assert tally("C11", pair(3.0, 0.05), 100)["not supported"] >= 95
    assert tally("C11", pair(1.0, 0.005), 100)["supported"] >= 90
    assert tally("C11", pair(1.0, 0.3))["supported"] <= WRONG
    assert tally("C11", pair(1.0, 0.3))["not supported"] <= WRONG


def formats(
    rise: float,
    error: float,
    changes: list[float | None],
    weights: str = "nf4",
    moved: Any = "restricted",
) -> list[Quantised]:
    """A model in float32 and in another format."""
    rest = {
        "family": "f",
        "model": "m",
        "moved": moved,
        "sampled_parameters": 9,
        "loss": 1.0,
        "gradient_norm_squared": 1e-3,
    }
    rest |= {
        "descent": 1e-3,
        "descent_error": 1e-4,
        "llc": 20.0,
        "standard_error": 0.1,
        "groups": [20.0] * len(changes),
        "rhat": 1.0,
    }
    rest |= {"chains": 4, "failed_chains": 0, "status": "run"}
    pairs = (("float32", 0.0, 0.0, [0.0] * len(changes)), (weights, rise, error, changes))
    return [
        Quantised.model_validate(rest | {"weights": w, "rise": r, "rise_error": e, "changes": c})
        for w, r, e, c in pairs
    ]


STILL: list[float | None] = [0.01, -0.02, 0.0, 0.01]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "not run"),
        (formats(0.001, 0.0005, STILL), "not supported"),
        (formats(0.1, 0.001, STILL), "supported"),
        (formats(0.011, 0.001, STILL), "inconclusive"),
        (formats(0.001, 0.0005, [0.5, 0.55, 0.45, 0.5]), "supported"),
        (formats(0.001, 0.0005, [-0.3, 0.3, 0.1, -0.1]), "inconclusive"),
        (formats(0.001, 0.0005, [0.01, None, 0.0, 0.01]), "inconclusive"),
        (formats(0.001, 0.0005, [0.01]), "inconclusive"),
        (formats(9.0, 0.001, STILL, weights="int8"), "not run"),
        (formats(9.0, 0.001, STILL, moved="full"), "not run"),
        ([*formats(0.001, 0.0005, STILL), *formats(0.1, 0.001, STILL)], "supported"),
    ],
    ids=[
        "nothing",
        "all within the margins",
        "the loss rises",
        "the rise is open",
        "λ̂ moves",
        "λ̂ is open",
        "a shuffle failed",
        "one shuffle",
        "int8 alone decides nothing",
        "all weights moving decide nothing",
        "one model moved is enough",
    ],
)
def test_quantisation_moves_a_model_where_its_loss_rises_or_its_llc_changes(
    rows: list[Quantised], expected: str
) -> None:
    assert verdict("C10", Evidence(quantisation=rows)) == expected


def test_what_quantisation_does_is_told_of_every_format() -> None:
    found = CLAIMS["C10"][0](
        Evidence(quantisation=[*formats(0.1, 0.001, STILL), *formats(0.2, 0.001, STILL, "int8")]),
        RULES,
    )
    assert found is not None
    assert found.effect == 0.1
    assert "m, nf4, restricted: rise of the loss at w* is 0.1" in found.why
    told = {part.name: part.verdict for part in found.parts}
    assert told["m, int8, restricted: rise of the loss at w*"] is None


# All claims, and the stage


def test_nothing_obtained_is_not_run() -> None:
    found = judge(Evidence(), RULES)
    assert [claim.id for claim in found] == ["A1", "A2", *(f"C{i}" for i in range(1, 12))]
    assert {claim.verdict for claim in found} == {"not run"}
    assert all(
        claim.effect is claim.interval is claim.p_value is None and not claim.evidence
        for claim in found
    )


def test_a_supported_verdict_has_its_interval_on_the_claimed_side() -> None:
    for seed in range(30):
        generator = np.random.default_rng(seed)
        values = generator.normal(size=(4, 4)) + generator.normal() * DOUBLINGS
        for claim, sign in (("C1", 1), ("C2", -1), ("C9", 1)):
            found = CLAIMS[claim][0](Evidence(full=family(values), quantised=family(values)), RULES)
            assert found is not None
            assert found.interval is not None
            assert found.p is not None
            if found.verdict == "supported":
                assert found.p < RULES.level
                assert min(sign * end for end in found.interval) > 0


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 4)),
        np.full((4, 4), 7.0),
        np.ones((1, 4)),
        np.full((4, 4), np.nan),
        np.ones((4, 2)),
    ],
)
def test_degenerate_data_are_inconclusive_and_raise_nothing(values: np.ndarray) -> None:
    evidence = Evidence(full=family(values), quantised=family(values))
    with np.errstate(all="raise"):
        found = judge(evidence, RULES)
    assert {claim.verdict for claim in found if claim.id in ("C1", "C2", "C9")} == {"inconclusive"}


PARAMS = load(ROOT / "params.yaml")
PUBLISHED = ROOT / "data" / "published.yaml"


def judged(study: str, folder: Path, out: Path) -> dict[str, Claim]:
    stage.run(PARAMS, study, folder, PUBLISHED, out)
    return {claim.id: claim for claim in results.read(out / "claims.json", Claim)}


def test_a_study_that_was_not_run_has_only_what_is_cited(tmp_path: Path) -> None:
    collect.run(PARAMS, "paper", Path("nowhere"), tmp_path)
    found = judged("paper", tmp_path, tmp_path)
    assert {name for name, claim in found.items() if claim.verdict != "not run"} == {"A2"}
    assert "Radford et al. 2019" in found["A2"].why
    assert "not tested" in found["A2"].why


def test_the_published_figures_support_what_they_can_and_no_more(tmp_path: Path) -> None:
    found = judged("published", Path("nowhere"), tmp_path)
    verdicts = {name: claim.verdict for name, claim in found.items()}
    assert verdicts == dict.fromkeys(
        ("A1", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9"), "inconclusive"
    ) | {
        "A2": "supported",
        "C7": "not supported",
        "C10": "not run",
        "C11": "not supported",
    }
    assert "p = 0.0075" in found["C1"].why
    assert "p = 0.096" in found["C1"].why
    assert "8 of 16 λ̂ of gpt2" in found["A1"].why
    assert all("decide" in claim.why for claim in found.values() if claim.verdict == "inconclusive")


def records() -> dict[str, list[Any]]:
    """What a finished demo study would hold, of a made-up λ̂ = parameters^0.4 and the protocol's
    worst luck.
    """
    generator = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {name: [] for name in results.FILES}

    for family_name in ("mini", "mini-llama"):
        rows["windows"].append(make(Extraction, family=family_name, kept=100, length=48))
        for i, model in enumerate(PARAMS.models_of(family_name)):
            named = {"family": family_name, "model": model}
            size = int(3e4 * 3**i)
            llc = size**0.4 * (1 + 0.02 * generator.normal(size=4))
            counts = {
                "parameters": size,
                "sampled_parameters": size if family_name == "mini" else size // 2,
            }
            for estimator in ("controlled", "devinterp", "published"):
                row = {
                    "estimator": estimator,
                    "groups": llc.tolist(),
                    "chains": 8,
                    "failed_chains": 0,
                    "monte_carlo_error": 0.1,
                }
                row |= {"rhat": 1.01, "drift_p": 0.5, "clipped": [0.01, 0.011, 0.009, 0.01]}
                rows["estimates"].append(make(Estimate, **named, **counts, **row))
            rows["baselines"].append(
                make(
                    Baseline,
                    **named,
                    loss=1.0,
                    descent=0.0,
                    descent_error=0.001,
                    gradient_norm_squared=0.0,
                )
            )
            rows["training"].append(make(Training, **named, epochs=2.0 + i))
            wild = (500 * generator.normal(size=8)).tolist()
            rows["original"].append(make(Reexamined, **named, groups=wild, deviations=[9.0] * 8))
            chains = (np.repeat(llc, 2) + generator.normal(size=8)).tolist()
            rows["traces"].append(make(Trace, **named, loss_at_w_star=1.0, chain_llc=chains))
            for factor in (0.333, 1.0, 3.0):
                health = {"rhat": 1.01, "drift_p": 0.5, "chains": 2, "failed_chains": 0}
                rows["transfer"].append(
                    make(
                        Transferred,
                        **named,
                        factor=factor,
                        groups=[factor**0.001 * x for x in llc],
                        **health,
                    )
                )
    for i in range(12):
        rows["search"].append(trial(family="mini", mean=float(i), stability=10.0 + i))
        rows["search"].append(
            trial(
                family="mini",
                sampler="sgnht",
                mean=-float(i),
                stability=1.0 + 0.1 * i,
                diffusion=0.01,
            )
        )
    for name, value in (("lr", 0.9), ("localization", 0.05)):
        row = {
            "family": "mini",
            "sampler": "sgld",
            "hyperparameter": name,
            "importance": value,
            "interval": (value, value),
        }
        rows["importances"].append(Importance.model_validate(row | {"resamples": [value] * 100}))
    rows["quantisation"] = formats(0.1, 0.001, STILL)
    return rows


def written(folder: Path, rows: dict[str, list[Any]]) -> Path:
    for name, kept in rows.items():
        results.write(folder / f"{name}.json", kept)
    return folder


def test_a_finished_study_is_judged_from_its_results(tmp_path: Path) -> None:
    found = judged("demo", written(tmp_path, records()), tmp_path)
    assert {name: claim.verdict for name, claim in found.items()} == {
        "A1": "supported",
        "A2": "supported",
        "C1": "supported",
        "C2": "not supported",
        "C3": "supported",
        "C4": "supported",
        "C5": "inconclusive",
        "C6": "supported",
        "C7": "not supported",
        "C8": "supported",
        "C9": "supported",
        "C10": "supported",
        "C11": "not supported",
    }
    assert "2.0 to 5.0 epochs" in found["A2"].why
    for claim in found.values():
        assert claim.why
        assert all((tmp_path / Path(source.file).name).exists() for source in claim.evidence)
        assert claim.evidence or claim.verdict == "not run"
    shares = [part for part in found["C7"].parts if "share of the variance" in part.name]
    assert len(shares) == 2 * 6
    estimators = {part.name.split(": ")[0] for part in found["C1"].parts}
    assert estimators == {"controlled", "devinterp", "published", ORIGINAL}


def test_a_model_that_was_not_run_is_named(tmp_path: Path) -> None:
    rows = records()
    for name in ("estimates", "baselines"):
        last = {"status": "not run", "groups": []} if name == "estimates" else {"status": "not run"}
        rows[name] = [
            row.model_copy(update=last) if row.model == "mini-1050k" else row for row in rows[name]
        ]
    found = judged("demo", written(tmp_path, rows), tmp_path)
    assert found["C1"].verdict == "supported"
    assert all("Not run: mini-1050k" in found[name].why for name in ("A1", "C1", "C2"))


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", records())
    texts = []
    for name in ("first", "second"):
        stage.run(PARAMS, "demo", folder, PUBLISHED, tmp_path / name)
        texts.append((tmp_path / name / "claims.json").read_bytes())
    assert texts[0] == texts[1]
    assert all(set(claim) == set(Claim.model_fields) for claim in json.loads(texts[0]))


def test_claims_need_no_torch() -> None:
    code = "import sys, replicate.pipeline.stages.claims, replicate.pipeline.stages.published; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        check=True,
    )
