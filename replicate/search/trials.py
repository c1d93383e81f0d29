"""Proposes the trials of a search, rates them, and chooses a sampler.

All combinations of the write-up's grids are tried. In addition, tree-structured Parzen estimators
(TPE, Bergstra et al. 2011, by Optuna) search a sampler's own hyperparameters at the family's
posterior. γ, μ and the box determine the posterior, so the search must not choose them.

The number of effective draws per gradient evaluation (`efficiency`) is not a sufficient criterion.
A chain with tiny steps hardly leaves w*: λ̂ is near 0, and the losses vary only because minibatches
differ, so the draws look independent. Larger steps mix better, but they increase the bias of λ̂.
R-hat detects neither problem. The dependence of λ̂ on ε shows both: λ̂ ∝ ε before equilibrium, and
λ̂ ∝ 1 + bε in equilibrium (SGLD's bias is of first order in ε, Vollmer et al. 2016). So
|d ln λ̂/d ln ε| is about the relative bias on either side of the plateau. The rule `accuracy` rates
a trial by its expected relative error, which combines that bias with the Monte-Carlo error. All
trials use the same number of gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
import optuna
import xarray as xr
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from scipy import stats

from replicate.estimation import diagnostics, estimators
from replicate.sampling import SamplerConfig
from replicate.seeds import derive

optuna.logging.set_verbosity(optuna.logging.WARNING)

Rule = Literal["accuracy", "efficiency", "stability"]
Evaluate = Callable[[Sequence[SamplerConfig]], Iterable["Outcome"]]  # in the order of the samplers
NAN = float("nan")


@dataclass(frozen=True)
class Outcome:
    """Holds λ̂ of one sampler and the diagnostics of its chains; each chain gives one λ̂.

    If a chain diverged, `mean` and `standard_deviation` are those of the other chains, and
    `efficiency`, `noise`, `rhat` and `drift_p` are NaN.

    Attributes:
        mean: the mean of λ̂ across chains.
        standard_deviation: the standard deviation of λ̂ across chains.
        efficiency: effective draws per gradient evaluation.
        noise: the Monte-Carlo error of λ̂ divided by |λ̂|.
        rhat: split R-hat.
        drift_p: p value of the drift test.
        penalty: 0 if the chains are healthy; otherwise up to 2, and larger for worse chains.
        diverged_chains: the number of chains that diverged.
        fault: why no rule may choose the sampler, with a remedy; empty if a rule may.
    """

    mean: float
    standard_deviation: float
    efficiency: float
    noise: float
    rhat: float
    drift_p: float
    penalty: float
    diverged_chains: int
    fault: str = ""

    @property
    def stability(self) -> float:
        """The write-up's measure, mean over standard deviation of chains; NaN if one diverged."""
        known = self.diverged_chains == 0 and self.standard_deviation > 0
        return self.mean / self.standard_deviation if known else NAN

    @property
    def healthy(self) -> bool:
        """Whether no chain diverged and R-hat and drift are within their limits."""
        return self.penalty == 0


@dataclass(frozen=True)
class Trial:
    """Holds a sampler that was tried, and its outcome."""

    proposed_by: Literal["grid", "tpe"]
    sampler: SamplerConfig
    outcome: Outcome


def settings(sampler: str, grid: Mapping[str, Sequence[float | None]]) -> list[SamplerConfig]:
    """Returns all combinations of a grid's values; the last key varies fastest."""
    return [
        SamplerConfig(sampler, **dict(zip(grid, values, strict=True)))  # pyright: ignore[reportArgumentType]
        for values in product(*grid.values())
    ]


def posterior(
    sampler: str, localization: float, weight_decay: float, bounding_box: float | None
) -> SamplerConfig:
    """Returns the sampler at the family's posterior; its step size of 0 is only a placeholder.

    SGNHT has neither localization nor weight decay, so only the box applies to it.
    """
    if sampler == "sgnht":
        return SamplerConfig(sampler, 0.0, bounding_box=bounding_box)
    return SamplerConfig(sampler, 0.0, weight_decay, localization, bounding_box)


