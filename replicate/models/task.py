"""What the compute stages work on: a model at w* and the windows of its family, on the device they
run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from replicate.data import tensors as arrays
from replicate.data import windows
from replicate.errors import UserError
from replicate.models import (
    cpu_kernels as cpu,
)
from replicate.models import (
    last_token as label,
)
from replicate.models import (
    loading as models,
)
from replicate.models import (
    quantised as dequantised,
)
from replicate.models import (
    restrictions,
)
from replicate.pipeline.config import Family, Params
from replicate.sampling import Space
from replicate.seeds import derive

FILE = "windows.safetensors"


@dataclass(frozen=True)
class Subject:
    """A model and its text, and what of the model chains move. Called with indices of windows (B,),
    it gives their label losses (B,).
    """

    name: str
    family: str
    settings: Family
    model: PreTrainedModel
    tokens_NxL: Tensor
    seed: int
    names: tuple[str, ...]
    space: Space

    def __call__(self, index_B: Tensor) -> Tensor:
        tokens = self.tokens_NxL[index_B.to(self.tokens_NxL.device)].long()
        if self.settings.products == "float32":
            return label.losses(self.model, tokens)
        with torch.autocast(tokens.device.type, torch.bfloat16):
            return label.losses(self.model, tokens)

    def order(self, *shuffle: str | int) -> NDArray[np.int64]:
        return order(self.seed, self.family, len(self.tokens_NxL), *shuffle)


def order(seed: int, family: str, examples: int, *shuffle: str | int) -> NDArray[np.int64]:
    """The order of the examples in one shuffle: the same for every model of the family."""
    return np.random.default_rng(derive(seed, "shuffle", family, *shuffle)).permutation(examples)


def load(
    params: Params,
    name: str,
    windows_in: Path,
    model_in: Path,
    file: str = FILE,
    weights: str | None = None,
    restriction: Sequence[str] | None = None,
) -> Subject:
    """A model of params.yaml as its family has it, or with other `weights`, or with another
    `restriction`.

    Raises:
        UserError: it cannot be loaded, or its restriction names nothing.
    """
    family = params.models[name].family
    settings = params.families[family]
    settings = settings.model_copy(update={} if weights is None else {"weights": weights})
    device = models.device(settings.device, name, settings.cards)
    tokens = torch.from_numpy(windows.load(windows_in / file).tokens_NxL)
    dtype = dequantised.FORMATS.get(settings.weights)
    model = models.load(
        model_in, "nf4" if dtype else settings.weights, device, settings.products, settings.cards
    )
    anchors = dequantised.dequantise(model, dtype) if dtype else {}
    masks = restrictions.restrict(model, restriction or settings.sampling.restriction)
    label.focus(model)
    if settings.activations == "recomputed":
        models.recompute(model)
    cpu.trim()
    space = Space(
        [model.get_parameter(key) for key in masks],
        list(masks.values()),
        [anchors.get(key) for key in masks],
    )
    return Subject(
        name, family, settings, model, tokens.to(device), params.seed, tuple(masks), space
    )


def baseline_losses(baseline_in: Path, examples: int | None = None) -> NDArray[np.float32]:
    """The label loss of every window at w* (N,), as stage `baseline` wrote them.

    Raises:
        UserError: the file holds something else, or losses of another number than `examples`.
    """
    found = arrays.load(baseline_in / "losses.safetensors").get("losses")
    if found is None or (examples is not None and found.shape != (examples,)):
        raise UserError(
            f"{baseline_in}: not the losses of this family's windows; delete it and run dvc repro again"
        )
    return found
