"""Runs the chains of a sampler around w* and records the losses of their minibatches.

A shuffle is a random order of the examples. Its chains use consecutive parts of this order, and
start again at its first example when it is used up. Each chain has its own noise. A step records
the loss of its minibatch before the update, so a chain's first loss is a loss where it starts.

Chains run one after the other on the same parameters, with w* stored once, or side by side
(`run_together`). A chain's batches are copied to the device before it starts. Its losses are copied
back only once every `CHUNK` steps, because each copy waits for the device.
"""

from __future__ import annotations

import time
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
from replicate.sampling.storage import Anchor, dense
from replicate.sampling.task import Loss, Task

CHUNK = 16  # steps between two copies of the losses

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
    with _returning(task, start):
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
                        lambda index_CxB: task.loss(index_CxB[0])[None],
                        [moving],
                        batches_TxCxB,
                        sampling.microbatch_size,
                        device,
                        advance,
                    )
            chains |= _recorded([(shuffle, chain)], *found, batches_TxCxB, init_losses_N)
    return chains


@contextmanager
def _returning(task: Task, anchor: Sequence[Anchor]) -> Iterator[None]:
    """Sets the parameters back to the anchor at the end, even after an error."""
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, origin in zip(task.parameters, anchor, strict=True):
                parameter.copy_(dense(origin))


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
            samplers,
            batches_TxCxB,
            sampling.microbatch_size,
            task.parameters[0].device,
            advance,
        )
    return _recorded(keys, *found, batches_TxCxB, init_losses_N)


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


def _recorded(
    keys: Sequence[tuple[int, int]],
    losses_TxC: NDArray[np.float64],
    seconds_T: NDArray[np.float64],
    batches_TxCxB: NDArray[np.int64],
    init_losses_N: NDArray[np.float32],
) -> dict[tuple[int, int], Chain]:
    """Returns the chains. A loss that is not finite, and all that follow it, become NaN."""
    losses_TxC = np.where(np.logical_and.accumulate(np.isfinite(losses_TxC)), losses_TxC, np.nan)
    init_TxC = init_losses_N[batches_TxCxB].astype(np.float64).mean(axis=2)
    seconds_TxC = np.where(np.isfinite(losses_TxC), seconds_T[:, None] / len(keys), np.nan)
    return {
        key: Chain(losses_TxC[:, i].copy(), init_TxC[:, i].copy(), seconds_TxC[:, i].copy())
        for i, key in enumerate(keys)
    }


def _batches(order_N: NDArray[np.int64], chain: int, sampling: SamplingConfig) -> NDArray[np.int64]:
    size = sampling.steps * sampling.batch_size
    positions = np.arange(chain * size, (chain + 1) * size) % len(order_N)
    return order_N[positions].reshape(sampling.steps, sampling.batch_size)


def run_chains(
    loss: Loss,
    samplers: Sequence[Sampler],
    batches_TxCxB: NDArray[np.int64],
    microbatch_size: int | None,
    device: torch.device,
    advance: Advance,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Runs C chains from the current parameters of their samplers, which must be attached.

    Args:
        loss: takes indices of examples (C, B) and returns their losses (C, B).
        samplers: one for each chain.
        batches_TxCxB: the indices of each step's examples.
        microbatch_size: examples in one backward pass, None for all of a batch.
        device: the device of the parameters.
        advance: is told how many more steps are done.

    Returns:
        The mean losses of each step before its update (T, C), and the seconds of each step (T,), a
        mean over its chunk of `CHUNK` steps. The run stops after a chunk in which every chain has a
        loss that is not finite; the rows after it are NaN.
    """
    steps, count = batches_TxCxB.shape[:2]
    losses_TxC, seconds_T = np.full((steps, count), np.nan), np.full(steps, np.nan)
    recorded_TxC = torch.full((steps, count), torch.nan, dtype=torch.float64, device=device)
    indices_TxCxB = torch.from_numpy(batches_TxCxB).to(device)
    for first in range(0, steps, CHUNK):
        chunk = slice(first, min(first + CHUNK, steps))
        start = time.perf_counter()
        for step in range(first, chunk.stop):
            recorded_TxC[step] = accumulate_gradients(
                loss, indices_TxCxB[step], microbatch_size, samplers
            )
            for sampler in samplers:
                sampler.step()
        losses_TxC[chunk] = recorded_TxC[chunk].cpu().numpy()
        seconds_T[chunk] = (time.perf_counter() - start) / (chunk.stop - first)
        if not np.isfinite(losses_TxC[chunk]).all(axis=0).any():
            advance((steps - first) * count)
            break
        advance((chunk.stop - first) * count)
    return losses_TxC, seconds_T


def accumulate_gradients(
    loss: Loss, index_CxB: Tensor, microbatch_size: int | None, samplers: Sequence[Sampler]
) -> Tensor:
    """Computes the mean losses of C batches and their gradients, one microbatch at a time.

    A sampler moves each parameter during the backward pass of the last microbatch, as soon as its
    gradient is complete. Samplers that need all gradients at once move them in `step` instead.

    Returns:
        The mean losses, (C,) float64, on the batches' device.
    """
    size = index_CxB.shape[1]
    microbatches = index_CxB.split(microbatch_size or size, dim=1)
    total_C = torch.zeros(len(index_CxB), dtype=torch.float64, device=index_CxB.device)
    for i, examples_CxB in enumerate(microbatches, 1):
        losses_CxB = loss(examples_CxB)
        one = len(microbatches) == 1
        value_C = losses_CxB.mean(dim=1) if one else losses_CxB.sum(dim=1) / size
        total_C += value_C.detach().to(total_C.device)
        for sampler in samplers:
            sampler.gradients_complete = i == len(microbatches)
        value_C.sum().backward()
    return total_C
