"""Measures how the single baseline minibatch of the 2023 protocol changes λ̂, from its traces.

The protocol estimates λ̂ of a shuffle as F·(mean_t L_t(B_t) − L(B₀)), with F = n/ln n. B₀ is the
minibatch of the first draw of chain 0. With ε = 1e-7 the chains stay close to w*, so λ̂ is close to
the *baseline error* F·(L̄₀ − L₀(B₀)). The models of a family share B₀, and nearly share this error.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.estimation import estimators
from replicate.study.collecting import baseline_of, nbeta_of, record
from replicate.study.records import OriginalProtocol

Array = NDArray[np.float64]
BATCHES = (1, 2, 4, 8, 16, 32)  # numbers of minibatches in the baseline that are compared


def factor(texts: int) -> float:
    """Returns F = n/ln n for n = `texts`."""
    return float(texts / np.log(texts))


def original(trace: xr.Dataset, quantile: float) -> OriginalProtocol:
    """Analyses one model's chains by the 2023 protocol, and the error of their baseline.

    Args:
        trace: chains of the 2023 protocol, with their attributes, and with `padded`, the number of
            padded labels of each minibatch.
        quantile: the quantile at which each chain's losses are clipped.
    """
    texts, loss = trace.attrs["texts"], baseline_of(trace)
    draws = trace.where(~trace.diverged).sel(draw=slice(0, None))
    llc_SxC = estimators.published(trace, texts, quantile).mean("draw").values
    controlled = estimators.controlled(trace, nbeta_of(trace), loss)
    shuffles = llc_SxC.mean(axis=1)
    errors = factor(texts) * (loss - draws.init_loss.isel(chain=0, draw=0).values)
    padded, init = trace.padded.values.ravel(), trace.init_loss.values.ravel()
    columns = {
        "factor": factor(texts),
        "shuffles": shuffles,
        "deviations": llc_SxC.std(axis=1, ddof=1),
        "baseline_errors": errors,
        "controlled": controlled.mean(("chain", "draw")).values,
        "r_squared": _squared_correlation(shuffles, errors),
        "explained": estimators.explained(trace, loss),
        "batches": list(BATCHES),
        "spread": _spread(draws, texts, quantile),
        "padded_variance": _squared_correlation(padded, init) if padded.any() else 0.0,
        "chains": trace.diverged.size,
    }
    return record(OriginalProtocol, trace, columns)


def _spread(draws: xr.Dataset, texts: int, quantile: float) -> Array:
    """Returns the standard deviation of λ̂ over shuffles for each number of baseline minibatches.

    A shuffle's draws are split into disjoint sets of that many minibatches. The result is the root
    mean square over the sets. It is NaN if there are too few draws for one set.
    """
    top = draws.loss.quantile(quantile, dim="draw").drop_vars("quantile")
    mean_S = np.minimum(draws.loss, top).mean(("chain", "draw")).values
    init_SxT = draws.init_loss.values.reshape(len(mean_S), -1)
    found = []
    for size in BATCHES:
        sets = init_SxT.shape[1] // size
        if not sets:
            found.append(np.nan)
            continue
        baseline_SxK = init_SxT[:, : sets * size].reshape(len(mean_S), sets, size).mean(axis=2)
        variance_K = (mean_S[:, None] - baseline_SxK).var(axis=0, ddof=1)
        found.append(factor(texts) * np.sqrt(variance_K.mean()))
    return np.array(found)


def _squared_correlation(x: Array, y: Array) -> float:
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1] ** 2)
