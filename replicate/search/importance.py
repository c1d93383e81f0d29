"""Which hyperparameter of a grid λ̂ depends on: fANOVA (Hutter et al. 2014), by Optuna, with a
bootstrap over the trials.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial
from scipy import stats

from replicate.search.trials import Attempt
from replicate.seeds import derive

RESAMPLES = 50  # of the trials
TREES = 16  # of each forest


@dataclass(frozen=True)
class Importance:
    """Share of the variance of λ̂ over a grid that one hyperparameter explains, its 95 % bootstrap
    interval, and every resample's.
    """

    sampler: str
    hyperparameter: str
    importance: float
    interval: tuple[float, float]
    resamples: list[float]


def explain(attempts: Sequence[Attempt], seed: int) -> list[Importance]:
    """The share of every hyperparameter with more than one value in each sampler's grid; what is
    left are their interactions.

    What is explained is the rank of λ̂, so that a few exploding settings do not decide it; one that
    lost a chain ranks as an infinite λ̂.
    """
    rows: list[Importance] = []
    grid = [attempt for attempt in attempts if attempt.proposed_by == "grid"]
    for sampler in dict.fromkeys(attempt.setting.sampler for attempt in grid):
        mine = [attempt for attempt in grid if attempt.setting.sampler == sampler]
        columns = {
            name: levels([asdict(attempt.setting)[name] for attempt in mine])
            for name in asdict(mine[0].setting)
        }
        columns = {name: level_N for name, level_N in columns.items() if level_N.any()}
        rank_N = stats.rankdata(
            [
                math.inf if attempt.outcome.failed_chains else attempt.outcome.mean
                for attempt in mine
            ]
        )
        draws = np.random.default_rng(derive(seed, "importances", sampler)).integers(
            len(mine), size=(RESAMPLES, len(mine))
        )
        whole = fanova(columns, rank_N, seed)
        again = [
            fanova({name: level_N[draw] for name, level_N in columns.items()}, rank_N[draw], seed)
            for draw in draws
        ]
        for name in columns:
            resamples = [shares[name] for shares in again]
            low, high = np.quantile(resamples, [0.025, 0.975])
            rows.append(
                Importance(sampler, name, whole[name], (float(low), float(high)), resamples)
            )
    return rows


def levels(values: Sequence[object]) -> NDArray[np.int64]:
    """Each value's place among the different ones, in the grid's order."""
    different = list(dict.fromkeys(values))
    return np.array([different.index(value) for value in values])


def fanova(
    levels: Mapping[str, NDArray[np.int64]], values_N: NDArray[np.float64], seed: int
) -> dict[str, float]:
    """Share of the variance of N values that each hyperparameter explains alone, given their levels
    (N,); 0 where there is none.
    """
    if not np.ptp(values_N):
        return dict.fromkeys(levels, 0.0)
    space: dict[str, BaseDistribution] = {
        name: IntDistribution(0, max(int(level_N.max()), 1)) for name, level_N in levels.items()
    }
    study = optuna.create_study()
    for i, value in enumerate(values_N):
        params = {name: int(level_N[i]) for name, level_N in levels.items()}
        study.add_trial(create_trial(params=params, distributions=space, value=float(value)))
    forest = FanovaImportanceEvaluator(n_trees=TREES, seed=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that shares which need not add up to 1 are an experimental feature
        return get_param_importances(study, evaluator=forest, normalize=False)
