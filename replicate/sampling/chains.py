"""Holds what a chain recorded, and joins all chains into one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.sampling.config import SamplingConfig


@dataclass(frozen=True)
class Chain:
    """Holds what a chain recorded before the update of each step, with Δ = w − w*.

    Losses are in nats per label. If the chain diverges, all but `init_loss` are NaN from that step.

    Attributes:
        loss: the loss of the minibatch, (T,).
        init_loss: the loss of the same minibatch at w*, (T,).
        seconds: the computing time of the step, as a mean over the steps between two copies of the
            losses from the device, (T,). If C chains run side by side, each gets 1/C of the time.
        virial: V = nβ·Δ·∇L_B(w), (T,); the virial theorem says E[V] + γ·E‖Δ‖² = d.
        squared_distance: ‖Δ‖², (T,).
        half_loss: the losses of the two halves of the minibatch, (T, 2). They and the next two are
            NaN but at every `HALVED`-th step.
        half_init_loss: the losses of the halves at w*, (T, 2).
        half_virial: V of the halves, (T, 2).
    """

    loss: NDArray[np.float64]
    init_loss: NDArray[np.float64]
    seconds: NDArray[np.float64]
    virial: NDArray[np.float64]
    squared_distance: NDArray[np.float64]
    half_loss: NDArray[np.float64]
    half_init_loss: NDArray[np.float64]
    half_virial: NDArray[np.float64]


FIELDS = tuple(field.name for field in fields(Chain))


def assemble(sampling: SamplingConfig, chains: Mapping[tuple[int, int], Chain]) -> xr.Dataset:
    """Joins all chains into one dataset.

    Args:
        sampling: the number of shuffles, chains and steps.
        chains: each chain, by (shuffle, chain).

    Returns:
        A dataset with the fields of `Chain` (shuffle, chain, draw) or (shuffle, chain, draw, half),
        and `diverged` (shuffle, chain), which is true if a loss of the chain is not finite. The
        first step has draw −burn_in, so the draws of the burn-in are negative.
    """
    grid = [[chains[s, c] for c in range(sampling.chains)] for s in range(sampling.shuffles)]
    dims = ("shuffle", "chain", "draw", "half")
    recorded = {
        name: np.stack([[getattr(chain, name) for chain in row] for row in grid]) for name in FIELDS
    }
    diverged = ~np.isfinite(recorded["loss"]).all(axis=-1)
    return xr.Dataset(
        {name: (dims[: values.ndim], values) for name, values in recorded.items()}
        | {"diverged": (dims[:2], diverged)},
        {
            "shuffle": np.arange(sampling.shuffles),
            "chain": np.arange(sampling.chains),
            "draw": np.arange(-sampling.burn_in, sampling.draws),
        },
    )
