"""Estimates λ̂ from the traces that `sampling.sample` records. All functions are pure.

λ̂ = nβ·(E_w[L(w)] − L(w*)) (Lau et al. 2023, arXiv 2308.12108). The estimators differ in what they
use as L(w*) and in what they average. Chains that diverged are left out of averages and counted.
An estimator that leaves out anything else says so below.

`controlled`  L(w*) is the mean loss L̄₀ over all examples. The loss of the same minibatch at w*
              corrects each draw: λ̂ = nβ·mean[L_t(B_t) − L̄₀ − c·(L₀(B_t) − L̄₀)]. Least squares over
              the pooled draws gives c.
`paired`      the same with c = 1 (common random numbers).
`plain`       the same with c = 0.
`devinterp`   L(w*) is the mean, over all chains, of the losses of a chain's first 32 minibatches at
              w*. All steps are averaged, burn-in included.
`published`   the estimator of the study of 2023. L(w*) is the loss of one minibatch: the first
              draw of chain 0 after the burn-in. The losses of each chain are clipped at a quantile
              of its own losses. The factor is n/ln n, whatever nβ the chain had. Only shuffles with
              λ̂ > 0 are averaged.

The control variate removes the share ρ² of the variance of the draws, where ρ is the correlation of
L_t(B_t) with L₀(B_t). This is nearly all of it while a chain is close to w*, and little when it has
moved far away (docs/explanation/estimators.md derives it).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from replicate.estimation import diagnostics

NAMES = ("controlled", "paired", "plain", "devinterp", "published")
INIT_BATCHES = 32  # minibatches of each chain in devinterp's baseline
FITTED = 8  # draws of all chains, from which c is fitted
CLIP_QUANTILE = 0.95  # the quantile of the GPT-2 runs of the study of 2023

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """Holds an estimate of λ̂ and the diagnostics of its chains.

    Attributes:
        llc: λ̂ (no unit).
        standard_error: between shuffles, or between chains if there is one shuffle.
        monte_carlo_error: the standard error due to the draws, from their effective number.
        interval: 95 % interval of λ̂.
        shuffles: λ̂ of each shuffle (S,).
        ess: effective number of draws of all chains together.
        rhat: split R-hat over all chains.
        drift: change of λ̂ from the first to the second half of the draws.
        drift_p: p value of that change.
        evaluations: number of steps, over all chains, that would reduce the standard error to 1 %
            of λ̂ with the same configuration. Each step evaluates one minibatch gradient.
        chains: number of chains, diverged ones included.
        diverged_chains: number of chains that diverged.
    """

    llc: float
    standard_error: float
    monte_carlo_error: float
    interval: tuple[float, float]
    shuffles: Array
    ess: float
    rhat: float
    drift: float
    drift_p: float
    evaluations: float
    chains: int
    diverged_chains: int


def coefficient(trace: xr.Dataset, baseline: float) -> float:
    """Returns c of the control variate: the least-squares slope of L_t(B_t) on L₀(B_t).

    It is 0 if L₀(B_t) does not vary, or if all chains diverged. It is 1 for fewer than `FITTED`
    draws, through which a line goes too well.
    """
    draws = _draws(trace)
    y, x = draws.loss.values.ravel() - baseline, draws.init_loss.values.ravel() - baseline
    known = np.isfinite(y)
    if 0 < known.sum() < FITTED:
        return 1.0
    spread = np.var(x[known]) if known.any() else 0.0
    return float(np.cov(y[known], x[known], bias=True)[0, 1] / spread) if spread > 0 else 0.0


def explained(trace: xr.Dataset, baseline: float) -> float:
    """Returns ρ², the share of the draws' variance that the fitted control variate removes.

    It is NaN if the draws do not vary. `baseline` is L̄₀ (nats per label).
    """
    plain, fitted = (float(controlled(trace, 1.0, baseline, c).var()) for c in (0.0, None))
    return 1 - fitted / plain if plain > 0 else float("nan")


def controlled(
    trace: xr.Dataset, nbeta: float, baseline: float, c: float | None = None
) -> xr.DataArray:
    """Returns nβ·(L_t − L̄₀ − c·(L₀ − L̄₀)) of every draw (shuffle, chain, draw).

    Args:
        trace: what `sampling.sample` returned.
        nbeta: nβ of the chains.
        baseline: L̄₀, the mean loss at w* over all examples (nats per label).
        c: the coefficient of the control variate; fitted if None.

    Returns:
        The contribution of each draw to λ̂, which is NaN in all draws of a chain that diverged.
    """
    c = coefficient(trace, baseline) if c is None else c
    draws = _draws(trace)
    return nbeta * (draws.loss - baseline - c * (draws.init_loss - baseline))


def devinterp(trace: xr.Dataset, nbeta: float) -> xr.DataArray:
    """Returns nβ·(L_t − L(w*)) of every step (shuffle, chain, draw), burn-in included.

    L(w*) is that of `devinterp.slt.llc.compute_llc`, described above.
    """
    steps = trace.where(~trace.diverged)
    return nbeta * (steps.loss - float(steps.init_loss.isel(draw=slice(0, INIT_BATCHES)).mean()))


def published(trace: xr.Dataset, examples: int, quantile: float = CLIP_QUANTILE) -> xr.DataArray:
    """Returns (n/ln n)·(clipped L_t − L of the first draw of chain 0) of every draw.

    Args:
        trace: what `sampling.sample` returned.
        examples: n, the number of labels.
        quantile: the quantile of a chain's losses at which they are clipped.

    Returns:
        The contribution of each draw to λ̂ (shuffle, chain, draw).
    """
    draws = _draws(trace).loss
    baseline = draws.isel(chain=0, draw=0, drop=True)
    return examples / np.log(examples) * (_clipped(draws, quantile) - baseline)


def clipping(
    trace: xr.Dataset, nbeta: float, baseline: float, quantile: float = CLIP_QUANTILE
) -> Array:
    """Returns the relative change of each shuffle's λ̂ (S,) if its chains' losses were clipped.

    The arguments are those of `controlled` and `published`. The change is NaN for a shuffle with a
    chain that diverged.
    """
    draws, dims = _draws(trace).loss, ("chain", "draw")
    change = (_clipped(draws, quantile) - draws).mean(dims, skipna=False)
    llc = controlled(trace, nbeta, baseline).mean(dims, skipna=False)
    return (nbeta * change / llc).values


def summarise(
    values: xr.DataArray, positive_only: bool = False, burn_in: int = 0, halves: bool = False
) -> Result:
    """Estimates λ̂ from the contribution of every draw (shuffle, chain, draw).

    The standard error is that of the mean of the shuffles, or of the chains if there is one
    shuffle. The interval is Student's t interval. The chains are too short if the Monte-Carlo error
    (standard deviation of the draws over the square root of their effective number) is larger than
    the standard error.

    Args:
        values: what `controlled`, `devinterp` or `published` returns.
        positive_only: whether only shuffles with λ̂ > 0 are averaged.
        burn_in: steps of each chain that `evaluations` counts in addition to the draws.
        halves: whether the halves of each chain are independent, as they are if it is at least ten
            relaxation times long. Then the standard error is the larger of the one above and that
            of the means of all halves, and Student's t has the latter's degrees of freedom.
    """
    chains_N = values.mean("draw").values.ravel()
    alive = np.isfinite(chains_N)
    with warnings.catch_warnings():
        # the mean of a shuffle whose chains all diverged is meant to be NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        shuffles_S = np.nanmean(values.mean("draw").values, axis=1)
    used = np.isfinite(shuffles_S) & ((shuffles_S > 0) | (not positive_only))
    draws_CxD = values.values.reshape(len(chains_N), -1)[alive]
    ess, rhat = diagnostics.ess(draws_CxD), diagnostics.rhat(draws_CxD)
    drift, drift_p = diagnostics.drift(draws_CxD)
    replicates = shuffles_S[used] if used.sum() > 1 else chains_N[alive]
    llc = error = monte_carlo = float("nan")
    if used.any():
        llc = float(np.mean(shuffles_S[used]))
        monte_carlo = float(np.std(draws_CxD) / np.sqrt(ess))
        if len(replicates) > 1:
            error = float(stats.sem(replicates))
        if halves:
            replicates = _halves(values.values[used], draws_CxD)
            error = float(np.fmax(error, stats.sem(replicates)))
    half = float(stats.t.ppf(0.975, max(len(replicates) - 1, 1))) * error
    steps = len(chains_N) * (values.sizes["draw"] + burn_in)
    return Result(
        llc=llc,
        standard_error=error,
        monte_carlo_error=monte_carlo,
        interval=(llc - half, llc + half),
        shuffles=shuffles_S,
        ess=ess,
        rhat=rhat,
        drift=drift,
        drift_p=drift_p,
        evaluations=steps * (error / (0.01 * llc)) ** 2 if llc else float("nan"),
        chains=len(chains_N),
        diverged_chains=int((~alive).sum()),
    )


def _halves(values_SxCxD: Array, draws_CxD: Array) -> Array:
    """Returns the means of the halves of each shuffle, or of each chain if there is one shuffle."""
    draws_RxD = draws_CxD
    if len(values_SxCxD) > 1:
        draws_RxD = np.nanmean(values_SxCxD, axis=1)
    return np.concatenate([half.mean(axis=1) for half in np.array_split(draws_RxD, 2, axis=1)])


def variance(result: Result) -> float:
    """Returns the variance of λ̂ over the shuffles with a finite λ̂; NaN for fewer than two."""
    alive = result.shuffles[np.isfinite(result.shuffles)]
    return float(np.var(alive, ddof=1)) if len(alive) > 1 else float("nan")


def estimates(
    trace: xr.Dataset,
    *,
    nbeta: float,
    examples: int,
    baseline: float,
    quantile: float = CLIP_QUANTILE,
) -> dict[str, Result]:
    """Applies every estimator of `NAMES` to the same trace.

    Args:
        trace: what `sampling.sample` returned.
        nbeta: nβ of the chains.
        examples: n, the number of labels.
        baseline: L̄₀, the mean loss at w* over all examples (nats per label).
        quantile: the quantile at which `published` clips the losses of a chain.

    Returns:
        The result of each estimator, by its name.
    """
    burn_in = int((trace.draw < 0).sum())
    return {
        "controlled": summarise(controlled(trace, nbeta, baseline), burn_in=burn_in),
        "paired": summarise(controlled(trace, nbeta, baseline, c=1.0), burn_in=burn_in),
        "plain": summarise(controlled(trace, nbeta, baseline, c=0.0), burn_in=burn_in),
        "devinterp": summarise(devinterp(trace, nbeta)),
        "published": summarise(published(trace, examples, quantile), True, burn_in),
    }


def still(trace: xr.Dataset) -> bool:
    """Returns whether the chains did not leave w*.

    This is so if the median difference between a draw's loss and the loss of the same minibatch at
    w* is not larger than rounding explains.
    """
    draws, dtype = _draws(trace), trace.attrs.get("task", {}).get("compute_dtype")
    rounding = 1e-3 if dtype == "bfloat16" else 1e-6  # relative, of a minibatch's loss
    least = rounding * abs(draws.init_loss).mean()
    return bool(abs(draws.loss - draws.init_loss).median() <= least)


def running(values: xr.DataArray) -> tuple[Array, Array]:
    """Returns λ̂ from all draws up to each draw, and its standard error, both (draw,).

    `values` is what `controlled` returns. The standard error is that of the mean of the shuffles;
    it is NaN if there is one shuffle.
    """
    shuffles, draws = values.sizes["shuffle"], values.sizes["draw"]
    mean_SxD = values.mean("chain").values.cumsum(axis=1) / np.arange(1, draws + 1)
    if shuffles == 1:
        return mean_SxD[0], np.full(draws, np.nan)
    return mean_SxD.mean(axis=0), mean_SxD.std(axis=0, ddof=1) / np.sqrt(shuffles)


def _draws(trace: xr.Dataset) -> xr.Dataset:
    """Leaves the burn-in out and replaces the values of diverged chains by NaN."""
    return trace.where(~trace.diverged).sel(draw=slice(0, None))


def _clipped(draws: xr.DataArray, quantile: float) -> xr.DataArray:
    return draws.clip(max=draws.quantile(quantile, dim="draw").drop_vars("quantile"))
