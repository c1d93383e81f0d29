"""Defines the units of work that several stages use: chains, and the baseline at w*.

The attributes of a unit determine its result, so its key in the cache is computed without loading a
model; torch is imported only when a unit runs. A unit writes one file and returns nothing (see
`replicate.pipeline.parallel`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.data import tensors
from replicate.errors import UserError
from replicate.models import config as models
from replicate.models.config import TaskConfig
from replicate.pipeline import cache, environment
from replicate.pipeline.parallel import run_units
from replicate.progress import Advance, silent
from replicate.sampling import FIELDS, Chain, SamplerConfig, SamplingConfig, assemble
from replicate.seeds import derive

if TYPE_CHECKING:
    from replicate.models.task import TextTask
    from replicate.pipeline.config import Config

Piece = tuple[tuple[int, int], ...]  # (shuffle, chain): one chain, or successive chains
K = TypeVar("K")

_loaded: dict[TaskConfig, TextTask] = {}


def load(config: TaskConfig) -> TextTask:
    """Returns a task. The process has one in memory, and frees it before it loads another."""
    from replicate.models import task

    if config not in _loaded:
        _loaded.clear()
        _loaded[config] = task.load(config)
    return _loaded[config]


@dataclass(frozen=True)
class CachedUnit(ABC):
    """A unit of the stage that dvc.yaml calls `stage`; `root` is the folder of the cache."""

    root: Path
    stage: str

    @property
    @abstractmethod
    def name(self) -> str:
        """The unit's name in messages."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """The amount of work, in the units in which progress is counted."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns everything that the result depends on, except code."""

    @abstractmethod
    def run(self, advance: Advance) -> None:
        """Computes the result and writes the file."""

    @property
    def file(self) -> Path:
        """The path of the unit's file in the cache."""
        key = cache.key(code=cache.code_hash(self.stage), **self.settings())
        return self.root / self.stage / key

    def done(self) -> bool:
        """Returns whether the cache has the complete result."""
        return cache.read(self.file) is not None

    def read(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Returns the arrays and notes of a finished unit.

        Raises:
            UserError: the unit's file is missing or damaged.
        """
        found = cache.read(self.file)
        if found is None:
            raise UserError(f"{self.file}: is missing or damaged; run the same command again")
        return found

    def write(self, arrays: dict[str, NDArray[Any]], **notes: Any) -> None:
        """Writes the result, with the code's hash and the machine that computed it."""
        notes |= {"code": cache.code_hash(self.stage), "machine": environment.sampling()}
        cache.write(self.file, arrays, **notes)


@dataclass(frozen=True)
class BaselineUnit(CachedUnit):
    """A unit that computes the loss of every example at w*, and the gradient at w*.

    The gradient is the mean over `gradient_examples` examples. A backward pass has `gradient_batch`
    examples, a forward pass `batch_size`. `curvature` has the numbers of `baseline.hessian`.
    """

    task: TaskConfig
    seed: int
    batch_size: int
    gradient_examples: int
    gradient_batch: int
    examples: int
    curvature: tuple[int, int, int] | tuple[()] = ()

    @property
    def name(self) -> str:
        return f"baseline of {self.task.model} in {self.task.weights}"

    @property
    def steps(self) -> int:
        return models.work(self.examples, self.gradient_examples, *self.curvature)

    def settings(self) -> dict[str, Any]:
        numbers = (self.seed, self.batch_size, self.gradient_examples, self.gradient_batch)
        numbers += self.curvature
        return {"baseline": self.task.identity(), "family": self.task.family, "numbers": numbers}

    def run(self, advance: Advance) -> None:
        from replicate.models import baseline

        task = load(self.task)
        order_N = models.order(self.seed, self.task.family, task.examples, "gradient")
        used, batches = self.gradient_examples, (self.batch_size, self.gradient_batch)
        losses_N, report = baseline.examine(task, order_N[:used], *batches, advance)
        if self.curvature:
            numbers = *self.curvature, self.gradient_batch, derive(self.seed, "curvature")
            report["curvature"] = baseline.hessian(task, order_N, *numbers, advance)
        self.write({"losses": losses_N}, report=report)


@dataclass(frozen=True)
class ChainUnit(CachedUnit):
    """A unit that runs one chain, or chains that belong together.

    Chains belong together if they are computed side by side, if each starts where the last one
    ended (`restart: false`), or if they are one trial of a search.

    Attributes:
        pieces: each is one chain, or chains that each start where the last one ended.
        baseline: the file of the losses at w*; None to compute those that the chains need.
        baseline_hash: the hash of the losses in that file.
        search: whether the unit uses the batches and noise of the family's search.
    """

    task: TaskConfig
    sampler: SamplerConfig
    sampling: SamplingConfig
    pieces: tuple[Piece, ...]
    seed: int
    batch_size: int
    baseline: Path | None = None
    baseline_hash: str = ""
    search: bool = False

    @property
    def name(self) -> str:
        (shuffle, chain), *_ = self.pieces[0]
        which = f"lr {self.sampler.lr:.3g}" if self.search else f"shuffle {shuffle}, chain {chain}"
        return f"{self.stage} {self.task.model}, {which}"

    @property
    def steps(self) -> int:
        return len(self.keys) * self.sampling.steps

    @property
    def keys(self) -> Piece:
        """The (shuffle, chain) of each chain."""
        return tuple(key for piece in self.pieces for key in piece)

    def settings(self) -> dict[str, Any]:
        """Leaves out the numbers of shuffles and of chains that start at w*, so more can follow."""
        found = self.planned()
        found["sampling"] |= {"shuffles": None}
        if self.sampling.restart:
            found["sampling"] |= {"chains": None}
        baseline = self.baseline_hash or self.batch_size
        return found | {"pieces": self.pieces, "baseline": baseline, "search": self.search}

    def order(self, examples: int, shuffle: int) -> NDArray[np.int64]:
        """Returns the order (N,) of the examples in a shuffle."""
        which = "search" if self.search else shuffle
        return models.order(self.seed, self.task.family, examples, which)

    def noise(self, shuffle: int, chain: int) -> int:
        """Returns the seed of a chain's noise, which is the same for all samplers of a model."""
        model = self.task.model
        which = ("search", model, chain) if self.search else (model, shuffle, chain)
        return derive(self.seed, "noise", *which)

    def run(self, advance: Advance) -> None:
        from replicate.sampling import run_pieces

        task = load(self.task)
        chains = run_pieces(
            task,
            self.sampler,
            self.sampling,
            self.pieces,
            self._losses(task),
            together=self.task.together,
            order=lambda shuffle: self.order(task.examples, shuffle),
            noise=self.noise,
            advance=advance,
        )
        arrays = {f: np.stack([getattr(one, f) for one in chains.values()]) for f in FIELDS}
        self.write(arrays, task=task.identity())

    def _losses(self, task: TextTask) -> NDArray[np.float32]:
        """Returns the losses (N,) at w*; an example that no chain reads may have NaN."""
        if self.baseline is not None:
            return read_losses(self.baseline, task.examples)
        from replicate.models import baseline

        orders = {shuffle: self.order(task.examples, shuffle) for shuffle, _ in self.keys}
        met = [meets(self.sampling, orders[shuffle], number) for shuffle, number in self.keys]
        index_N = np.unique(np.concatenate(met))
        losses_N = np.full(task.examples, np.nan, np.float32)
        losses_N[index_N] = baseline.losses(task, index_N, self.batch_size, silent)
        return losses_N

    def chains(self) -> dict[tuple[int, int], Chain]:
        """Returns the finished chains, by (shuffle, chain)."""
        arrays, _ = self.read()
        return {key: Chain(**{f: arrays[f][i] for f in FIELDS}) for i, key in enumerate(self.keys)}

    def planned(self) -> dict[str, Any]:
        """Returns the attributes that a trace of this unit must have."""
        return {
            "stage": self.stage,
            "family": self.task.family,
            "model": self.task.model,
            "seed": self.seed,
            "sampler": asdict(self.sampler),
            "sampling": asdict(self.sampling),
            "task": self.task.identity(),
        }


def meets(sampling: SamplingConfig, order_N: NDArray[np.int64], chain: int) -> NDArray[np.int64]:
    """Returns the examples (steps × batch_size,) that a chain of a shuffle reads, in order."""
    length = sampling.steps * sampling.batch_size
    return order_N[np.arange(chain * length, (chain + 1) * length) % len(order_N)]


def trace(units: Sequence[ChainUnit]) -> xr.Dataset:
    """Gathers the finished chains of one model and sampler in one dataset.

    Returns:
        The losses (shuffle, chain, draw) in nats. The attribute `baseline` has the mean loss at w*,
        over all examples if the units have their losses, else over the chains' minibatches.
    """
    first, notes = units[0], [unit.read()[1] for unit in units]
    chains = {key: one for unit in units for key, one in unit.chains().items()}
    found, machine = assemble(first.sampling, chains), notes[0]["machine"]
    mean = found.init_loss.mean()
    if first.baseline is not None:
        mean = tensors.load(first.baseline)["losses"].mean(dtype=np.float64)
    devices = sorted({note["machine"]["device"] for note in notes})
    return found.assign_attrs(
        first.planned() | {"task": notes[0]["task"]},
        baseline={"loss": float(mean), "windows": first.task.hashes[0]},
        code=notes[0]["code"],
        machine=machine | {"device": ", ".join(devices)},
    )


def run_chains(
    config: Config, family: str, title: str, chains: Mapping[K, Sequence[ChainUnit]]
) -> Iterator[tuple[K, xr.Dataset]]:
    """Runs the chains of a family's models, then yields each trace with its key in `chains`."""
    every = chain.from_iterable(chains.values())
    run_units(every, config.machine, f"{title} {family}", config.families[family].gpus_per_model)
    for key, units in chains.items():
        yield key, trace(units)


def read_losses(path: Path, examples: int) -> NDArray[np.float32]:
    """Reads the losses (N,) in nats of all windows at w*.

    Raises:
        UserError: the file has no losses, or losses of another number of windows.
    """
    found = tensors.load(path).get("losses")
    if found is None or found.shape != (examples,):
        raise UserError(f"{path}: not the losses of these {examples} windows; run stage baseline")
    return found
