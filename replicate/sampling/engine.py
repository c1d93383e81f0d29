"""Runs groups × chains of a sampler around w* and records the minibatch losses.

A group is one reshuffling of the data. Its chains walk disjoint stretches of that order (as far as
the data reach), each with noise of its own, each from w*. Step t of a chain records the loss of its
minibatch before the update, so that the first is a loss at w*.

One set of weights serves all chains in turn, and w* is kept once, in 4 bits where the weights came
so. All batches of a chain are on the device before it starts, and the device is waited for once in
`CHUNK` steps. Between these a chain can rest: what moves, what the sampler keeps and what was
recorded, from which it goes on to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.progress import Advance, Rest, Restless
from replicate.sampling import samplers
from replicate.sampling.config import Setting
from replicate.sampling.resting import Resting, pack, unpack
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.storage import NF4, Anchor, dense

Loss = Callable[
    [Tensor], Tensor
]  # indices of examples (B,) → their losses under the model as it stands (B,)
CHUNK = 16  # steps between two looks at the losses


@dataclass(frozen=True)
class Chain:
    """Per step: the minibatch's loss, the same minibatch's loss at w* (nats per label), seconds. A
    chain that left the finite has NaN from there on.
    """

    loss: NDArray[np.float64]
    init_loss: NDArray[np.float64]
    seconds: NDArray[np.float64]


Chains = MutableMapping[tuple[int, int], Chain]  # by (group, chain)


@dataclass(frozen=True)
class Space:
    """What chains move: parameters, which stand at w*; per parameter a mask of its shape, 0 where a
    weight is held, or None; and w* in 4 bits, or None where a copy is to be kept.
    """

    parameters: Sequence[nn.Parameter]
    masks: Sequence[Tensor | None] = ()
    anchors: Sequence[NF4 | None] = ()

    def __post_init__(self) -> None:
        nothing = (None,) * len(self.parameters)
        object.__setattr__(self, "masks", self.masks or nothing)
        object.__setattr__(self, "anchors", self.anchors or nothing)

    @property
    def sizes(self) -> list[int]:
        """Of each parameter the weights that move."""
        return [
            p.numel() if mask is None else int(mask.sum())
            for p, mask in zip(self.parameters, self.masks, strict=True)
        ]

    def anchor(self) -> list[Anchor]:
        """w* as it stands now, or as it was loaded."""
        return [
            p.detach().clone() if given is None else given
            for p, given in zip(self.parameters, self.anchors, strict=True)
        ]


@dataclass(frozen=True)
class Plan:
    """groups × chains of burn_in + draws steps, by our samplers or devinterp's.

    Without `restart` each chain of a group goes on where the one before it ended, and takes that
    for its anchor, as the original study's quantised models did; such a group is run again as a
    whole. A step takes its examples `microbatch` at a time, None for all at once: less memory for
    the same mean, and the gradients are kept until the last.
    """

    nbeta: float
    batch_size: int
    groups: int
    chains: int
    burn_in: int
    draws: int
    restart: bool = True
    implementation: samplers.Implementation = "replicate"
    microbatch: int | None = None

    @property
    def steps(self) -> int:
        return self.burn_in + self.draws

    def missing(self, done: Collection[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """What is still to be run, in pieces that do not depend on each other."""
        whole = [[(group, chain) for chain in range(self.chains)] for group in range(self.groups)]
        if not self.restart:
            return [piece for piece in whole if any(key not in done for key in piece)]
        return [[key] for piece in whole for key in piece if key not in done]


def sample(
    space: Space,
    loss: Loss,
    init_losses_N: NDArray[np.float32],
    setting: Setting,
    plan: Plan,
    *,
    order: Callable[[int], NDArray[np.int64]],
    noise: Callable[[int, int], int],
    advance: Advance,
    done: Chains | None = None,
    rest: Callable[[tuple[int, int]], Rest] = lambda _: Restless(),
) -> xr.Dataset:
    """Traces over (group, chain, draw), as `assemble` gives them; chains found in `done` are not
    run again.
    """
    done = {} if done is None else done
    walk(
        space,
        loss,
        init_losses_N,
        setting,
        plan,
        plan.missing(done),
        order=order,
        noise=noise,
        advance=advance,
        done=done,
        rest=rest,
    )
    return assemble(plan, done)


def walk(
    space: Space,
    loss: Loss,
    init_losses_N: NDArray[np.float32],
    setting: Setting,
    plan: Plan,
    pieces: Sequence[Sequence[tuple[int, int]]],
    *,
    order: Callable[[int], NDArray[np.int64]],
    noise: Callable[[int, int], int],
    advance: Advance,
    done: Chains,
    rest: Callable[[tuple[int, int]], Rest] = lambda _: Restless(),
) -> None:
    """Runs the chains of `pieces` and puts each into `done` as it ends; `rest`: where a piece that
    begins with a chain rests.

    The parameters stand at w* and are put back there after each piece. `init_losses_N` holds every
    example's loss at w*; `order` gives a group's permutation of the N examples, `noise` a chain's
    seed.
    """
    anchor = space.anchor()
    for piece in pieces:
        place = rest(piece[0])
        found = place.load() or {}
        begin = int(
            found.get("begin", 0)
        )  # of the piece's chains, how many ended before the one that rests
        if any(key not in done for key in piece[:begin]):
            begin, found = 0, {}
        advance(begin * plan.steps)
        for i, (group, chain) in enumerate(piece[begin:], begin):
            examples = order(group)
            positions = np.arange(
                chain * plan.steps * plan.batch_size, (chain + 1) * plan.steps * plan.batch_size
            ) % len(examples)
            batches_TxB = examples[positions].reshape(plan.steps, plan.batch_size)
            origin = (
                anchor
                if i == 0
                else unpack("origin", found)
                or [parameter.detach().clone() for parameter in space.parameters]
            )
            resting = Resting(
                place, {"begin": torch.tensor(i)} | pack("origin", origin if i else ()), found
            )
            losses, seconds = run(
                space,
                origin,
                loss,
                setting,
                plan,
                batches_TxB,
                noise(group, chain),
                advance,
                resting,
            )
            init_losses = init_losses_N[batches_TxB].astype(np.float64).mean(axis=1)
            done[group, chain] = Chain(losses, init_losses, seconds)
            found = {}
        place.drop()
        with torch.no_grad():
            for parameter, origin in zip(space.parameters, anchor, strict=True):
                parameter.copy_(dense(origin))


def run(
    space: Space,
    anchor: Sequence[Anchor],
    loss: Loss,
    setting: Setting,
    plan: Plan,
    batches_TxB: NDArray[np.int64],
    seed: int,
    advance: Advance,
    resting: Resting,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One chain from where the parameters stand, or from where it rests: its losses (T,), NaN from
    the first on that is not finite, and seconds (T,).
    """
    device, steps = space.parameters[0].device, len(batches_TxB)
    batches = torch.from_numpy(batches_TxB).to(device)
    losses, seconds = np.full(steps, np.nan), np.full(steps, np.nan)
    recorded = torch.full((steps,), torch.nan, dtype=torch.float64, device=device)
    with torch.random.fork_rng(
        [device] if device.type == "cuda" else []
    ):  # from which devinterp's samplers draw
        sampler = samplers.sampler(
            space.parameters,
            anchor,
            setting,
            nbeta=plan.nbeta,
            seed=seed,
            burn_in=plan.burn_in,
            masks=space.masks,
            implementation=plan.implementation,
        )
        begin = resting.resume(space.parameters, sampler, losses, seconds)
        advance(begin)
        with sampler.attached():
            for first in range(begin, steps, CHUNK):
                chunk = slice(first, min(first + CHUNK, steps))
                start = time.perf_counter()
                for step in range(chunk.start, chunk.stop):
                    recorded[step] = descend(loss, batches[step], plan.microbatch, sampler)
                    sampler.step()
                losses[chunk] = recorded[chunk].cpu().numpy()
                seconds[chunk] = (time.perf_counter() - start) / (chunk.stop - chunk.start)
                broken = np.flatnonzero(~np.isfinite(losses[chunk]))
                if len(broken):
                    losses[first + broken[0] :] = np.nan
                    seconds[first + broken[0] :] = np.nan
                    advance(steps - first)
                    break
                advance(chunk.stop - chunk.start)
                resting.offer(space.parameters, sampler, losses, seconds)
    return losses, seconds


