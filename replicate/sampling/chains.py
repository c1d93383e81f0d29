"""Holds the losses that a chain recorded, and joins all chains into one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.sampling.config import SamplingConfig


@dataclass(frozen=True)
class Chain:
    """Holds what a chain recorded: arrays (T,) with one number for each step.

    Attributes:
        loss: the loss of the minibatch before the update, nats per label. If the chain diverges,
            its losses are NaN from that step on.
        init_loss: the loss of the same minibatch at w*, nats per label.
        seconds: the computing time of the step, as a mean over the steps between two copies of the
            losses from the device. If C chains run side by side, each gets 1/C of the time. It is
            NaN where the loss is NaN.
    """

    loss: NDArray[np.float64]
    init_loss: NDArray[np.float64]
    seconds: NDArray[np.float64]


def assemble(sampling: SamplingConfig, chains: Mapping[tuple[int, int], Chain]) -> xr.Dataset:
    """Joins all chains into one dataset.

    Args:
        sampling: the number of shuffles, chains and steps.
        chains: each chain, by (shuffle, chain).

    Returns:
        A dataset with `loss`, `init_loss` and `seconds` (shuffle, chain, draw), and `diverged`
        (shuffle, chain), which is true if a loss of the chain is not finite. The first step has
        draw −burn_in, so the draws of the burn-in are negative.
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
