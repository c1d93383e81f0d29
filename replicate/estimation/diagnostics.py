"""Health of chains: split R-hat and effective sample size (Vehtari et al. 2021, arXiv 1903.08008),
by ArviZ; drift; advice. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

import arviz as az
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]
ENOUGH = 100  # effective draws: the standard error is then known to about 7 %


def ess(draws_CxD: Array) -> float:
    """Effective number of draws for the mean, all chains together; NaN where there are fewer than
    four draws or no chain.
    """
    return _measured(az.ess, draws_CxD, method="mean")


def rhat(draws_CxD: Array) -> float:
    """Split R-hat: 1 where the halves of all chains agree."""
    return _measured(az.rhat, draws_CxD, method="split")


def drift(draws_CxD: Array) -> tuple[float, float]:
    """Change of the mean from the first to the second half of the draws, and the p value against
    none.

    Welch's t test with effective numbers of draws for sample sizes (after Geweke 1992). Each half
    has the effective share of its draws that the detrended chains have as a whole: a half alone is
    too short to tell. NaN where there are fewer than eight draws or no chain.
    """
    chains, draws = draws_CxD.shape
    if chains == 0 or draws < 8:
        return float("nan"), float("nan")
    first, second = draws_CxD[:, : draws // 2], draws_CxD[:, draws - draws // 2 :]
    change = float(second.mean() - first.mean())
    effective = (
        min(
            ess(np.concatenate([half - half.mean() for half in (first, second)], axis=1)),
            draws_CxD.size,
        )
        / 2
    )
    if not np.isfinite(effective):
        return change, float("nan")
    spread = np.std([first - first.mean(), second - second.mean()], ddof=1)
    return change, float(
        2 * stats.t.sf(abs(change) / (spread * np.sqrt(2 / effective)), max(2 * effective - 2, 1))
    )


def relaxation(loss_T: Array) -> float:
    """τ in steps of loss = plateau − rise·exp(−t/τ), by least squares on a mean trace from w* on;
    NaN where no such curve fits.
    """
    steps = np.arange(len(loss_T))
    start = (
        loss_T[-len(loss_T) // 4 :].mean(),
        loss_T[-len(loss_T) // 4 :].mean() - loss_T[0],
        len(loss_T) / 5,
    )
    try:
        found, _ = optimize.curve_fit(
            lambda t, plateau, rise, tau: plateau - rise * np.exp(-t / tau), steps, loss_T, start
        )
    except RuntimeError:  # no convergence
        return float("nan")
    return float(found[2]) if found[2] > 0 else float("nan")


def escape(loss_NxT: Array, burn_in: int, loss: float, guess: float) -> float:
    """How far from local chains are: the rise of their mean loss over the `loss` at w*, as a share
    of the rise to `guess`, that of a model that knows nothing; NaN where no chain stayed finite.
    λ̂/nβ is that rise: near 1 it is bounded by the text, and not by the model.
    """
    alive = loss_NxT[np.isfinite(loss_NxT).all(axis=1), burn_in:]
    return float((alive.mean() - loss) / (guess - loss)) if len(alive) else float("nan")


def advise(
    loss_NxT: Array,
    burn_in: int,
    values_CxD: Array,
    interval: tuple[float, float],
    escaped: float,
    *,
    rhat_limit: float,
    drift_level: float,
    local_limit: float,
) -> list[str]:
    """What is wrong with a model's chains and what to do, in plain words; empty where nothing is.

    `loss_NxT`: minibatch losses of all chains and steps, NaN where a chain failed; `values_CxD`:
    λ̂'s draws of the chains that did not; `escaped`: see `escape`.
    """
    found = []
    failed = int((~np.isfinite(loss_NxT).all(axis=1)).sum())
    if failed:
        found.append(
            f"{failed} of {len(loss_NxT)} chains left the finite: lower the step size or raise the localisation"
        )
    if failed == len(loss_NxT):
        return found
    if escaped > local_limit:
        found.append(
            f"not local: the loss rises by {escaped:.0%} of the way to guessing; raise localisation, or nβ"
        )
    _, drift_p = drift(values_CxD)
    if drift_p < drift_level:
        tau = relaxation(np.nanmean(loss_NxT, axis=0))
        twice = 2 * loss_NxT.shape[1]
        to = (
            f"about {round(5 * tau, -1):.0f}"
            if 5 * tau < twice and 5 * tau > burn_in
            else f"more than {twice}"
        )
        found.append(f"still drifting at the end: raise burn-in to {to}")
    if rhat(values_CxD) > rhat_limit:
        found.append(
            f"the chains disagree (R-hat {rhat(values_CxD):.2f}): draw longer chains, or start with a longer burn-in"
        )
    effective = ess(values_CxD)
    if effective < ENOUGH:
        wanted = ENOUGH / effective * values_CxD.shape[1]
        found.append(
            f"only {effective:.0f} effective draws: draw about {round(wanted, -1):.0f} a chain instead of {values_CxD.shape[1]}"
        )
    if interval[1] < 0:
        found.append("λ̂ lies below zero: w* is not a minimum of the loss sampled")
    elif interval[0] < 0:
        found.append(
            "the signal is lost in the noise, the interval holds zero: draw more, or more shuffles"
        )
    return found


def _measured(measure: Callable[..., object], draws_CxD: Array, method: str) -> float:
    if draws_CxD.shape[0] == 0 or draws_CxD.shape[1] < 4 or not np.ptp(draws_CxD):
        return float("nan")
    return float(measure(draws_CxD, method=method))  # pyright: ignore[reportArgumentType]
