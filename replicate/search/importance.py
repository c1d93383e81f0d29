"""Measures how much λ̂ depends on each hyperparameter of a grid.

The method is fANOVA (Hutter et al. 2014) by Optuna, with a bootstrap over the trials.
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

from replicate.search.trials import Trial
from replicate.seeds import derive

RESAMPLES = 50  # bootstrap samples of the trials
TREES = 16  # trees in each random forest


@dataclass(frozen=True)
class Importance:
    """Holds the share of the variance of the ranks of λ̂ that one hyperparameter explains alone.

    Attributes:
        sampler: the name of the sampler that has the grid.
        hyperparameter: the name of the hyperparameter.
        importance: the share.
        interval: the 95 % bootstrap interval of the share.
        resamples: the share in each bootstrap sample of the trials.
    """

    sampler: str
    hyperparameter: str
    importance: float
    interval: tuple[float, float]
    resamples: list[float]


def explain(trials: Sequence[Trial], seed: int) -> list[Importance]:
    """Returns the importance of each hyperparameter that has more than one value in a grid.

    The shares of a sampler do not add up to 1 if hyperparameters interact. They are shares of the
    variance of the ranks of λ̂, so that a few very large λ̂ do not dominate. A trial with a diverged
    chain is ranked as if its λ̂ were infinite.

    Args:
        trials: the trials of a search; only those of a grid are used.
        seed: the seed of the bootstrap and of the random forests.
    """
    rows: list[Importance] = []
    grid = [trial for trial in trials if trial.proposed_by == "grid"]
    for sampler in dict.fromkeys(trial.sampler.sampler for trial in grid):
        mine = [trial for trial in grid if trial.sampler.sampler == sampler]
        configs = [asdict(trial.sampler) for trial in mine]
        columns = {name: _levels([config[name] for config in configs]) for name in configs[0]}
        columns = {name: level_N for name, level_N in columns.items() if level_N.any()}
        rank_N = stats.rankdata(
            [math.inf if t.outcome.diverged_chains else t.outcome.mean for t in mine]
        )
        generator = np.random.default_rng(derive(seed, "importances", sampler))
        draws = generator.integers(len(mine), size=(RESAMPLES, len(mine)))
        shares = fanova(columns, rank_N, seed)
        again = [
            fanova({name: level_N[draw] for name, level_N in columns.items()}, rank_N[draw], seed)
            for draw in draws
        ]
        for name in columns:
            resamples = [found[name] for found in again]
            low, high = np.quantile(resamples, [0.025, 0.975]).tolist()
            rows.append(Importance(sampler, name, shares[name], (low, high), resamples))
    return rows


def fanova(
    levels: Mapping[str, NDArray[np.int64]], values_N: NDArray[np.float64], seed: int
) -> dict[str, float]:
    """Returns the share of the variance of N values that each hyperparameter explains alone.

    Args:
        levels: for each hyperparameter, the index of its setting at each of the N values (N,).
        values_N: the values; if they are all equal, each share is 0.
        seed: the seed of the random forest.
    """
    if not np.ptp(values_N):
        return dict.fromkeys(levels, 0.0)
    space: dict[str, BaseDistribution] = {
        name: IntDistribution(0, max(int(level_N.max()), 1)) for name, level_N in levels.items()
    }
    study = optuna.create_study()
    for i, value in enumerate(values_N.tolist()):
        params = {name: int(level_N[i]) for name, level_N in levels.items()}
        study.add_trial(create_trial(params=params, distributions=space, value=value))
    forest = FanovaImportanceEvaluator(n_trees=TREES, seed=seed % 2**32)
    with warnings.catch_warnings():
        # Optuna calls shares that need not add up to 1 an experimental feature
        warnings.simplefilter("ignore")
        return get_param_importances(study, evaluator=forest, normalize=False)


def _levels(values: Sequence[object]) -> NDArray[np.int64]:
    """Returns the index of each value among the different values, in their order (N,)."""
    different = list(dict.fromkeys(values))
    return np.array([different.index(value) for value in values])
