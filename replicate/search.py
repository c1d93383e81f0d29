"""The write-up's grids of sampler settings, and its rule to choose among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from replicate import estimators
from replicate.sampling import Setting


@dataclass(frozen=True)
class Outcome:
    """λ̂ across the chains of one setting; `stability` is mean over standard deviation, NaN where a chain failed."""

    mean: float
    standard_deviation: float
    failed_chains: int

    @property
    def stability(self) -> float:
        whole = self.failed_chains == 0 and self.standard_deviation > 0
        return self.mean / self.standard_deviation if whole else float("nan")


def settings(sampler: str, grid: Mapping[str, Sequence[float | None]]) -> list[Setting]:
    """All combinations of a grid's values, the last key varying fastest."""
    return [Setting(sampler, **dict(zip(grid, values, strict=True))) for values in product(*grid.values())]  # pyright: ignore[reportArgumentType]


def outcome(trace: xr.Dataset, nbeta: float, baseline: float) -> Outcome:
    """A setting's trace as the mean and the standard deviation of `controlled` λ̂ across chains."""
    chains = estimators.controlled(trace, nbeta, baseline).mean("draw").values.ravel()
    alive = chains[np.isfinite(chains)]
    if len(alive) < 2:
        return Outcome(float("nan"), float("nan"), len(chains) - len(alive))
    return Outcome(float(alive.mean()), float(alive.std(ddof=1)), len(chains) - len(alive))


def choose(outcomes: Sequence[Outcome]) -> int | None:
    """The write-up's rule: the greatest mean over standard deviation across chains. None where no setting kept all its chains."""
    stabilities = np.array([outcome.stability for outcome in outcomes])
    return int(np.nanargmax(stabilities)) if np.isfinite(stabilities).any() else None
