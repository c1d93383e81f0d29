"""fANOVA finds the hyperparameter that λ̂ depends on, and says how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest

from replicate.sampling import SamplerConfig
from replicate.search import importance
from replicate.search.trials import Outcome, Trial

LRS, BOXES, PULLS = (1e-7, 1e-5, 1e-3, 1e-1), (None, 0.5, 1.0), (0.0, 0.1, 1.0)
Llc = Callable[[float, float | None, float], float]


def grid(llc: Llc, diverged: Callable[[float], int] = lambda lr: 0) -> list[Trial]:
    """36 trials of ε × box × γ."""
    return [
        Trial(
            "grid",
            SamplerConfig("sgld", lr, localization=pull, bounding_box=box),
            Outcome(llc(lr, box, pull), 1.0, 0.1, 0.1, 1.0, 1.0, 0.0, diverged(lr)),
        )
        for lr, box, pull in product(LRS, BOXES, PULLS)
    ]


def shares(trials: list[Trial]) -> dict[str, importance.Importance]:
    return {row.hyperparameter: row for row in importance.explain(trials, 0)}


def test_the_hyperparameter_that_matters_has_nearly_all_the_importance() -> None:
    found = shares(grid(lambda lr, box, pull: math.log(lr) + 0.1 * pull))
    assert set(found) == {"lr", "bounding_box", "localization"}
    assert found["lr"].importance > 0.85
    others = (found[name].interval[1] for name in ("bounding_box", "localization"))
    assert found["lr"].interval[0] > max(others)


def test_none_is_a_value_like_another() -> None:
    found = shares(grid(lambda lr, box, pull: 0.0 if box is None else 100.0))
    assert found["bounding_box"].importance > 0.95


def test_what_two_hyperparameters_do_only_together_is_the_share_of_neither() -> None:
    """Exclusive or of ε and γ has no main effects."""
    found = shares(grid(lambda lr, box, pull: float((lr in LRS[::2]) ^ (pull > 0.05))))
    assert sum(row.importance for row in found.values()) < 0.7


def test_equal_effects_share_equally_and_the_interval_shows_the_doubt() -> None:
    found = shares(grid(lambda lr, box, pull: LRS.index(lr) / 3 + PULLS.index(pull) / 2))
    assert found["lr"].importance == pytest.approx(found["localization"].importance, abs=0.15)
    for name in ("lr", "localization"):
        low, high = found[name].interval
        assert low < found[name].importance < high
        assert high - low > 0.05
        assert min(found[name].resamples) <= low < high <= max(found[name].resamples)


def test_a_trial_with_a_diverged_chain_counts_as_an_infinite_lambda() -> None:
    """λ̂ is constant where the chains survive, so ε alone explains where they do."""
    found = shares(
        grid(lambda lr, box, pull: math.nan if lr == 1e-1 else 5.0, lambda lr: int(lr == 1e-1))
    )
    assert found["lr"].importance > 0.95


def test_a_grid_whose_trials_all_agree_explains_nothing() -> None:
    assert {row.importance for row in shares(grid(lambda lr, box, pull: 5.0)).values()} == {0.0}


def test_tpe_trials_are_left_out_and_seeds_tell() -> None:
    trials = grid(lambda lr, box, pull: LRS.index(lr) + PULLS.index(pull))
    extra = Trial("tpe", SamplerConfig("rmsprop", 1e-4), trials[0].outcome)
    found = importance.explain(trials, 3)
    assert importance.explain([*trials, extra], 3) == found
    assert importance.explain(trials, 4) != found
