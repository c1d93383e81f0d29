"""Takes the steps of several chains, and records what each step tells before its update.

A chain's batches are copied to the device before it starts. What it records is copied back only
once every `CHUNK` steps, because each copy waits for the device.

Every `HALVED`-th step computes its minibatch as two halves, which are independent given w. Products
of a quantity of the one half and a quantity of the other have no bias from the minibatch's noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from replicate.progress import Advance
from replicate.sampling import capture
from replicate.sampling.chains import Chain
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.task import Loss

CHUNK = 16  # steps between two copies of what is recorded
HALVED = 4  # steps between two whose minibatch is computed as two halves
REPEATED = 64  # the fewest steps for which a GPU's graphs are worth their making

Slopes = Callable[[], Tensor]  # returns Δ·∇ of each chain, (C,), for the gradients it has now


@dataclass(frozen=True)
class Record:
    """Holds what C chains recorded in T steps of B examples.

    Attributes:
        values_TxCxF: the loss of the minibatch, Δ·∇L_B(w) and ‖Δ‖²; then, NaN but at every
            `HALVED`-th step, the loss of the first half and Δ·∇ of its share of the gradient.
        seconds_T: the seconds of each step, as a mean over its chunk.
    """

    values_TxCxF: NDArray[np.float64]
    seconds_T: NDArray[np.float64]

    def chains(self, nbeta: float, init_losses_TxCxB: NDArray[np.float32]) -> list[Chain]:
        """Returns the chains. A loss that is not finite, and all that follows it, become NaN.

        Args:
            nbeta: nβ, the inverse temperature times the number of examples.
            init_losses_TxCxB: the losses at w* of the examples of each step (nats).
        """
        values_TxCxF, init_TxCxB = self.values_TxCxF, init_losses_TxCxB.astype(np.float64)
        alive_TxC = np.logical_and.accumulate(np.isfinite(values_TxCxF[:, :, 0]))
        values_TxCxF = np.where(alive_TxC[:, :, None], values_TxCxF, np.nan)
        loss, slope, distance, first_loss, first_slope = np.moveaxis(values_TxCxF, 2, 0)
        B = init_TxCxB.shape[2]
        halves, share = np.split(init_TxCxB, [B // 2], axis=2), B // 2 / B
        if share:
            half_loss = first_loss, (loss - share * first_loss) / (1 - share)
            half_init = [np.where(np.isfinite(first_loss), h.mean(axis=2), np.nan) for h in halves]
            half_slope = first_slope / share, (slope - first_slope) / (1 - share)
        else:
            half_loss = half_init = half_slope = first_loss, first_loss
        seconds_TxC = np.where(alive_TxC, self.seconds_T[:, None] / alive_TxC.shape[1], np.nan)
        whole = loss, init_TxCxB.mean(axis=2), seconds_TxC, nbeta * slope, distance
        paired = [np.stack(h, axis=2) for h in (half_loss, half_init, half_slope)]
        paired[2] = nbeta * paired[2]
        return [
            Chain(*(each[:, c].copy() for each in (*whole, *paired)))
            for c in range(alive_TxC.shape[1])
        ]


def run_chains(
    loss: Loss,
    slopes: Slopes,
    samplers: Sequence[Sampler],
    batches_TxCxB: NDArray[np.int64],
    microbatch_size: int | None,
    device: torch.device,
    advance: Advance,
    repeated: bool = False,
) -> Record:
    """Runs C chains from the current parameters of their samplers, which must be attached.

    Args:
        loss: takes indices of examples (C, B) and returns their losses (C, B).
        slopes: returns Δ·∇ (C,) for the gradients that the chains have now.
        samplers: one for each chain.
        batches_TxCxB: the indices of each step's examples.
        microbatch_size: examples in one backward pass, None for all of a batch.
        device: the device of the parameters.
        advance: is told how many more steps are done.
        repeated: whether the GPU repeats steps as graphs (`capture`) once all samplers are steady.

    Returns:
        What the chains recorded. The run stops after a chunk in which every chain has a loss that
        is not finite; the rows after it are NaN.
    """
    steps, count, size = batches_TxCxB.shape
    values_TxCxF, seconds_T = np.full((steps, count, 5), np.nan), np.full(steps, np.nan)
    recorded = torch.from_numpy(values_TxCxF.copy()).to(device)
    indices_TxCxB = torch.from_numpy(batches_TxCxB).to(device)
    plain = [
        partial(accumulate_gradients, loss, microbatch_size, samplers, halves)
        for halves in (None, slopes)
    ]
    repeated = repeated and steps >= REPEATED
    with capture.stream(device) if repeated else nullcontext() as pool:
        graphs = [capture.Repeated(work, pool) for work in plain]
        for first in range(0, steps, CHUNK):
            chunk = slice(first, min(first + CHUNK, steps))
            start = time.perf_counter()
            for step in range(first, chunk.stop):
                steady = repeated and all(sampler.steady for sampler in samplers)
                work = (graphs if steady else plain)[step % HALVED == 0 and size > 1]
                found = work(indices_TxCxB[step])
                recorded[step, :, 0], recorded[step, :, 3], recorded[step, :, 4] = found
                for c, sampler in enumerate(samplers):
                    sampler.step()
                    recorded[step, c, 1:3] = sampler.place()
            values_TxCxF[chunk] = recorded[chunk].cpu().numpy()
            seconds_T[chunk] = (time.perf_counter() - start) / (chunk.stop - first)
            if not np.isfinite(values_TxCxF[chunk, :, 0]).all(axis=0).any():
                advance((steps - first) * count)
                break
            advance((chunk.stop - first) * count)
    return Record(values_TxCxF, seconds_T)


def accumulate_gradients(
    loss: Loss,
    microbatch_size: int | None,
    samplers: Sequence[Sampler],
    slopes: Slopes | None,
    index_CxB: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the mean losses of C batches and their gradients, one microbatch at a time.

    A sampler moves each parameter during the backward pass of the last microbatch, as soon as its
    gradient is complete. Samplers that need all gradients at once move them in `step` instead.

    Returns:
        The mean losses (C,) of the batches and of their first halves, and Δ·∇ (C,) of the first
        halves' share of the gradient; float64, on the batches' device. The last two are NaN without
        `slopes`.
    """
    size = index_CxB.shape[1]
    halves = [index_CxB] if slopes is None else index_CxB.tensor_split([size // 2], dim=1)
    pieces = [half.split(microbatch_size or size, dim=1) for half in halves]
    microbatches = [piece for half in pieces for piece in half]
    total_C = torch.zeros(len(index_CxB), dtype=torch.float64, device=index_CxB.device)
    first_loss = first_slope = torch.full_like(total_C, torch.nan)
    for i, examples_CxB in enumerate(microbatches, 1):
        losses_CxB = loss(examples_CxB)
        one = len(microbatches) == 1
        value_C = losses_CxB.mean(dim=1) if one else losses_CxB.sum(dim=1) / size
        total_C += value_C.detach().to(total_C.device)
        for sampler in samplers:
            sampler.gradients_complete = i == len(microbatches)
        value_C.sum().backward()
        if slopes is not None and i == len(pieces[0]):
            first_loss, first_slope = total_C * (size / (size // 2)), slopes().to(total_C.device)
    return total_C, first_loss, first_slope
