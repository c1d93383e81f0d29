"""Posteriors of small models, and the chains of a sampler on them, for `benchmarks.efficiency`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from replicate.data import windows
from replicate.models import loading, stacked
from replicate.models.config import TextLoss
from replicate.progress import silent
from replicate.sampling import Chain, SamplerConfig, SamplingConfig, Task, run_pieces
from replicate.sampling.task import StackedLoss
from replicate.seeds import derive

BATCH = 32

Control = Literal["none", "fresh", "table"]


@dataclass(frozen=True)
class Posterior:
    """A loss of a model (`last` for the label, or `tokens`), nβ and γ."""

    model: str
    loss: TextLoss
    nbeta: float
    localization: float

    @property
    def name(self) -> str:
        loss = "label" if self.loss == "last" else "tokens"
        return f"{self.model}, {loss}, {self.nbeta:g}, {self.localization:g}"


@dataclass(frozen=True)
class Method:
    """A sampler with its step, and chains.

    Attributes:
        sampler: the sampler and its hyperparameters, without γ.
        chains: independent chains.
        burn_in: steps before the draws.
        draws: steps that count.
        control: the gradient control variate ∇L_B(w) − ∇L_B(w*) + ∇L(w*): `fresh` computes
            ∇L_B(w*) each time, so a step costs two gradients; `table` computes it once for each of
            a fixed set of minibatches.
    """

    sampler: SamplerConfig
    chains: int
    burn_in: int
    draws: int
    control: Control = "none"

    @property
    def name(self) -> str:
        start = ", stationary" if self.sampler.stationary else ""
        control = "" if self.control == "none" else f", {self.control} control variate"
        return f"{self.sampler.sampler} {self.sampler.lr:g}{start}{control}"

    @property
    def gradients(self) -> int:
        """The gradients of 32 windows that the chains take, without those of the table."""
        steps = self.chains * (self.burn_in + self.draws)
        return steps * (2 if self.control == "fresh" else 1)


class Problem:
    """A model at w* with its windows and loss, and what is computed at w* once.

    Args:
        posterior: the model and the loss.
        data: the folder of a family, with `models` and `windows`.
    """

    def __init__(self, posterior: Posterior, data: Path) -> None:
        model = loading.load(data / "models" / posterior.model, "float32", torch.device("cpu"))
        tokens_NxL = torch.from_numpy(windows.load(data / "windows/windows.safetensors").tokens_NxL)
        tokens_NxL = tokens_NxL[: len(tokens_NxL) // BATCH * BATCH]
        named = dict(model.named_parameters())
        loss = stacked.loss(model, tokens_NxL, tuple(named), posterior.loss)
        if loss is None:
            raise ValueError(f"{posterior.model}: chains cannot be computed side by side")
        self.loss, self.parameters = loss, list(named.values())
        self.posterior, self.examples = posterior, len(tokens_NxL)
        with torch.no_grad():
            self.init_losses_N = torch.cat(
                [self.at_w_star(i[None])[0] for i in torch.arange(self.examples).split(256)]
            ).numpy()
        self.table: list[Tensor] = []
        self.mean_gradient: list[Tensor] = []

    def at_w_star(self, index_CxB: Tensor) -> Tensor:
        return self.loss(
            [p[None].expand(len(index_CxB), *p.shape) for p in self.parameters], index_CxB
        )

    def gradients(self, index_CxB: Tensor) -> list[Tensor]:
        """Returns ∇L_B(w*) of C minibatches, each (C, …)."""
        with torch.enable_grad():
            weights = [
                p.detach()[None].expand(len(index_CxB), *p.shape).clone().requires_grad_()
                for p in self.parameters
            ]
            value = self.loss(weights, index_CxB).mean(1).sum()
            return list(torch.autograd.grad(value, weights))

    def tabulate(self) -> None:
        """Computes ∇L_B(w*) of the minibatches of consecutive windows, once."""
        if not self.table:
            index_KxB = torch.arange(self.examples).view(-1, BATCH)
            parts = [self.gradients(index) for index in index_KxB.split(16)]
            self.table = [torch.cat(each) for each in zip(*parts, strict=True)]
            self.mean_gradient = [each.mean(0) for each in self.table]

    def controlled(self, fresh: bool) -> StackedLoss:
        """Returns the loss minus (w − w*)·(∇L_B(w*) − ∇L(w*)), which has the same mean."""
        self.tabulate()
        anchor = [p.detach() for p in self.parameters]

        def loss(weights: Sequence[Tensor], index_CxB: Tensor) -> Tensor:
            rows = index_CxB[:, 0] // BATCH
            found = self.gradients(index_CxB) if fresh else [each[rows] for each in self.table]
            parts = [
                ((w - a) * (g - m)).flatten(1).sum(1)
                for w, a, g, m in zip(weights, anchor, found, self.mean_gradient, strict=True)
            ]
            return self.loss(weights, index_CxB) - torch.stack(parts).sum(0)[:, None]

        return loss

    def run(self, method: Method, seed: str) -> list[Chain]:
        """Runs the method's chains, each in a shuffle of its own."""
        loss = self.loss if method.control == "none" else self.controlled(method.control == "fresh")
        sampling = SamplingConfig(
            self.posterior.nbeta, BATCH, method.chains, 1, method.burn_in, method.draws
        )
        sampler = replace(method.sampler, localization=self.posterior.localization)

        def order(shuffle: int) -> NDArray[np.int64]:
            generator = np.random.default_rng(derive(2023, seed, "order", shuffle))
            if method.control == "table":
                blocks = generator.permutation(self.examples // BATCH)
                return (blocks[:, None] * BATCH + np.arange(BATCH)).ravel()
            return generator.permutation(self.examples)

        chains = run_pieces(
            Task(lambda index_B: self.at_w_star(index_B[None])[0], self.parameters, stacked=loss),
            sampler,
            sampling,
            sampling.pieces(),
            self.init_losses_N,
            together=8,
            order=order,
            noise=lambda shuffle, chain: derive(2023, seed, "noise", shuffle, chain),
            advance=silent,
        )
        return list(chains.values())
