"""The trials of a search: what is tried, what a trial is worth, and which setting is chosen.

The write-up's grids are tried whole. Beside them a sampler's own knobs are searched with
tree-structured Parzen estimators (TPE, Bergstra et al. 2011, by Optuna) at the family's posterior:
γ, μ and the box say what is sampled, and are not the search's to choose.

Effective draws per gradient evaluation (`efficiency`) alone choose badly. A chain of minute steps
shows nothing but the noise of its minibatches, which mixes at once, at a λ̂ near 0; and the larger
the step, the better the mixing, and the greater λ̂'s bias. R-hat sees neither. λ̂'s dependence on ε
shows both: λ̂ ∝ ε before equilibrium and λ̂ ∝ 1 + bε in it (SGLD's bias is of first order, Vollmer
et al. 2016), so that |d ln λ̂/d ln ε| is about the relative bias on either side of the plateau.
What a trial is worth (`accuracy`) is its expected relative error, that bias and the Monte-Carlo
error together; all trials spend the same number of gradients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, takewhile
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import xarray as xr
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from scipy import stats

from replicate.estimation import diagnostics, estimators
from replicate.sampling import Setting
from replicate.seeds import derive

optuna.logging.set_verbosity(optuna.logging.WARNING)

SamplerName = Literal["sgld", "sgnht", "rmsprop"]
Rule = Literal["accuracy", "efficiency", "stability"]
Evaluate = Callable[[Sequence[Setting]], Iterable["Outcome"]]  # in the settings' order


@dataclass(frozen=True)
class Outcome:
    """λ̂ of one setting, each chain on its own. efficiency: effective draws per gradient
    evaluation. noise: Monte-Carlo error over |λ̂|. penalty: 0 where the chains are healthy,
    otherwise how far they are from it, at most 2. NaN where a chain failed; `mean` and
    `standard_deviation` are then those of the others.
    """

    mean: float
    standard_deviation: float
    efficiency: float
    noise: float
    rhat: float
    drift_p: float
    penalty: float
    failed_chains: int

    @property
    def stability(self) -> float:
        """The write-up's measure: mean over standard deviation across chains."""
        whole = self.failed_chains == 0 and self.standard_deviation > 0
        return self.mean / self.standard_deviation if whole else float("nan")

    @property
    def healthy(self) -> bool:
        return self.penalty == 0


@dataclass(frozen=True)
class Attempt:
    proposed_by: Literal["grid", "tpe"]
    setting: Setting
    outcome: Outcome


def settings(sampler: SamplerName, grid: Mapping[str, Sequence[float | None]]) -> list[Setting]:
    """All combinations of a grid's values, the last key varying fastest."""
    return [
        Setting(sampler, **dict(zip(grid, values, strict=True)))
        for values in product(*grid.values())
    ]  # pyright: ignore[reportArgumentType]


def posterior(
    sampler: SamplerName, localization: float, weight_decay: float, bounding_box: float | None
) -> Setting:
    """What a sampler samples, its step size still to be found; SGNHT knows no pull but the box."""
    if sampler == "sgnht":
        return Setting(sampler, 0.0, bounding_box=bounding_box)
    return Setting(
        sampler,
        0.0,
        localization=localization,
        weight_decay=weight_decay,
        bounding_box=bounding_box,
    )


def outcome(
    trace: xr.Dataset, nbeta: float, baseline: float, *, rhat_below: float, drift_above: float
) -> Outcome:
    """What a setting's trace (group, chain, draw) shows, by the estimator `controlled`. Healthy: no
    chain failed, split R-hat below `rhat_below`, p of the drift test not below `drift_above`.
    """
    draws_CxD = estimators.controlled(trace, nbeta, baseline).values.reshape(
        -1, int((trace.draw >= 0).sum())
    )
    alive_C = np.isfinite(draws_CxD.mean(axis=1))
    chains, failed = draws_CxD[alive_C].mean(axis=1), int((~alive_C).sum())
    nan = float("nan")
    mean = float(chains.mean()) if len(chains) else nan
    spread = float(chains.std(ddof=1)) if len(chains) > 1 else nan
    if failed:
        return Outcome(mean, spread, nan, nan, nan, nan, 1 + failed / len(draws_CxD), failed)
    ess, rhat, p = (
        diagnostics.ess(draws_CxD),
        diagnostics.rhat(draws_CxD),
        diagnostics.drift(draws_CxD)[1],
    )
    mixing = 0.0 if rhat < rhat_below else 1 - rhat_below / rhat if rhat > rhat_below else 1.0
    drifting = 0.0 if p >= drift_above else 1 - p / drift_above if p < drift_above else 1.0
    return Outcome(
        mean=mean,
        standard_deviation=spread,
        efficiency=ess / (len(draws_CxD) * trace.sizes["draw"]),
        noise=float(draws_CxD.std() / np.sqrt(ess) / abs(mean)),
        rhat=rhat,
        drift_p=p,
        penalty=(mixing + drifting) / 2,
        failed_chains=0,
    )


