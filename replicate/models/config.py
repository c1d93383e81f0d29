"""Holds the configurations of tasks and trainings. This module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from replicate.seeds import derive

TextLoss = Literal["last", "tokens"]
LOSSES = {"last": "the last token", "tokens": "all tokens but the first"}  # in messages

MANIFEST = "manifest.json"  # a model's folder has it instead of weights; it says where they are
EVALUATED = 4096  # the number of windows, the first ones, over which final losses are averaged
PROMISED = (0.001, 0.003, 0.01, 0.03, 0.1)  # nats; see `baseline.descent`


@dataclass(frozen=True)
class TaskConfig:
    """Describes a task: a model, its windows, their formats, and the weights that move.

    Attributes:
        family: the name of the family.
        model: the name of the model.
        folder: the folder of the model at w*, written by stage `pretrain`.
        windows: the file of the windows; None for a model that has not sampled its text yet.
        weights: a format of `loading.load` or of `quantised.FORMATS`.
        compute_dtype: the precision of matrix products, float32 or bfloat16.
        restriction: words of `replicate.models.restrictions`, which name the weights that move.
        device: 'cuda' if a GPU is required; otherwise a GPU is used if there is one.
        gradient_checkpointing: whether the backward pass recomputes activations to save memory.
        gpus_per_model: the number of GPUs over which the model is spread.
        hashes: the SHA-256 of the windows and of the model's files.
        together: the number of chains computed at once, if `stacked` supports the model.
        left_unquantised: patterns (fnmatch) of the matrices that may stay unquantised. This only
            permits them, so no result depends on it.
        compiled: whether torch compiles the passes of a chain's steps on a GPU.
        loss: `last` for the loss of a window's last token, `tokens` for the mean loss of all its
            tokens but the first.
    """

    family: str
    model: str
    folder: Path
    windows: Path | None
    weights: str
    compute_dtype: str
    restriction: tuple[str, ...]
    device: str
    gradient_checkpointing: bool
    gpus_per_model: int
    hashes: tuple[str, str]
    together: int = 1
    left_unquantised: tuple[str, ...] = ()
    compiled: bool = False
    loss: TextLoss = "last"

    def identity(self) -> dict[str, Any]:
        """Returns the fields on which results depend, for the attributes of a trace."""
        found = {
            "weights": self.weights,
            "compute_dtype": self.compute_dtype,
            "restriction": list(self.restriction),
            "windows": self.hashes[0],
            "model": self.hashes[1],
        }
        found |= {"together": self.together} if self.together > 1 else {}
        found |= {"compiled": True} if self.compiled else {}
        return found | ({"loss": self.loss} if self.loss != "last" else {})


@dataclass(frozen=True)
class Schedule:
    """Describes how a model is trained.

    Attributes:
        lr: the learning rate of Adam after the warm-up.
        batch_size: the number of windows in a step.
        warmup: the number of steps over which the rate rises to `lr`.
        check: the number of steps between two checks of the loss.
        tolerance: the loss is flat if it improves by less than this between two checks (nats per
            token).
        descent: the share of all steps over which the rate falls to zero.
        steps: the largest number of steps.
    """

    lr: float
    batch_size: int
    warmup: int
    check: int
    tolerance: float
    descent: float
    steps: int


def order(seed: int, family: str, examples: int, *shuffle: str | int) -> NDArray[np.int64]:
    """Returns the order of the examples in a shuffle, which all models of a family share.

    Args:
        seed: the study's seed.
        family: the name of the family.
        examples: N, the number of examples.
        shuffle: what identifies the shuffle within the family.

    Returns:
        A permutation of the example indices, (N,).
    """
    return np.random.default_rng(derive(seed, "shuffle", family, *shuffle)).permutation(examples)


def work(
    examples: int, gradient_examples: int, windows: int = 0, probes: int = 0, products: int = 0
) -> int:
    """Returns the number of passes, each of one example, of `baseline.examine` and `hessian`.

    Args:
        examples: the examples whose loss at w* is computed.
        gradient_examples: the examples whose gradient is computed. Half of them are evaluated
            again after each step of `PROMISED`.
        windows: the windows of `baseline.hessian`, of which a quarter is used twice.
        probes: its random vectors.
        products: its products for each of them.
    """
    used, curved = min(gradient_examples, examples), 5 * min(windows, examples) // 4
    return curved * probes * products + examples + used + len(PROMISED) * (used // 2)
