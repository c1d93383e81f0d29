"""Small modules that are not Hugging Face models, with their losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class Bowl(nn.Module):
    """½·Σ hᵢwᵢ² at its minimum."""

    def __init__(self, h: tuple[float, ...]) -> None:
        super().__init__()
        self.w, self.h = nn.Parameter(torch.zeros(len(h))), torch.tensor(h)


def bowl_loss(model: Bowl, x_B: Tensor) -> Tensor:
    return 0.5 * (model.h * model.w.square()).sum() + 0.0 * x_B


class Lens(nn.Module):
    """Logits as a tensor, as TransformerLens returns them, from one tied matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 6)
        self.unembed = nn.Linear(6, 12, bias=False)
        self.unembed.weight = self.embed.weight
        self.cfg = type("Config", (), {"d_vocab": 12})()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.unembed(self.embed(tokens))


class Vision(nn.Module):
    """A classifier of 6 × 6 images with batch normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def classify(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(model(images), labels, reduction="none")