def outcome(
    trace: xr.Dataset,
    nbeta: float,
    baseline: float,
    *,
    rhat_below: float,
    drift_above: float,
    guess: float = NAN,
    local: float = 1.0,
) -> Outcome:
    """Computes the outcome of a trial from its trace, by the estimator `controlled`.

    Args:
        trace: what `sampling.sample` returned (shuffle, chain, draw).
        nbeta: nβ of the chains.
        baseline: the mean loss at w* over all examples (nats per label).
        rhat_below: in healthy chains, split R-hat is below this limit.
        drift_above: in healthy chains, the p value of the drift test is not below this limit.
        guess: the loss of guessing (nats per label); NaN if it is unknown.
        local: the greatest rise of the loss of local chains, as a share of the rise to `guess`.
    """
    values = estimators.controlled(trace, nbeta, baseline)
    draws_CxD = values.values.reshape(-1, values.sizes["draw"])
    alive_C = np.isfinite(draws_CxD.mean(axis=1))
    chains, diverged = draws_CxD[alive_C].mean(axis=1), int((~alive_C).sum())
    mean = float(chains.mean()) if len(chains) else NAN
    spread = float(chains.std(ddof=1)) if len(chains) > 1 else NAN
    if diverged:
        penalty = 1 + diverged / len(draws_CxD)
        fault = "chains diverged: add smaller lr"
        return Outcome(mean, spread, NAN, NAN, NAN, NAN, penalty, diverged, fault)
    ess, rhat = diagnostics.ess(draws_CxD), diagnostics.rhat(draws_CxD)
    p = diagnostics.drift(draws_CxD)[1]
    # 0 within the limits; a diagnostic that is NaN counts as the worst
    excess = np.nan_to_num([1 - rhat_below / rhat, 1 - p / drift_above], nan=1.0).clip(min=0)
    efficiency = ess / (len(draws_CxD) * trace.sizes["draw"])
    noise = float(draws_CxD.std() / np.sqrt(ess) / abs(mean))
    loss_CxT, burn_in = trace.loss.values.reshape(len(draws_CxD), -1), int((trace.draw < 0).sum())
    fault = ""
    if estimators.still(trace):
        fault = "chains did not leave w*: add larger lr"
    elif diagnostics.escape(loss_CxT, burn_in, baseline, guess) > local:
        fault = "chains are not local: raise sampling.localization or sampling.nbeta"
    return Outcome(mean, spread, efficiency, noise, rhat, p, float(excess.mean()), 0, fault)


def step_biases(trials: Sequence[Trial]) -> list[float]:
    """Returns |d ln λ̂/d ln ε| at each trial.

    It is the slope of a straight line of λ̂ in ε, relative to the trial's λ̂. The line is fitted to
    the trials of the same sampler and posterior, with Gaussian weights of standard deviation ½ in
    ln ε. Trials with a diverged chain are left out. The slope is NaN if a chain of the trial itself
    diverged, or if all trials to which the line is fitted have the same step size.
    """
    found = []
    for trial in trials:
        near = [
            (other.sampler.lr / trial.sampler.lr, other.outcome.mean)
            for other in trials
            if same_posterior(other.sampler, trial.sampler) and not other.outcome.diverged_chains
        ]
        x, y = np.array(near).reshape(-1, 2).T
        if trial.outcome.diverged_chains or np.ptp(x) < 1e-6:
            found.append(NAN)
            continue
        covariance = np.cov(x, y, ddof=0, aweights=np.exp(-0.5 * (np.log(x) / 0.5) ** 2))
        slope, mean = float(covariance[0, 1] / covariance[0, 0]), trial.outcome.mean
        found.append(abs(slope / mean) if mean else math.inf)
    return found


def expected_error(outcome: Outcome, step_bias: float) -> float:
    """Returns the expected relative error of λ̂; an unknown bias (NaN) counts as 1."""
    return math.hypot(1.0 if math.isnan(step_bias) else step_bias, outcome.noise)


