"""Runs chains that go on where they stopped, at other settings if need be.

A chain that starts at w* needs many steps to reach equilibrium where the localisation is weak. It
needs fewer from the equilibrium of a slightly stronger one, so walkers pass down a ladder of
settings. They also serve to draw until an estimate is precise enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.progress import Advance
from replicate.sampling.chains import assemble
from replicate.sampling.config import SamplerConfig, SamplingConfig
from replicate.sampling.engine import Noise, Order, place, returning
from replicate.sampling.samplers import sampler as make_sampler
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.samplers.coarse import Coarse
from replicate.sampling.stack import Stack
from replicate.sampling.steps import Record, run_chains
from replicate.sampling.storage import Anchor
from replicate.sampling.task import Task
from replicate.seeds import derive


class Walkers:
    """Holds the weights of shuffles × chains chains, which all start at w*.

    Chains of a task with a stacked loss run side by side; those of another run in turn, and each
    keeps a copy of its weights meanwhile.

    Args:
        task: the loss and the parameters, which are at w*, and are there again after each run.
        init_losses_N: the loss of each of the N examples at w*.
        shuffles: the number of random orders of the examples.
        chains: the number of chains in each shuffle.
        order: returns the permutation of the N examples in a shuffle.
        noise: returns the seed of a (shuffle, chain).

    Attributes:
        gradients: the number of gradients of minibatches that were computed.
    """

    def __init__(
        self,
        task: Task,
        init_losses_N: NDArray[np.float32],
        shuffles: int,
        chains: int,
        *,
        order: Order,
        noise: Noise,
    ) -> None:
        self.task, self.init_losses_N, self.noise = task, init_losses_N, noise
        self.shuffles, self.chains = shuffles, chains
        self.keys = [(s, c) for s in range(shuffles) for c in range(chains)]
        self.anchor, self.rounds, self.steps, self.gradients = task.anchor(), 0, 0, 0
        self.orders = [order(s) for s, _ in self.keys]
        N = len(init_losses_N)
        self.starts = [c * N // chains for _, c in self.keys]  # chains read different examples
        self.stack = Stack(self.anchor, len(self.keys)) if task.stacked else None
        self.states: Sequence[Sequence[Anchor]] = [self.anchor] * len(self.keys)

    def branch(self) -> Walkers:
        """Returns other walkers at the same weights, with the noise and the minibatches to come."""
        other = copy(self)
        other.gradients = 0
        if self.stack is not None:
            other.stack = Stack(self.anchor, len(self.keys))
            other.restore(self.saved())
        return other

    def saved(self) -> Sequence[Sequence[Anchor]]:
        """Returns the weights of the chains, for `restore`."""
        return (
            self.states
            if self.stack is None
            else [[w.detach().clone() for w in self.stack.weights]]
        )

    @torch.no_grad()
    def restore(self, saved: Sequence[Sequence[Anchor]]) -> None:
        """Sets the chains back to weights that `saved` returned."""
        if self.stack is None:
            self.states = saved
        else:
            place(self.stack.weights, saved[0])

    @contextmanager
    def at(self, chain: int) -> Iterator[Task]:
        """Gives the task with its parameters at the weights of a chain, for as long as it lasts."""
        weights = self.states[chain] if self.stack is None else self.stack.shares[chain]
        with returning(self.task, self.anchor):
            place(self.task.parameters, weights)
            yield self.task

    def losses(self, index_E: Tensor, batch_size: int) -> NDArray[np.float64]:
        """Returns the losses of some examples where the chains are, (S, C, E)."""
        found = []
        for chain in range(len(self.keys)):
            with self.at(chain) as task, torch.no_grad():
                parts = [task.loss(index_B).double().cpu() for index_B in index_E.split(batch_size)]
            found.append(torch.cat(parts).numpy())
        return np.reshape(found, (self.shuffles, self.chains, len(index_E)))

    def run(
        self,
        sampler: SamplerConfig,
        sampling: SamplingConfig,
        advance: Advance,
        *,
        coarse: bool = False,
    ) -> xr.Dataset:
        """Runs all chains for `sampling.steps` steps from where they are.

        Args:
            sampler: the sampler and its hyperparameters.
            sampling: nβ, the batch size, the burn-in and the draws; its numbers of shuffles and
                chains are replaced by those of the walkers.
            advance: is told how many more steps are done.
            coarse: whether a step of SGLD has the noise of two steps of half its size, and the
                minibatch of the first. Then only losses are recorded truly.

        Returns:
            The dataset that `sampling.sample` describes.
        """
        B, N, stride = sampling.batch_size, len(self.init_losses_N), 2 if coarse else 1
        position_TxB = (np.arange(sampling.steps) * stride + self.steps)[:, None] * B + np.arange(B)
        batches_TxCxB = np.stack(
            [o[(at + position_TxB) % N] for o, at in zip(self.orders, self.starts, strict=True)],
            axis=1,
        )
        run = self._in_turn if self.stack is None else self._side_by_side
        found = run(sampler, sampling, batches_TxCxB, advance, coarse)
        self.rounds, self.steps = self.rounds + 1, self.steps + stride * sampling.steps
        self.gradients += sampling.steps * len(self.keys)
        init_TxCxB = self.init_losses_N[batches_TxCxB]
        chains = [
            chain
            for record, init in zip(found, np.split(init_TxCxB, len(found), axis=1), strict=True)
            for chain in record.chains(sampling.nbeta, init)
        ]
        shape = replace(sampling, shuffles=self.shuffles, chains=self.chains)
        return assemble(shape, dict(zip(self.keys, chains, strict=True)))

    def _side_by_side(
        self,
        sampler: SamplerConfig,
        sampling: SamplingConfig,
        batches_TxCxB: NDArray[np.int64],
        advance: Advance,
        coarse: bool,
    ) -> list[Record]:
        stack, loss = self.stack, self.task.stacked
        assert stack is not None and loss is not None
        samplers = [
            self._sampler(sampler, sampling, share, c, coarse)
            for c, share in enumerate(stack.shares)
        ]
        with stack.attached(samplers):
            return [
                run_chains(
                    lambda index_CxB: loss(stack.weights, index_CxB),
                    stack.slopes,
                    samplers,
                    batches_TxCxB,
                    sampling.microbatch_size,
                    self.task.parameters[0].device,
                    advance,
                )
            ]

    def _in_turn(
        self,
        sampler: SamplerConfig,
        sampling: SamplingConfig,
        batches_TxCxB: NDArray[np.int64],
        advance: Advance,
        coarse: bool,
    ) -> list[Record]:
        parameters, found, states = self.task.parameters, [], []
        with returning(self.task, self.anchor):
            for c in range(len(self.keys)):
                place(parameters, self.states[c])
                moving = self._sampler(sampler, sampling, parameters, c, coarse)
                with moving.attached():
                    found.append(
                        run_chains(
                            lambda index_CxB: self.task.loss(index_CxB[0])[None],
                            moving.slope,
                            [moving],
                            batches_TxCxB[:, c : c + 1],
                            sampling.microbatch_size,
                            parameters[0].device,
                            advance,
                        )
                    )
                states.append([parameter.detach().clone() for parameter in parameters])
        self.states = states
        return found

    def _sampler(
        self,
        sampler: SamplerConfig,
        sampling: SamplingConfig,
        parameters: Sequence[nn.Parameter],
        chain: int,
        coarse: bool,
    ) -> Sampler:
        return (Coarse if coarse else make_sampler)(
            parameters,
            self.anchor,
            sampler,
            nbeta=sampling.nbeta,
            seed=derive(self.noise(*self.keys[chain]), "round", self.rounds),
            burn_in=sampling.burn_in,
            masks=self.task.masks,
        )