def step_biases(attempts: Sequence[tuple[Setting, Outcome]]) -> list[float]:
    """|d ln λ̂/d ln ε| at each setting: of a straight line in ε through the trials of its sampler
    and posterior, with Gaussian weights of standard deviation ½ in ln ε. NaN where a chain failed
    or no other step size is there.
    """
    found = []
    for setting, result in attempts:
        near = [
            (other.lr / setting.lr, theirs.mean)
            for other, theirs in attempts
            if same_posterior(other, setting) and not theirs.failed_chains
        ]
        x, y = np.array(near).reshape(-1, 2).T
        if result.failed_chains or np.ptp(x) < 1e-6:
            found.append(float("nan"))
            continue
        covariance = np.cov(x, y, ddof=0, aweights=np.exp(-0.5 * (np.log(x) / 0.5) ** 2))
        found.append(
            abs(float(covariance[0, 1] / covariance[0, 0]) / result.mean)
            if result.mean
            else math.inf
        )
    return found


def worth(result: Outcome, step_bias: float) -> float:
    """Falls from 0 to −1 as the expected error grows, where a bias that is not known counts as 1;
    where the chains are not healthy it is lower by 1 and the penalty.
    """
    error = math.hypot(1.0 if math.isnan(step_bias) else step_bias, result.noise)
    fallen = 1.0 if math.isnan(error) else 1 - 1 / (1 + error)
    return -fallen - (0 if result.healthy else 1 + result.penalty)


def same_posterior(a: Setting, b: Setting) -> bool:
    """Whether two settings have the same sampler sample the same posterior."""
    return replace(a, lr=b.lr, diffusion=b.diffusion, noise_diffusion=b.noise_diffusion) == b


def choose(rule: Rule, attempts: Sequence[Attempt], posterior: Setting) -> int | None:
    """The setting that a rule chooses for the sampler of `posterior`, whose lr and diffusion do not
    matter; None where there is none.

    `stability` is the write-up's: the grid's greatest mean over standard deviation across chains,
    at whatever posterior. `efficiency`: most effective draws per gradient among healthy settings of
    this posterior. `accuracy`: the least expected error for the same gradients among them; where
    none is healthy, the one nearest to it.
    """
    if rule == "stability":
        values = [
            a.outcome.stability
            if a.proposed_by == "grid" and a.setting.sampler == posterior.sampler
            else math.nan
            for a in attempts
        ]
    elif rule == "efficiency":
        values = [
            a.outcome.efficiency
            if same_posterior(a.setting, posterior) and a.outcome.healthy
            else math.nan
            for a in attempts
        ]
    else:
        biases = step_biases([(attempt.setting, attempt.outcome) for attempt in attempts])
        values = [
            worth(a.outcome, bias)
            if same_posterior(a.setting, posterior) and not a.outcome.failed_chains
            else math.nan
            for a, bias in zip(attempts, biases, strict=True)
        ]
    return int(np.nanargmax(values)) if np.isfinite(values).any() else None


def journal(path: Path) -> JournalStorage:
    """Optuna's storage in a file with one writer. What a kill left there, a lock or a damaged line
    with all after it, is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.lock").unlink(missing_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(sum(map(len, takewhile(whole, file))))
    return JournalStorage(JournalFileBackend(str(path)))


def whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def propose(
    storage: optuna.storages.BaseStorage,
    template: Setting,
    ranges: Mapping[str, tuple[float, float]],
    evaluate: Evaluate,
    *,
    trials: int,
    batch: int,
    seed: int,
) -> list[tuple[Setting, Outcome]]:
    """`trials` settings that differ from `template` in the knobs of `ranges`, on the logarithmic
    scale, `batch` at a time: the first half spread evenly (Halton), the others proposed by TPE from
    those before their batch.

    One study per sampler in `storage`. What is there already is taken up, so that the same settings
    come out wherever the run before was cut off, and in whatever order a batch was evaluated.
    """
    space: dict[str, BaseDistribution] = {
        knob: FloatDistribution(low, high, log=True) for knob, (low, high) in ranges.items()
    }
    study = optuna.create_study(
        storage=storage, study_name=template.sampler, direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if trial.params.keys() != space.keys():
            study.tell(
                trial.number, state=TrialState.FAIL
            )  # cut off while it was being proposed: proposed again below

    even = stats.qmc.Halton(len(space), scramble=False).random(-(-trials // 2) + 1)[
        1:
    ]  # the first point is the corner
    done: list[tuple[Setting, Outcome]] = []
    while len(done) < trials:
        upto = min(len(done) + batch, trials)
        for number in range(len(proposed(study)), upto):
            if number < len(even):
                point = {
                    knob: low * (high / low) ** u
                    for (knob, (low, high)), u in zip(ranges.items(), even[number], strict=True)
                }
                study.add_trial(
                    create_trial(state=TrialState.RUNNING, params=point, distributions=space)
                )
            else:
                random = derive(seed, "tpe", template.sampler, number) % 2**32
                study.sampler = optuna.samplers.TPESampler(
                    n_startup_trials=1, constant_liar=True, seed=random
                )
                study.ask(space)
        latest = proposed(study)[len(done) : upto]
        candidates = [replace(template, **trial.params) for trial in latest]
        done += zip(candidates, evaluate(candidates), strict=True)
        for trial, (_, result), bias in zip(
            latest, done[-len(latest) :], step_biases(done)[-len(latest) :], strict=True
        ):
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, worth(result, bias))
    return done


def proposed(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=[TrialState.RUNNING, TrialState.COMPLETE])
