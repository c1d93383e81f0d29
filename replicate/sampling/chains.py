"""What chains recorded, and all chains as one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.sampling.config import SamplingConfig


@dataclass(frozen=True)
class Chain:
    """What a chain recorded, each (T,): one number per step.

    Attributes:
        loss: of the minibatch before the update, nats per label. If the chain diverges, its losses
            are NaN from that step on.
        init_loss: of the same minibatch at w*.
        seconds: of computation, NaN where the loss is.
    """

    loss: NDArray[np.float64]
    init_loss: NDArray[np.float64]
    seconds: NDArray[np.float64]


def assemble(sampling: SamplingConfig, chains: Mapping[tuple[int, int], Chain]) -> xr.Dataset:
    """Puts all chains into one dataset.

    Returns:
        `loss`, `init_loss` and `seconds` (shuffle, chain, draw), where `draw` counts from −burn_in,
        so that the burn-in is below 0; `diverged` (shuffle, chain), true where a loss is not
        finite.
    """
    grid = [[chains[s, c] for c in range(sampling.chains)] for s in range(sampling.shuffles)]
    dims = ("shuffle", "chain", "draw")
    recorded = {
        name: np.stack([[getattr(chain, name) for chain in row] for row in grid])
        for name in ("loss", "init_loss", "seconds")
    }
    diverged = ~np.isfinite(recorded["loss"]).all(axis=-1)
    return xr.Dataset(
        {name: (dims, values) for name, values in recorded.items()}
        | {"diverged": (dims[:2], diverged)},
        {
            "shuffle": np.arange(sampling.shuffles),
            "chain": np.arange(sampling.chains),
            "draw": np.arange(-sampling.burn_in, sampling.draws),
        },
    )
