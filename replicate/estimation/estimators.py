"""λ̂ from traces: pure functions of what `sampling.sample` recorded.

λ̂ = nβ·(E_w[L(w)] − L(w*)) (Lau et al. 2023, arXiv 2308.12108). The estimators differ in what they
take for L(w*) and in what they average; a chain that failed is left out of the average and counted,
and nothing else is left out but by the one whose name says so.

`controlled`  L(w*) is the mean loss L̄₀ over all examples, and each draw is corrected by its own
              minibatch's luck at w*:
              λ̂ = nβ·mean[L_t(B_t) − L̄₀ − c·(L₀(B_t) − L̄₀)], c fitted by least squares over the
              pooled draws; `paired` is the same with c = 1 (common random numbers), `plain` with c
              = 0.
`devinterp`   L(w*) is the mean of the first 32 minibatches' losses at w*; all steps are averaged,
              burn-in included.
`published`   the original study's: L(w*) is one minibatch, that of the first draw of chain 0, after
              burn-in; each chain is clipped at its
              own quantile; the factor is n/ln n whatever nβ the chain had; only groups with λ̂ > 0
              are averaged.

The control variate takes the share ρ² from the variance of the draws, ρ the correlation of L_t(B_t)
with L₀(B_t): nearly all of it while a chain is still close to w*, little where it has gone far
(docs/estimators.md derives it and measures both).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from replicate.estimation import diagnostics

INIT_BATCHES = 32  # of devinterp's baseline
CLIP_QUANTILE = 0.95  # of the original study's GPT-2 runs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """λ̂ (no unit), its standard error and 95 % interval, its value in each group, and the health
    of the chains it is from.

    drift: change of λ̂ from the first to the second half of the draws, drift_p its p value.
    evaluations: gradient evaluations for a standard error of 1 % of λ̂, were the chains continued
    as they are.
    """

    llc: float
    standard_error: float
    monte_carlo_error: float
    interval: tuple[float, float]
    groups: Array
    ess: float
    rhat: float
    drift: float
    drift_p: float
    evaluations: float
    chains: int
    failed_chains: int


def coefficient(trace: xr.Dataset, baseline: float) -> float:
    """c of the control variate: the least-squares slope of L_t(B_t) on L₀(B_t) over the pooled
    draws of whole chains.
    """
    draws = trace.where(~trace.failed).sel(draw=slice(0, None))
    y, x = draws.loss.values.ravel() - baseline, draws.init_loss.values.ravel() - baseline
    whole = np.isfinite(y)
    spread = np.var(x[whole]) if whole.any() else 0.0
    return float(np.cov(y[whole], x[whole], bias=True)[0, 1] / spread) if spread > 0 else 0.0


def explained(trace: xr.Dataset, baseline: float) -> float:
    """ρ²: the share of the draws' variance that the control variate with fitted c takes away; NaN
    where there is none.
    """
    plain, fitted = (float(controlled(trace, 1.0, baseline, c).var()) for c in (0.0, None))
    return 1 - fitted / plain if plain > 0 else float("nan")


def controlled(
    trace: xr.Dataset, nbeta: float, baseline: float, c: float | None = None
) -> xr.DataArray:
    """nβ·(L_t − L̄₀ − c·(L₀ − L̄₀)) of every draw (group, chain, draw); NaN throughout a failed
    chain.
    """
    c = coefficient(trace, baseline) if c is None else c
    draws = trace.where(~trace.failed).sel(draw=slice(0, None))
    return nbeta * (draws.loss - baseline - c * (draws.init_loss - baseline))


def devinterp(trace: xr.Dataset, nbeta: float) -> xr.DataArray:
    """nβ·(L_t − init loss) of every step, burn-in included, as `devinterp.slt.llc.compute_llc` has
    it.
    """
    steps = trace.where(~trace.failed)
    return nbeta * (steps.loss - float(steps.init_loss.isel(draw=slice(0, INIT_BATCHES)).mean()))


def published(trace: xr.Dataset, examples: int, quantile: float = CLIP_QUANTILE) -> xr.DataArray:
    """(n/ln n)·(clipped L_t − L of the first draw of chain 0) of every draw (group, chain,
    draw).
    """
    draws = trace.where(~trace.failed).sel(draw=slice(0, None)).loss
    clipped = np.minimum(draws, draws.quantile(quantile, dim="draw").drop_vars("quantile"))
    return examples / np.log(examples) * (clipped - draws.isel(chain=0, draw=0, drop=True))


def clipping(
    trace: xr.Dataset, nbeta: float, baseline: float, quantile: float = CLIP_QUANTILE
) -> Array:
    """Relative change of λ̂ of each group (group,) where each chain's losses are clipped at its
    quantile; NaN where a chain failed.
    """
    draws = trace.loss.where(~trace.failed).sel(draw=slice(0, None))
    change = np.minimum(draws, draws.quantile(quantile, dim="draw").drop_vars("quantile")) - draws
    whole = controlled(trace, nbeta, baseline)
    return (
        nbeta
        * change.mean(("chain", "draw"), skipna=False)
        / whole.mean(("chain", "draw"), skipna=False)
    ).values


def summarise(values: xr.DataArray, positive_only: bool = False, burn_in: int = 0) -> Result:
    """λ̂ from the contribution of every draw (group, chain, draw); `burn_in` steps a chain are
    counted in `evaluations` besides.

    The standard error is that of the mean of the groups (their standard deviation over the square
    root of their number), or of the chains where there is one group; the interval is Student's. The
    Monte-Carlo error (the draws' standard deviation over the square root of their effective number)
    stands beside it: where it is the larger of the two, the chains are too short.
    """
    chains_N = values.mean("draw").values.ravel()
    alive = np.isfinite(chains_N)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # the mean of a group whose chains all failed is NaN, and meant to be
        groups_G = np.nanmean(values.mean("draw").values, axis=1)
    used = np.isfinite(groups_G) & ((groups_G > 0) | (not positive_only))
    draws_CxD = values.values.reshape(len(chains_N), -1)[alive]
    ess, rhat = diagnostics.ess(draws_CxD), diagnostics.rhat(draws_CxD)
    replicates = groups_G[used] if used.sum() > 1 else chains_N[alive]
    nan = float("nan")
    llc = float(np.mean(groups_G[used])) if used.any() else nan
    error = (
        float(np.std(replicates, ddof=1) / np.sqrt(len(replicates)))
        if used.any() and len(replicates) > 1
        else nan
    )
    monte_carlo = float(np.std(draws_CxD) / np.sqrt(ess)) if used.any() else nan
    half = float(stats.t.ppf(0.975, max(len(replicates) - 1, 1))) * error
    drift, drift_p = diagnostics.drift(draws_CxD)
    steps = len(chains_N) * (values.sizes["draw"] + burn_in)
    return Result(
        llc=llc,
        standard_error=error,
        monte_carlo_error=monte_carlo,
        interval=(llc - half, llc + half),
        groups=groups_G,
        ess=ess,
        rhat=rhat,
        drift=drift,
        drift_p=drift_p,
        evaluations=steps * (error / (0.01 * llc)) ** 2 if llc else nan,
        chains=len(chains_N),
        failed_chains=int((~alive).sum()),
    )


def variance(result: Result) -> float:
    """Of λ̂ over groups, unfiltered (its square unit is λ̂'s); NaN where fewer than two have
    one.
    """
    alive = result.groups[np.isfinite(result.groups)]
    return float(np.var(alive, ddof=1)) if len(alive) > 1 else float("nan")


def estimates(
    trace: xr.Dataset,
    *,
    nbeta: float,
    examples: int,
    baseline: float,
    quantile: float = CLIP_QUANTILE,
) -> dict[str, Result]:
    """Every estimator on the same trace. `examples`: n, the number of texts; `baseline`: L̄₀ (nats
    per label).
    """
    named: dict[str, Callable[[], xr.DataArray]] = {
        "controlled": lambda: controlled(trace, nbeta, baseline),
        "paired": lambda: controlled(trace, nbeta, baseline, c=1.0),
        "plain": lambda: controlled(trace, nbeta, baseline, c=0.0),
        "devinterp": lambda: devinterp(trace, nbeta),
        "published": lambda: published(trace, examples, quantile),
    }
    burn_in = int((trace.draw < 0).sum())
    return {
        name: summarise(
            values(),
            positive_only=name == "published",
            burn_in=0 if name == "devinterp" else burn_in,
        )
        for name, values in named.items()
    }


def running(values: xr.DataArray) -> tuple[Array, Array]:
    """λ̂ of the draws so far and its standard error between groups, both (draw,)."""
    mean_GxD = values.mean("chain").values.cumsum(axis=1) / np.arange(1, values.sizes["draw"] + 1)
    groups = len(mean_GxD)
    error_D = (
        mean_GxD.std(axis=0, ddof=1) / np.sqrt(groups)
        if groups > 1
        else np.full(mean_GxD.shape[1], np.nan)
    )
    return mean_GxD.mean(axis=0), error_D


NAMES = ("controlled", "paired", "plain", "devinterp", "published")
