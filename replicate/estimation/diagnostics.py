"""Computes diagnostics of chains (effective draws, split R-hat, drift, locality) and gives advice.

ESS and split R-hat are those of Vehtari et al. 2021 (arXiv 1903.08008), computed by ArviZ. All
functions are pure. Axes: N chains, C chains that did not diverge, T steps with burn-in, D draws
without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import arviz as az
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]
ENOUGH = 100  # effective draws; with these, the standard error is known to about 7 %


def ess(draws_CxD: Array) -> float:
    """Returns the effective number of draws for the mean over all chains.

    It is NaN if there is no chain, if there are fewer than four draws, or if all draws are equal.
    """
    return _measured(az.ess, draws_CxD, method="mean")


def rhat(draws_CxD: Array) -> float:
    """Returns split R-hat. It is 1 if the halves of all chains agree, and NaN as in `ess`.

    It is NaN for one chain, too.
    """
    return _measured(az.rhat, draws_CxD, "split") if len(draws_CxD) > 1 else float("nan")


def drift(draws_CxD: Array) -> tuple[float, float]:
    """Tests whether the mean changes from the first to the second half of the draws.

    This is Student's two-sample t test with effective numbers of draws as sample sizes (after
    Geweke 1992). One half is too short for its effective number to be measured. So each half is
    centred at its own mean, the ESS of both halves together is computed, and each half is assumed
    to have one half of this ESS.

    Returns:
        The change and its p value. Both are NaN if there is no chain or if there are fewer than
        eight draws. The p value is also NaN if the draws of neither half vary.
    """
    chains, draws = draws_CxD.shape
    if chains == 0 or draws < 8:
        return float("nan"), float("nan")
    first, second = draws_CxD[:, : draws // 2], draws_CxD[:, draws - draws // 2 :]
    change = float(second.mean() - first.mean())
    centred = [half - half.mean() for half in (first, second)]
    effective = min(ess(np.concatenate(centred, axis=1)), draws_CxD.size) / 2
    if not np.isfinite(effective):
        return change, float("nan")
    t = abs(change) / (np.std(centred, ddof=1) * np.sqrt(2 / effective))
    return change, float(2 * stats.t.sf(t, max(2 * effective - 2, 1)))


def relaxation(loss_T: Array) -> float:
    """Returns the time constant τ (steps) of a mean trace that starts at w*.

    Least squares fits loss = plateau − rise·exp(−t/τ). τ is NaN if the fit fails or gives τ ≤ 0.
    """
    plateau = loss_T[-len(loss_T) // 4 :].mean()
    start = plateau, plateau - loss_T[0], len(loss_T) / 5
    try:
        found, _ = optimize.curve_fit(
            lambda t, plateau, rise, tau: plateau - rise * np.exp(-t / tau),
            np.arange(len(loss_T)),
            loss_T,
            start,
        )
    except RuntimeError:  # no convergence
        return float("nan")
    return float(found[2]) if found[2] > 0 else float("nan")


def escape(loss_NxT: Array, burn_in: int, loss: float, guess: float) -> float:
    """Measures how far the chains have left the neighbourhood of w*.

    λ̂/nβ is the chains' mean loss minus the loss at w*. If the mean loss comes close to that of
    guessing, λ̂ says more about the text than about the model.

    Args:
        loss_NxT: the minibatch losses (nats), NaN where a chain diverged.
        burn_in: the number of steps to leave out.
        loss: the loss at w* (nats).
        guess: the loss of guessing, which a model that knows nothing has (nats).

    Returns:
        The share (mean loss − `loss`)/(`guess` − `loss`); NaN if all chains diverged.
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
    still: bool = False,
    sloped: bool = False,
    largest_nbeta: float = np.nan,
) -> list[str]:
    """Says what is wrong with a model's chains and what to do about it.

    Args:
        loss_NxT: minibatch losses (nats), NaN where a chain diverged.
        burn_in: the number of steps before the first draw.
        values_CxD: the contribution of each draw to λ̂, of the chains that did not diverge.
        interval: the 95 % interval of λ̂.
        escaped: what `escape` returns.
        rhat_limit: the largest R-hat of healthy chains.
        drift_level: the smallest p value of the drift test of healthy chains.
        local_limit: the largest `escaped` of local chains.
        still: whether the chains did not leave w*.
        sloped: whether the gradient at w* is known to take more than a tenth off λ̂.
        largest_nbeta: the nβ up to which it takes less, if the chains' is above; NaN if unknown.

    Returns:
        One sentence for each problem; an empty list if there is none.
    """
    N, steps = loss_NxT.shape
    found = []
    diverged = int((~np.isfinite(loss_NxT).all(axis=1)).sum())
    if diverged:
        remedy = "lower lr, or raise localization"
        found.append(f"{diverged} of {N} chains diverged: {remedy}")
    if diverged == N:
        return found
    if still:
        return [*found, "the chains did not leave w*, so that λ̂ means nothing: raise lr"]
    if escaped > local_limit:
        rise = f"the loss rises by {escaped:.0%} of the way to guessing"
        found.append(f"not local: {rise}; raise localization, or nbeta")
    if drift(values_CxD)[1] < drift_level:
        wanted = 5 * relaxation(np.nanmean(loss_NxT, axis=0))
        known = burn_in < wanted < 2 * steps
        to = f"about {round(wanted, -1):.0f}" if known else f"more than {2 * steps}"
        found.append(f"still drifting at the end: raise burn-in to {to}")
    if (split := rhat(values_CxD)) > rhat_limit:
        remedy = "draw longer chains, or start with a longer burn-in"
        found.append(f"the chains disagree (R-hat {split:.2f}): {remedy}")
    if (effective := ess(values_CxD)) < ENOUGH:
        draws = values_CxD.shape[1]
        wanted = 10 * math.ceil(ENOUGH / effective * draws / 10)
        remedy = f"draw about {wanted} a chain instead of {draws}"
        found.append(f"only {effective:.0f} effective draws: {remedy}")
    if interval[1] < 0 or sloped:
        below = "λ̂ lies below zero"
        sign = below if interval[1] < 0 else "the gradient at w* takes more than a tenth off λ̂"
        remedy = "train on these data, or use text sampled from the model (sample_text, on the"
        remedy += " command line --text sampled)"
        if np.isfinite(largest_nbeta):
            remedy += f", or nβ up to {largest_nbeta:.3g}, where it takes less than a tenth"
        found.append(f"{sign}: w* is not a minimum of the loss sampled; {remedy}")
    elif interval[0] < 0:
        found.append("the interval holds zero: draw more, or from more shuffles")
    return found


def _measured(measure: Callable[..., object], draws_CxD: Array, method: str) -> float:
    if draws_CxD.shape[0] == 0 or draws_CxD.shape[1] < 4 or not np.ptp(draws_CxD):
        return float("nan")
    return float(measure(draws_CxD, method=method))  # pyright: ignore[reportArgumentType]
