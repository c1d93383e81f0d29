"""Health of chains: split R-hat and effective sample size (Vehtari et al. 2021, arXiv 1903.08008), by ArviZ. Pure."""

from __future__ import annotations

import arviz as az
import numpy as np
from numpy.typing import NDArray


def ess(draws_CxD: NDArray[np.float64]) -> float:
    """Effective number of draws for the mean, all chains together; NaN where there are fewer than four draws or no chain."""
    return _measured(az.ess, draws_CxD, method="mean")


def rhat(draws_CxD: NDArray[np.float64]) -> float:
    """Split R-hat: 1 where the halves of all chains agree."""
    return _measured(az.rhat, draws_CxD, method="split")


def _measured(measure: object, draws_CxD: NDArray[np.float64], method: str) -> float:
    if draws_CxD.shape[0] == 0 or draws_CxD.shape[1] < 4 or not np.ptp(draws_CxD):
        return float("nan")
    return float(measure(draws_CxD, method=method))  # pyright: ignore[reportCallIssue]
