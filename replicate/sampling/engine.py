"""Runs groups × chains of a sampler around w* and records the minibatch losses.

A group is one reshuffling of the data. Its chains walk disjoint stretches of that order (as far as the data reach), each with noise
of its own, each from w*. Step t of a chain records the loss of its minibatch before the update, so that the first is a loss at w*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.progress import Advance
from replicate.sampling import samplers
from replicate.sampling.setting import Setting

Loss = Callable[[Tensor], Tensor]  # indices of examples (B,) → their losses under the model as it stands (B,)


@dataclass(frozen=True)
class Chain:
    """Per step: the minibatch's loss, the same minibatch's loss at w* (nats per label), seconds. A chain that left the finite has
    NaN from there on.
    """

    loss: NDArray[np.float64]
    init_loss: NDArray[np.float64]
    seconds: NDArray[np.float64]


def sample(
    parameters: list[nn.Parameter],
    loss: Loss,
    init_losses_N: NDArray[np.float32],
    setting: Setting,
    *,
    nbeta: float,
    batch_size: int,
    groups: int,
    chains: int,
    burn_in: int,
    draws: int,
    order: Callable[[int], NDArray[np.int64]],
    noise: Callable[[int, int], int],
    advance: Advance,
    done: MutableMapping[tuple[int, int], Chain] | None = None,
    restart: bool = True,
) -> xr.Dataset:
    """Traces over (group, chain, draw).

    The parameters stand at w* and are put back there after each chain. `init_losses_N` holds every example's loss at w*; `order`
    gives a group's permutation of the N examples, `noise` a chain's seed. Chains found in `done` are not run again, and finished
    ones are put there. Without `restart` each chain of a group goes on where the one before it ended, and takes that for its anchor,
    as the original study's quantised models did; such a group is run again as a whole.

    Returns:
        `loss`, `init_loss`, `seconds` (group, chain, draw), with `draw` counted from −burn_in, so that burn-in is below 0; `failed`
        (group, chain), true where a loss was not finite.
    """
    done = {} if done is None else done
    steps = burn_in + draws
    anchor = [parameter.detach().clone() for parameter in parameters]
    for group in range(groups):
        examples = order(group)
        if not restart and any((group, chain) not in done for chain in range(chains)):
            for chain in range(chains):
                done.pop((group, chain), None)
        for chain in range(chains):
            if (group, chain) in done:
                advance(steps)
                continue
            positions = np.arange(chain * steps * batch_size, (chain + 1) * steps * batch_size) % len(examples)
            batches_TxB = examples[positions].reshape(steps, batch_size)
            done[group, chain] = run(parameters, loss, init_losses_N, setting, nbeta, batches_TxB, burn_in, noise(group, chain), advance)
            if restart or chain == chains - 1:
                with torch.no_grad():
                    for parameter, origin in zip(parameters, anchor, strict=True):
                        parameter.copy_(origin)
    stacked = {
        name: (
            ("group", "chain", "draw"),
            np.stack([[getattr(done[g, c], name) for c in range(chains)] for g in range(groups)]),
        )
        for name in ("loss", "init_loss", "seconds")
    }
    failed = ~np.isfinite(stacked["loss"][1]).all(axis=-1)
    coordinates = {"group": np.arange(groups), "chain": np.arange(chains), "draw": np.arange(-burn_in, draws)}
    return xr.Dataset(stacked | {"failed": (("group", "chain"), failed)}, coordinates)


def run(
    parameters: list[nn.Parameter],
    loss: Loss,
    init_losses_N: NDArray[np.float32],
    setting: Setting,
    nbeta: float,
    batches_TxB: NDArray[np.int64],
    burn_in: int,
    seed: int,
    advance: Advance,
) -> Chain:
    """One chain from where the parameters stand."""
    steps = len(batches_TxB)
    losses, seconds = np.full(steps, np.nan), np.full(steps, np.nan)
    devices = [parameters[0].device] if parameters[0].is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        sampler = samplers.optimizer(parameters, setting, nbeta, burn_in)
        for step, batch in enumerate(batches_TxB):
            start = time.perf_counter()
            sampler.zero_grad(set_to_none=True)
            value = loss(torch.from_numpy(batch)).mean()
            losses[step] = value.item()
            if not np.isfinite(losses[step]):
                advance(steps - step)
                break
            value.backward()
            sampler.step()
            seconds[step] = time.perf_counter() - start
            advance(1)
        sampler.zero_grad(set_to_none=True)
    return Chain(losses, init_losses_N[batches_TxB].astype(np.float64).mean(axis=1), seconds)
