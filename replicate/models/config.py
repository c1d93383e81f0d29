"""What is to be done with a model, in numbers and names: nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replicate.seeds import derive

MANIFEST = "manifest.json"  # in the folder of a model that is in the hub's cache
EVALUATED = 4096  # windows, the first ones, over which the final losses of a training are means
PROMISED = (0.001, 0.003, 0.01, 0.03, 0.1)  # nats, each the fall that a step promises


@dataclass(frozen=True)
class TaskConfig:
    """Which model, on which text, in which format, and what of it moves.

    Attributes:
        folder: of the model at w*, as stage `pretrain` left it.
        windows: the file of the family's windows.
        weights, compute_dtype: see `replicate.models.loading.load`.
        restriction: what moves, in the words of `replicate.models.restrictions`.
        hashes: SHA-256 of the windows and of the model's files.
        together: chains that are computed side by side, if `stacked` knows the architecture.
    """

    family: str
    model: str
    folder: Path
    windows: Path
    weights: str
    compute_dtype: str
    restriction: tuple[str, ...]
    device: str
    gradient_checkpointing: bool
    gpus_per_model: int
    hashes: tuple[str, str]
    together: int = 1

    def identity(self) -> dict[str, Any]:
        """Returns what results depend on, as a trace's attributes hold it."""
        return {
            "weights": self.weights,
            "compute_dtype": self.compute_dtype,
            "restriction": list(self.restriction),
            "windows": self.hashes[0],
            "model": self.hashes[1],
        } | ({"together": self.together} if self.together > 1 else {})


@dataclass(frozen=True)
class Schedule:
    """How a model is trained.

    Attributes:
        lr: of Adam.
        batch_size: windows of a step.
        warmup: steps over which the rate rises.
        check: steps between two checks of the loss.
        tolerance: the improvement between checks (nats per token) below which the loss is flat.
        descent: the share of all steps over which the rate falls to zero.
        steps: at most.
    """

    lr: float
    batch_size: int
    warmup: int
    check: int
    tolerance: float
    descent: float
    steps: int


def order(seed: int, family: str, examples: int, *shuffle: str | int) -> NDArray[np.int64]:
    """Returns the order (N,) of the examples in a shuffle, the same for all models of a family."""
    return np.random.default_rng(derive(seed, "shuffle", family, *shuffle)).permutation(examples)


def work(examples: int, gradient_examples: int) -> int:
    """Returns how many examples `baseline.examine` passes forward: all of them, those of the
    gradient, and the second half of these for each step along it.
    """
    used = min(gradient_examples, examples)
    return examples + used + len(PROMISED) * (used // 2)
