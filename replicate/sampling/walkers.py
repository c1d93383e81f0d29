"""Runs chains that go on where they stopped, at other settings if need be.

A chain that starts at w* needs many steps to reach equilibrium where the localisation is weak. It
needs fewer from the equilibrium of a slightly stronger one, so walkers pass down a ladder of
settings. They also serve to draw until an estimate is precise enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from replicate.sampling.control import Control
from replicate.sampling.engine import Noise, Order, place, returning
from replicate.sampling.samplers import sampler as make_sampler
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.samplers.coarse import Coarse
from replicate.sampling.stack import Stack
from replicate.sampling.steps import Record, run_chains
from replicate.sampling.storage import Anchor
from replicate.sampling.task import Task
from replicate.seeds import derive

MakeSampler = Callable[[int, Sequence[nn.Parameter]], Sampler]


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
        self.memories: Sequence[Sequence[Tensor]] | None = None  # the noise of the last step
        self.control: Control | None = None

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
        controlled: bool = False,
    ) -> xr.Dataset:
        """Runs all chains for `sampling.steps` steps from where they are.

        Args:
            sampler: the sampler and its hyperparameters.
            sampling: nβ, the batch size, the burn-in and the draws; its numbers of shuffles and
                chains are replaced by those of the walkers.
            advance: is told how many more steps are done.
            coarse: whether a step of Leimkuhler–Matthews has the noise of two steps of half its
                size, and the minibatch of the first. Then only losses are recorded truly.
            controlled: whether minibatches have less noise for twice the gradients (`control`).

        Returns:
            The dataset that `sampling.sample` describes.
        """
        B, N, stride = sampling.batch_size, len(self.init_losses_N), 2 if coarse else 1
        position_TxB = (np.arange(sampling.steps) * stride + self.steps)[:, None] * B + np.arange(B)
        batches_TxCxB = np.stack(
            [o[(at + position_TxB) % N] for o, at in zip(self.orders, self.starts, strict=True)],
            axis=1,
        )
        control, each = self._controlled(B, advance) if controlled else None, 1 + controlled
        run = self._in_turn if self.stack is None else self._side_by_side
        found, samplers = run(
            control,
            lambda c, share: self._sampler(sampler, sampling, share, c, coarse),
            sampling,
            batches_TxCxB,
            lambda steps=1, note="": advance(each * steps, note),
        )
        memories = [[m for m in moved.memory if m is not None] for moved in samplers]
        self.memories = memories if samplers[0].keeps_noise and not coarse else None
        self.rounds, self.steps = self.rounds + 1, self.steps + stride * sampling.steps
        self.gradients += each * sampling.steps * len(self.keys)
        init_TxCxB = self.init_losses_N[batches_TxCxB]
        chains = [
            chain
            for record, init in zip(found, np.split(init_TxCxB, len(found), axis=1), strict=True)
            for chain in record.chains(sampling.nbeta, init)
        ]
        shape = replace(sampling, shuffles=self.shuffles, chains=self.chains)
        return assemble(shape, dict(zip(self.keys, chains, strict=True)))

    def _controlled(self, batch_size: int, advance: Advance) -> Control:
        """Returns the control variate, which is made once, when the parameters are at w*."""
        if self.control is None:
            chains, examples = len(self.keys), len(self.init_losses_N)
            self.control = Control(self.task, self.anchor, chains, examples, batch_size, advance)
            self.gradients += self.control.passes
        return self.control

    def _side_by_side(
        self,
        control: Control | None,
        make: MakeSampler,
        sampling: SamplingConfig,
        batches_TxCxB: NDArray[np.int64],
        advance: Advance,
    ) -> tuple[list[Record], list[Sampler]]:
        stack, loss = self.stack, self.task.stacked if control is None else control.side_by_side
        assert stack is not None and loss is not None
        samplers = [make(c, share) for c, share in enumerate(stack.shares)]
        with stack.attached(samplers):
            record = run_chains(
                lambda index_CxB: loss(stack.weights, index_CxB),
                stack.slopes,
                samplers,
                batches_TxCxB,
                sampling.microbatch_size,
                self.task.parameters[0].device,
                advance,
            )
        return [record], samplers

    def _in_turn(
        self,
        control: Control | None,
        make: MakeSampler,
        sampling: SamplingConfig,
        batches_TxCxB: NDArray[np.int64],
        advance: Advance,
    ) -> tuple[list[Record], list[Sampler]]:
        parameters, found, states, samplers = self.task.parameters, [], [], []
        loss = self.task.step_loss if control is None else control.alone
        with returning(self.task, self.anchor):
            for c in range(len(self.keys)):
                place(parameters, self.states[c])
                moving = make(c, parameters)
                with moving.attached():
                    found.append(
                        run_chains(
                            lambda index_CxB: loss(index_CxB[0])[None],
                            moving.slope,
                            [moving],
                            batches_TxCxB[:, c : c + 1],
                            sampling.microbatch_size,
                            parameters[0].device,
                            advance,
                            self.task.repeated,
                        )
                    )
                states.append([parameter.detach().clone() for parameter in parameters])
                samplers.append(moving)
        self.states = states
        return found, samplers

    def _sampler(
        self,
        sampler: SamplerConfig,
        sampling: SamplingConfig,
        parameters: Sequence[nn.Parameter],
        chain: int,
        coarse: bool,
    ) -> Sampler:
        made = (Coarse if coarse else make_sampler)(
            parameters,
            self.anchor,
            sampler,
            nbeta=sampling.nbeta,
            seed=derive(self.noise(*self.keys[chain]), "round", self.rounds),
            burn_in=sampling.burn_in,
            masks=self.task.masks,
        )
        if made.keeps_noise and self.memories is not None and not coarse:
            made.memory = [noise.clone() for noise in self.memories[chain]]
        return made
