"""The printed `llc(…)` tells the right regime of each of five losses, by its own chain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from replicate import llc


class Loss(nn.Module):
    """½·Σ h·w² + Σ w⁴·q + Σ w·g at w = 0, over 12 weights."""

    def __init__(self, h: float = 0.0, q: float = 0.0, g: float = 0.0) -> None:
        super().__init__()
        self.w, self.h, self.q, self.g = nn.Parameter(torch.zeros(12)), h, q, g


def loss_fn(model: Loss, x_B: Tensor) -> Tensor:
    square = model.w.square()
    found = model.h / 2 * square + model.q * square.square() + model.g * model.w
    return found.sum() + 0.0 * x_B


@pytest.mark.parametrize(
    ("model", "nbeta", "gamma", "precision", "regime", "says"),
    [
        (Loss(h=1.0), 1e4, 10.0, 0.01, "plateau", "λ̂ depends neither on γ nor on nβ here"),
        (Loss(h=1.0), 1.0, 100.0, 0.03, "curvature", "λ̂ is the curvature ½·nβ·tr(H)/γ"),
        (Loss(q=1.0), 1.0, 100.0, 0.05, "localised, anharmonic", "λ̂ is the mean rise"),
        (Loss(h=1.0), 10.0, 10.0, 0.03, "crossover", "λ̂ is an effective dimension"),
        (Loss(h=1.0, g=0.5), 30.0, 30.0, 0.01, "gradient", "w* is no minimum"),
    ],
    ids=["plateau", "curvature", "localised", "crossover", "gradient"],
)
def test_the_printed_estimate_names_the_regime(
    model: Loss, nbeta: float, gamma: float, precision: float, regime: str, says: str
) -> None:
    settings = {"precision": precision, "budget": 60_000, "show_progress": False}
    found = llc(
        model, torch.zeros(64), loss_fn=loss_fn, nbeta=nbeta, localization=gamma, **settings
    )
    assert found.diagnosis.regime == regime, found.diagnosis
    printed = str(found)
    assert f"Regime: {regime}: " in printed
    assert says in printed
