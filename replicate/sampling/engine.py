"""Runs shuffles × chains of a sampler around w* and records the losses of the minibatches.

The chains of a shuffle use consecutive parts of its order of the examples, and begin again at the
first example when the order is used up. Each chain has noise of its own. A step records its
minibatch's loss before the update, so the first loss of a chain is a loss at w*.

All chains use the same parameters in turn, and w* is stored once. A chain's batches are copied to
the device before it starts, and its losses are copied back once every `CHUNK` steps, because each
copy waits for the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from replicate.progress import Advance
from replicate.sampling.chains import Chain, assemble
from replicate.sampling.config import SamplerConfig, SamplingConfig
from replicate.sampling.samplers import sampler as make_sampler
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.storage import dense
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
    """Runs all chains in this process; `run_piece` describes the arguments and `assemble` the
    result.
    """
    chains: dict[tuple[int, int], Chain] = {}
    for piece in sampling.pieces():
        chains |= run_piece(
            task, sampler, sampling, piece, init_losses_N, order=order, noise=noise, advance=advance
        )
    return assemble(sampling, chains)


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
    """Runs one piece of `sampling.pieces()`, the first chain from w*, and returns to w*.

    Args:
        task: what the chains sample; its parameters stand at w*.
        sampler: the sampler and its knobs.
        sampling: the number and length of chains, nβ and the batch.
        piece: the chains to run, in order, as (shuffle, chain).
        init_losses_N: the loss of each of the N examples at w*.
        order: gives the permutation of the N examples in a shuffle.
        noise: gives the seed of a (shuffle, chain), which fixes its noise to the bit.
        advance: reports steps that are done.

    Returns:
        The chains, by (shuffle, chain).
    """
    start = origin = task.anchor()
    device = task.parameters[0].device
    chains: dict[tuple[int, int], Chain] = {}
    for shuffle, chain in piece:
        if chains:
            origin = [parameter.detach().clone() for parameter in task.parameters]
        batches_TxB = _batches(order(shuffle), chain, sampling)
        # devinterp's samplers draw from torch's global generator
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            moving = make_sampler(
                task.parameters,
                origin,
                sampler,
                nbeta=sampling.nbeta,
                seed=noise(shuffle, chain),
                burn_in=sampling.burn_in,
                masks=task.masks,
                implementation=sampling.implementation,
            )
            losses, seconds = run_chain(
                task.loss,
                moving,
                torch.from_numpy(batches_TxB).to(device),
                sampling.microbatch_size,
                advance,
            )
        init_losses = init_losses_N[batches_TxB].astype(np.float64).mean(axis=1)
        chains[shuffle, chain] = Chain(losses, init_losses, seconds)
    with torch.no_grad():
        for parameter, anchor in zip(task.parameters, start, strict=True):
            parameter.copy_(dense(anchor))
    return chains


def _batches(order_N: NDArray[np.int64], chain: int, sampling: SamplingConfig) -> NDArray[np.int64]:
    size = sampling.steps * sampling.batch_size
    positions = np.arange(chain * size, (chain + 1) * size) % len(order_N)
    return order_N[positions].reshape(sampling.steps, sampling.batch_size)


def run_chain(
    loss: Loss,
    sampler: Sampler,
    batches_TxB: Tensor,
    microbatch_size: int | None,
    advance: Advance,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Runs one chain from where the sampler's parameters stand.

    Args:
        loss: of examples, as `Task.loss`.
        sampler: moves the parameters.
        batches_TxB: the indices of each step's examples, on the parameters' device.
        microbatch_size: examples in one backward pass, None for all of a batch.
        advance: reports steps that are done.

    Returns:
        Each step's mean loss before its update (T,) and its seconds (T,). If the chain diverges,
        both are NaN from the first loss that is not finite.
    """
    steps = len(batches_TxB)
    losses, seconds = np.full(steps, np.nan), np.full(steps, np.nan)
    recorded = torch.full((steps,), torch.nan, dtype=torch.float64, device=batches_TxB.device)
    with sampler.attached():
        for first in range(0, steps, CHUNK):
            chunk = slice(first, min(first + CHUNK, steps))
            start = time.perf_counter()
            for step in range(first, chunk.stop):
                recorded[step] = accumulate_gradients(
                    loss, batches_TxB[step], microbatch_size, sampler
                )
                sampler.step()
            losses[chunk] = recorded[chunk].cpu().numpy()
            seconds[chunk] = (time.perf_counter() - start) / (chunk.stop - first)
            diverged = np.flatnonzero(~np.isfinite(losses[chunk]))
            if len(diverged):
                losses[first + diverged[0] :] = seconds[first + diverged[0] :] = np.nan
                advance(steps - first)
                break
            advance(chunk.stop - first)
    return losses, seconds


def accumulate_gradients(
    loss: Loss, batch_B: Tensor, microbatch_size: int | None, sampler: Sampler
) -> Tensor:
    """Computes a batch's mean loss and its gradient, one microbatch after the other.

    The sampler moves each parameter during the backward pass of the last microbatch, when the
    parameter's gradient is complete.

    Returns:
        The mean loss, a float64 scalar on the batch's device.
    """
    microbatches = batch_B.split(microbatch_size or len(batch_B))
    total = torch.zeros((), dtype=torch.float64, device=batch_B.device)
    for i, examples in enumerate(microbatches, 1):
        losses = loss(examples)
        value = losses.sum() / len(batch_B) if len(microbatches) > 1 else losses.mean()
        total += value.detach().to(total.device)
        sampler.gradients_complete = i == len(microbatches)
        value.backward()
    return total