def worth(outcome: Outcome, step_bias: float) -> float:
    """Rates a trial by its expected relative error: 0 without error, −1 if it is infinite.

    If the chains are not healthy, 1 + penalty is subtracted.
    """
    error = expected_error(outcome, step_bias)
    fallen = 1.0 if math.isnan(error) else 1 - 1 / (1 + error)
    return -fallen - (0 if outcome.healthy else 1 + outcome.penalty)


def same_posterior(a: SamplerConfig, b: SamplerConfig) -> bool:
    """Returns whether two samplers are of the same kind and sample the same posterior."""
    return replace(a, lr=b.lr, diffusion=b.diffusion, noise_diffusion=b.noise_diffusion) == b


def choose(rule: Rule, trials: Sequence[Trial], posterior: SamplerConfig) -> int | None:
    """Returns the index of the trial that a rule chooses.

    Args:
        rule: `stability`, the write-up's rule, takes the sampler's grid trial with the largest mean
            over standard deviation across chains, at any posterior. `efficiency` takes the healthy
            trial of this posterior whose number of effective draws per gradient is largest.
            `accuracy` takes the healthy trial of this posterior with the smallest expected error;
            if none is healthy, it takes the trial of this posterior that `worth` rates best. No
            rule takes a trial that has a `fault`.
        trials: all trials of a search.
        posterior: the sampler at the family's posterior; its lr and diffusion are ignored.

    Returns:
        The index; None if the rule can choose no trial.
    """

    def value(trial: Trial, bias: float) -> float:
        found = trial.outcome
        if found.fault:
            return NAN
        if rule == "stability":
            mine = trial.proposed_by == "grid" and trial.sampler.sampler == posterior.sampler
            return found.stability if mine else NAN
        if not same_posterior(trial.sampler, posterior):
            return NAN
        if rule == "efficiency":
            return found.efficiency if found.healthy else NAN
        return NAN if found.diverged_chains else worth(found, bias)

    values = [value(*pair) for pair in zip(trials, step_biases(trials), strict=True)]
    return int(np.nanargmax(values)) if np.isfinite(values).any() else None


def propose(
    template: SamplerConfig,
    ranges: Mapping[str, tuple[float, float]],
    evaluate: Evaluate,
    *,
    trials: int,
    batch: int,
    seed: int,
) -> list[Trial]:
    """Searches hyperparameters of a sampler on a logarithmic scale.

    The first half of the trials is spread evenly (Halton). TPE proposes the others, each from the
    trials of earlier batches. The same seed and outcomes give the same proposals, so an interrupted
    search can be repeated with the outcomes that are already known.

    Args:
        template: the sampler whose hyperparameters are varied.
        ranges: the smallest and the largest value of each hyperparameter.
        evaluate: returns the outcomes of a batch of samplers.
        trials: the number of trials.
        batch: the number of trials that are proposed together.
        seed: the seed of TPE.

    Returns:
        The trials, in the order in which they were proposed.
    """
    space: dict[str, BaseDistribution] = {
        knob: FloatDistribution(low, high, log=True) for knob, (low, high) in ranges.items()
    }
    study = optuna.create_study(direction="maximize")
    # the first point of the sequence is a corner of the ranges, so it is skipped
    even = stats.qmc.Halton(len(space), scramble=False).random(-(-trials // 2) + 1)[1:]
    done: list[Trial] = []
    while len(done) < trials:
        first, last = len(done), min(len(done) + batch, trials)
        for number in range(first, last):
            if number < len(even):
                pairs = zip(ranges.items(), even[number], strict=True)
                study.enqueue_trial(
                    {knob: low * (high / low) ** u for (knob, (low, high)), u in pairs}
                )
            own = derive(seed, "tpe", template.sampler, number) % 2**32
            study.sampler = TPESampler(n_startup_trials=1, constant_liar=True, seed=own)
            study.ask(space)
        samplers = [replace(template, **trial.params) for trial in study.trials[first:last]]
        outcomes = evaluate(samplers)
        done += [Trial("tpe", *pair) for pair in zip(samplers, outcomes, strict=True)]
        biases = step_biases(done)[first:]
        for number, (trial, bias) in enumerate(zip(done[first:], biases, strict=True), first):
            study.tell(number, worth(trial.outcome, bias))
    return done
