"""fANOVA finds the hyperparameter that λ̂ depends on, says how sure that is, and is the same each
time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest

from replicate.sampling import Setting
from replicate.search import importance as importances
from replicate.search.trials import Attempt, Outcome

LRS, BOXES, PULLS = (1e-7, 1e-5, 1e-3, 1e-1), (None, 0.5, 1.0), (0.0, 0.1, 1.0)


def grid(
    llc: Callable[[float, float | None, float], float],
    failed: Callable[[float], int] = lambda lr: 0,
) -> list[Attempt]:
    """36 trials of ε × box × γ."""
    return [
        Attempt(
            "grid",
            Setting("sgld", lr, localization=pull, bounding_box=box),
            Outcome(llc(lr, box, pull), 1.0, 0.1, 0.1, 1.0, 1.0, 0.0, failed(lr)),
        )
        for lr, box, pull in product(LRS, BOXES, PULLS)
    ]


def shares(attempts: list[Attempt], seed: int = 0) -> dict[str, importances.Importance]:
    return {row.hyperparameter: row for row in importances.explain(attempts, seed)}


def test_the_hyperparameter_that_matters_has_nearly_all_the_importance() -> None:
    found = shares(grid(lambda lr, box, pull: math.log(lr) + 0.1 * pull))
    assert set(found) == {"lr", "bounding_box", "localization"}
    assert found["lr"].importance > 0.85
    assert found["lr"].interval[0] > max(
        found["bounding_box"].interval[1], found["localization"].interval[1]
    )


def test_none_is_a_value_like_another() -> None:
    found = shares(grid(lambda lr, box, pull: 0.0 if box is None else 100.0))
    assert found["bounding_box"].importance > 0.95


def test_what_two_hyperparameters_do_only_together_is_the_share_of_neither() -> None:
    """Exclusive or of ε and γ: its main effects are nil."""
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


def test_a_setting_that_failed_counts_as_an_infinite_lambda() -> None:
    """λ̂ is constant where the chains survive; only ε says where they do, so ε explains all."""
    found = shares(
        grid(lambda lr, box, pull: math.nan if lr == 1e-1 else 5.0, lambda lr: int(lr == 1e-1))
    )
    assert found["lr"].importance > 0.95


def test_a_grid_whose_settings_all_agree_explains_nothing() -> None:
    assert {row.importance for row in shares(grid(lambda lr, box, pull: 5.0)).values()} == {0.0}


def test_tpe_trials_and_constant_hyperparameters_are_left_out() -> None:
    attempts = grid(lambda lr, box, pull: lr)
    extra = Attempt("tpe", Setting("rmsprop", 1e-4), attempts[0].outcome)
    assert importances.explain([*attempts, extra], 0) == importances.explain(attempts, 0)


def test_the_same_seed_gives_the_same_importances_and_another_others() -> None:
    attempts = grid(lambda lr, box, pull: LRS.index(lr) + PULLS.index(pull))
    found = importances.explain(attempts, 3)
    assert importances.explain(attempts, 3) == found
    assert importances.explain(attempts, 4) != found