def descend(loss: Loss, batch_B: Tensor, microbatch: int | None, sampler: Sampler) -> Tensor:
    """The mean loss of a batch; its gradients reach the sampler with the last of its pieces."""
    pieces = batch_B.split(microbatch or len(batch_B))
    total = torch.zeros((), dtype=torch.float64, device=batch_B.device)
    for i, piece in enumerate(pieces):
        value = loss(piece).sum() / len(batch_B) if len(pieces) > 1 else loss(piece).mean()
        total += value.detach().to(total.device)
        sampler.complete = i + 1 == len(pieces)
        value.backward()
    return total


def assemble(plan: Plan, done: Chains) -> xr.Dataset:
    """The finished chains of a plan as one dataset.

    Returns:
        `loss`, `init_loss`, `seconds` (group, chain, draw), with `draw` counted from −burn_in, so
        that burn-in is below 0; `failed` (group, chain), true where a loss was not finite.
    """
    grid = [[done[group, chain] for chain in range(plan.chains)] for group in range(plan.groups)]
    stacked = {
        name: (
            ("group", "chain", "draw"),
            np.stack([[getattr(chain, name) for chain in row] for row in grid]),
        )
        for name in ("loss", "init_loss", "seconds")
    }
    failed = ~np.isfinite(stacked["loss"][1]).all(axis=-1)
    coordinates = {
        "group": np.arange(plan.groups),
        "chain": np.arange(plan.chains),
        "draw": np.arange(-plan.burn_in, plan.draws),
    }
    return xr.Dataset(stacked | {"failed": (("group", "chain"), failed)}, coordinates)
