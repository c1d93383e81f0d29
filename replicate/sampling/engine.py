"""Runs the chains of a sampler around w* and records the losses of their minibatches.

A shuffle is a random order of the examples. Its chains use consecutive parts of this order, and
start again at its first example when it is used up. Each chain has its own noise.

Chains run one after the other on the same parameters, with w* stored once, or side by side
(`run_together`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.progress import Advance
from replicate.sampling.chains import Chain, assemble
from replicate.sampling.config import SamplerConfig, SamplingConfig
from replicate.sampling.samplers import sampler as make_sampler
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.stack import Stack
from replicate.sampling.steps import run_chains
from replicate.sampling.storage import Anchor, dense
from replicate.sampling.task import Task

Order = Callable[[int], NDArray[np.int64]]
Noise = Callable[[int, int], int]


def sample(
    task: Task,
    sampler: SamplerConfig,
    sampling: SamplingConfig,
    init_losses_N: NDArray[np.float32],
    *,
    order: Order,
    noise: Noise,
    advance: Advance,
) -> xr.Dataset:
    """Runs all chains in this process.

    The arguments are those of `run_piece`, and the result is that of `assemble`.
    """
    pieces = sampling.pieces()
    chains = run_pieces(
        task, sampler, sampling, pieces, init_losses_N, order=order, noise=noise, advance=advance
    )
    return assemble(sampling, chains)


def run_pieces(
    task: Task,
    sampler: SamplerConfig,
    sampling: SamplingConfig,
    pieces: Sequence[Sequence[tuple[int, int]]],
    init_losses_N: NDArray[np.float32],
    *,
    together: int = 1,
    order: Order,
    noise: Noise,
    advance: Advance,
) -> dict[tuple[int, int], Chain]:
    """Runs some of `sampling.pieces()` and leaves the parameters at w*.

    Args:
        together: the number of chains to run side by side, which changes results only by rounding.
            Without `task.stacked` or `sampling.restart`, or with devinterp, 1 is used instead.

    The other arguments and the result are those of `run_piece`.
    """
    if task.stacked is None or not sampling.restart or sampling.implementation != "replicate":
        together = 1
    run, groups = run_piece, list(pieces)
    if together > 1:
        keys = [key for piece in pieces for key in piece]
        run, groups = run_together, [keys[i : i + together] for i in range(0, len(keys), together)]
    chains: dict[tuple[int, int], Chain] = {}
    for group in groups:
        chains |= run(
            task, sampler, sampling, group, init_losses_N, order=order, noise=noise, advance=advance
        )
    return chains


def run_piece(
    task: Task,
    sampler: SamplerConfig,
    sampling: SamplingConfig,
    piece: Sequence[tuple[int, int]],
    init_losses_N: NDArray[np.float32],
    *,
    order: Order,
    noise: Noise,
    advance: Advance,
) -> dict[tuple[int, int], Chain]:
    """Runs one piece of `sampling.pieces()` from w* and leaves the parameters at w*.

    Args:
        task: the loss and the parameters, which are at w*.
        sampler: the sampler and its hyperparameters.
        sampling: the number and length of chains, nβ and the batch size.
        piece: the chains to run, in order, as (shuffle, chain).
        init_losses_N: the loss of each of the N examples at w*.
        order: returns the permutation of the N examples in a shuffle.
        noise: returns the seed of a (shuffle, chain), which determines its noise bit for bit.
        advance: is told how many more steps are done.

    Returns:
        The chains, by (shuffle, chain).
    """
    start = origin = task.anchor()
    chains: dict[tuple[int, int], Chain] = {}
    with returning(task, start):
        for shuffle, chain in piece:
            if chains:
                origin = [parameter.detach().clone() for parameter in task.parameters]
            batches_TxCxB = _batches(order(shuffle), chain, sampling)[:, None]
            device, seed = task.parameters[0].device, noise(shuffle, chain)
            # devinterp's samplers seed torch's global generator and draw from it
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                moving = _sampler(task, task.parameters, origin, sampler, sampling, seed)
                with moving.attached():
                    found = run_chains(
                        lambda index_CxB: task.step_loss(index_CxB[0])[None],
                        moving.slope,
                        [moving],
                        batches_TxCxB,
                        sampling.microbatch_size,
                        device,
                        advance,
                        task.repeated,
                    )
            (chains[shuffle, chain],) = found.chains(sampling.nbeta, init_losses_N[batches_TxCxB])
    return chains


@contextmanager
def returning(task: Task, anchor: Sequence[Anchor]) -> Iterator[None]:
    """Sets the parameters back to the anchor at the end, even after an error."""
    try:
        yield
    finally:
        place(task.parameters, anchor)


@torch.no_grad()
def place(parameters: Sequence[Tensor], weights: Sequence[Anchor]) -> None:
    """Sets parameters to weights."""
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.copy_(dense(weight))


def run_together(
    task: Task,
    sampler: SamplerConfig,
    sampling: SamplingConfig,
    keys: Sequence[tuple[int, int]],
    init_losses_N: NDArray[np.float32],
    *,
    order: Order,
    noise: Noise,
    advance: Advance,
) -> dict[tuple[int, int], Chain]:
    """Runs chains side by side from w*; one call of `task.stacked` computes all their losses.

    The arguments and the result are those of `run_piece`; the task's parameters stay at w*.
    """
    assert task.stacked is not None
    loss, anchor = task.stacked, task.anchor()
    stack = Stack(anchor, len(keys))
    samplers = [
        _sampler(task, share, anchor, sampler, sampling, noise(*key))
        for key, share in zip(keys, stack.shares, strict=True)
    ]
    batches_TxCxB = np.stack([_batches(order(s), c, sampling) for s, c in keys], axis=1)
    with stack.attached(samplers):
        found = run_chains(
            lambda index_CxB: loss(stack.weights, index_CxB),
            stack.slopes,
            samplers,
            batches_TxCxB,
            sampling.microbatch_size,
            task.parameters[0].device,
            advance,
        )
    return dict(zip(keys, found.chains(sampling.nbeta, init_losses_N[batches_TxCxB]), strict=True))


def _sampler(
    task: Task,
    parameters: Sequence[nn.Parameter],
    anchor: Sequence[Anchor],
    sampler: SamplerConfig,
    sampling: SamplingConfig,
    seed: int,
) -> Sampler:
    return make_sampler(
        parameters,
        anchor,
        sampler,
        nbeta=sampling.nbeta,
        seed=seed,
        burn_in=sampling.burn_in,
        masks=task.masks,
        implementation=sampling.implementation,
    )


def _batches(order_N: NDArray[np.int64], chain: int, sampling: SamplingConfig) -> NDArray[np.int64]:
    size = sampling.steps * sampling.batch_size
    positions = np.arange(chain * size, (chain + 1) * size) % len(order_N)
    return order_N[positions].reshape(sampling.steps, sampling.batch_size)
