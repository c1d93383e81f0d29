"""What the original protocol's one baseline minibatch does to λ̂, from traces of that protocol.
Pure.

Its λ̂ of a shuffle is F·(mean_t L_t(B_t) − L(B₀)), F = n/ln n, with B₀ the minibatch of the first
draw of chain 0. While the chain is still close to w* (it is: ε = 1e-7) that is F·(L̄₀ − L₀(B₀))
plus little: the luck of one minibatch, which all models of a family share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.estimation import estimators

Array = NDArray[np.float64]
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Reexamination:
    """groups: λ̂ as published of each shuffle; deviations: its standard deviation across chains;
    luck: F·(L̄₀ − L₀(B₀)); controlled: λ̂ of the same draws by `controlled` at the sampler's nβ,
    all (group,). r_squared: squared correlation of groups and luck. explained: ρ² of the control
    variate. spread: standard deviation over shuffles with the mean of each of `BATCHES` minibatches
    for a baseline. padded_variance: squared correlation of a minibatch's loss at w* with its number
    of padded labels, 0 where none is padded.
    """

    groups: Array
    deviations: Array
    luck: Array
    controlled: Array
    r_squared: float
    explained: float
    spread: Array
    padded_variance: float


def factor(texts: int) -> float:
    """n/ln n."""
    return float(texts / np.log(texts))


def reexamine(
    trace: xr.Dataset, *, nbeta: float, texts: int, loss: float, quantile: float
) -> Reexamination:
    """`trace`: chains of the original protocol with `padded`, the number of padded labels of each
    minibatch; `loss`: L̄₀ (nats).
    """
    draws = trace.where(~trace.failed).sel(draw=slice(0, None))
    chains_GxC = estimators.published(trace, texts, quantile).mean("draw").values
    groups = chains_GxC.mean(axis=1)
    luck = factor(texts) * (loss - draws.init_loss.isel(chain=0, draw=0).values)
    padded, init = trace.padded.values.ravel(), trace.init_loss.values.ravel()
    return Reexamination(
        groups=groups,
        deviations=chains_GxC.std(axis=1, ddof=1),
        luck=luck,
        controlled=estimators.controlled(trace, nbeta, loss).mean(("chain", "draw")).values,
        r_squared=squared_correlation(groups, luck),
        explained=estimators.explained(trace, loss),
        spread=spread(draws, texts, quantile, BATCHES),
        padded_variance=squared_correlation(padded, init) if padded.any() else 0.0,
    )


def spread(draws: xr.Dataset, texts: int, quantile: float, batches: Sequence[int]) -> Array:
    """Standard deviation over shuffles of λ̂ when the baseline is the mean loss at w* of k
    minibatches, for each k of `batches`.

    Root mean square over the disjoint sets of k minibatches that a shuffle's draws hold; NaN where
    they do not hold one.
    """
    clipped = np.minimum(
        draws.loss, draws.loss.quantile(quantile, dim="draw").drop_vars("quantile")
    )
    mean_G = clipped.mean(("chain", "draw")).values
    init_GxT = draws.init_loss.values.reshape(len(mean_G), -1)
    found = []
    for k in batches:
        sets = init_GxT.shape[1] // k
        if not sets:
            found.append(np.nan)
            continue
        baselines_GxS = init_GxT[:, : sets * k].reshape(len(mean_G), sets, k).mean(axis=2)
        found.append(
            factor(texts) * np.sqrt((mean_G[:, None] - baselines_GxS).var(axis=0, ddof=1).mean())
        )
    return np.array(found)


def sign_agreement(groups_MxG: Array) -> float:
    """Share of shuffles in which λ̂ of all models has one sign; by chance alone it would be 2^(1 −
    models).
    """
    signs = np.sign(groups_MxG)
    return float((signs == signs[0]).all(axis=0).mean())


def squared_correlation(x: Array, y: Array) -> float:
    return (
        float(np.corrcoef(x, y)[0, 1] ** 2)
        if len(x) > 2 and np.ptp(x) and np.ptp(y)
        else float("nan")
    )
