"""Defines the units of work that several stages use: chains, and the baseline at w*.

The attributes of a unit determine its result, so its key in the cache is computed without loading a
model; torch is imported only when a unit runs. A unit writes one file and returns nothing (see
`replicate.pipeline.parallel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.data import tensors
from replicate.errors import UserError
from replicate.models import config as models
from replicate.models.config import TaskConfig
from replicate.pipeline import cache, environment
from replicate.progress import Advance, silent
from replicate.sampling import Chain, SamplerConfig, SamplingConfig, assemble
from replicate.seeds import derive

if TYPE_CHECKING:
    from replicate.models.task import TextTask

Piece = tuple[tuple[int, int], ...]  # (shuffle, chain): one chain, or successive chains


_loaded: dict[TaskConfig, TextTask] = {}


def load(config: TaskConfig) -> TextTask:
    """Returns a task. The process has one in memory, and frees it before it loads another."""
    from replicate.models import task

    if config not in _loaded:
        _loaded.clear()
        _loaded[config] = task.load(config)
    return _loaded[config]


@dataclass(frozen=True)
class CachedUnit:
    """A unit of `stage`, as dvc.yaml names it, whose file is in the cache's folder `root`."""

    root: Path
    stage: str

    def settings(self) -> dict[str, Any]:
        """Returns everything that the result depends on, except code."""
        raise NotImplementedError

    @property
    def file(self) -> Path:
        """The path of the unit's file in the cache."""
        found = cache.key(code=cache.code_hash(self.stage), **self.settings())
        return self.root / self.stage / found

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

    The gradient is that of `gradient_examples` examples; a backward pass has `gradient_batch`.
    """

    task: TaskConfig
    seed: int
    batch_size: int
    gradient_examples: int
    gradient_batch: int
    examples: int

    @property
    def name(self) -> str:
        return f"baseline of {self.task.model} in {self.task.weights}"

    @property
    def steps(self) -> int:
        return models.work(self.examples, self.gradient_examples)

    def settings(self) -> dict[str, Any]:
        numbers = (self.seed, self.batch_size, self.gradient_examples, self.gradient_batch)
        return {"baseline": self.task.identity(), "family": self.task.family, "numbers": numbers}

    def run(self, advance: Advance) -> None:
        from replicate.models import baseline

        task = load(self.task)
        order_N = models.order(self.seed, self.task.family, task.examples, "gradient")
        losses_N, report = baseline.examine(
            task,
            order_N[: self.gradient_examples],
            self.batch_size,
            self.gradient_batch,
            advance,
        )
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
        return sum(map(len, self.pieces)) * self.sampling.steps

    def settings(self) -> dict[str, Any]:
        """Leaves out the number of shuffles and, if all chains start at w*, that of chains.

        More of them then recompute no chain that is in the cache.
        """
        sampling = asdict(self.sampling) | {"shuffles": None}
        if self.sampling.restart:
            sampling |= {"chains": None}
        return {
            "task": self.task.identity(),
            "names": (self.task.family, self.task.model),
            "sampler": asdict(self.sampler),
            "sampling": sampling,
            "pieces": self.pieces,
            "seed": self.seed,
            "baseline": self.baseline_hash or self.batch_size,
            "search": self.search,
        }

    def order(self, examples: int, shuffle: int) -> NDArray[np.int64]:
        """Returns the order (N,) of the examples in a shuffle."""
        name = "search" if self.search else shuffle
        return models.order(self.seed, self.task.family, examples, name)

    def noise(self, shuffle: int, chain: int) -> int:
        """Returns the seed of a chain's noise, which is the same for all samplers of a model."""
        if self.search:
            return derive(self.seed, "noise", "search", self.task.model, chain)
        return derive(self.seed, "noise", self.task.model, shuffle, chain)

    def run(self, advance: Advance) -> None:
        from replicate.sampling import run_pieces

        task = load(self.task)
        losses_N = self._losses(task)
        chains = run_pieces(
            task,
            self.sampler,
            self.sampling,
            self.pieces,
            losses_N,
            together=self.task.together,
            order=lambda shuffle: self.order(task.examples, shuffle),
            noise=self.noise,
            advance=advance,
        )
        stacked = {
            field: np.stack([getattr(chain, field) for chain in chains.values()])
            for field in ("loss", "init_loss", "seconds")
        }
        self.write(stacked, task=task.identity())

    def _losses(self, task: TextTask) -> NDArray[np.float32]:
        """Returns the losses (N,) at w*; an example that no chain reads may have NaN."""
        if self.baseline is not None:
            return read_losses(self.baseline, task.examples)
        from replicate.models import baseline

        met = [
            meets(self.sampling, self.order(task.examples, shuffle), chain)
            for piece in self.pieces
            for shuffle, chain in piece
        ]
        index_N = np.unique(np.concatenate(met))
        losses_N = np.full(task.examples, np.nan, np.float32)
        losses_N[index_N] = baseline.losses(task, index_N, self.batch_size, silent)
        return losses_N

    def chains(self) -> dict[tuple[int, int], Chain]:
        """Returns the finished chains, by (shuffle, chain)."""
        arrays, _ = self.read()
        keys = [key for piece in self.pieces for key in piece]
        return {key: Chain(*(arrays[f][i] for f in FIELDS)) for i, key in enumerate(keys)}

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


FIELDS = ("loss", "init_loss", "seconds")


def meets(sampling: SamplingConfig, order_N: NDArray[np.int64], chain: int) -> NDArray[np.int64]:
    """Returns the examples (steps × batch_size,) that a chain of a shuffle reads, in order."""
    length = sampling.steps * sampling.batch_size
    return order_N[np.arange(chain * length, (chain + 1) * length) % len(order_N)]


def trace(units: Sequence[ChainUnit], baseline: dict[str, Any] | None = None) -> xr.Dataset:
    """Gathers the finished chains of one model and sampler in one dataset.

    Args:
        units: the units of all these chains.
        baseline: `loss`, the mean loss (nats) at w* over all examples, and `windows`, their hash;
            None to use the mean loss at w* over the minibatches of the chains.

    Returns:
        The losses (shuffle, chain, draw) in nats; the attributes say how they were computed.
    """
    chains = {key: chain for unit in units for key, chain in unit.chains().items()}
    notes = [unit.read()[1] for unit in units]
    machines = [note["machine"] for note in notes]
    devices = sorted({machine["device"] for machine in machines})
    first = units[0]
    found = assemble(first.sampling, chains)
    if baseline is None:
        baseline = {"loss": float(found.init_loss.mean()), "windows": first.task.hashes[0]}
    return found.assign_attrs(
        first.planned()
        | {
            "task": notes[0]["task"],
            "baseline": baseline,
            "code": notes[0]["code"],
            "machine": machines[0] | {"device": ", ".join(devices)},
        }
    )


def read_losses(path: Path, examples: int) -> NDArray[np.float32]:
    """Reads the losses (N,) in nats of all windows at w*.

    Raises:
        UserError: the file has no losses, or losses of another number of windows.
    """
    found = tensors.load(path).get("losses")
    if found is None or found.shape != (examples,):
        raise UserError(f"{path}: not the losses of these {examples} windows; run stage baseline")
    return found
