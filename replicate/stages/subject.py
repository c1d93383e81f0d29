"""What the compute stages work on: a model at w* and the windows of its family, on the device they run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor
from transformers import PreTrainedModel

from replicate import label, models, windows
from replicate.params import Family, Params
from replicate.seeds import derive


@dataclass(frozen=True)
class Subject:
    """A model and its text. Called with indices of windows (B,), it gives their label losses (B,)."""

    name: str
    family: str
    settings: Family
    model: PreTrainedModel
    tokens_NxL: Tensor
    seed: int

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


def load(params: Params, name: str, windows_in: Path, model_in: Path, file: str = "windows.safetensors") -> Subject:
    family = params.models[name].family
    settings = params.families[family]
    device = models.device(settings.device, name)
    tokens = torch.from_numpy(windows.load(windows_in / file).tokens_NxL)
    model = models.load(model_in, settings.weights, device)
    label.focus(model)
    return Subject(name, family, settings, model, tokens.to(device), params.seed)


def baseline_losses(baseline_in: Path) -> NDArray[np.float32]:
    """The label loss of every window at w* (N,), as stage `baseline` wrote them."""
    return load_file(baseline_in / "losses.safetensors")["losses"]
