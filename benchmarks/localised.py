"""Posteriors of small models, and the chains of a sampler on them, for `benchmarks.efficiency`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm

from replicate.data import windows
from replicate.models import loading, stacked
from replicate.models.gelu import gelu
from replicate.progress import silent
from replicate.sampling import Chain, SamplerConfig, SamplingConfig, Task, run_pieces
from replicate.sampling.task import StackedLoss
from replicate.seeds import derive

BATCH = 32

Control = Literal["none", "fresh", "table"]


@dataclass(frozen=True)
class Posterior:
    """A loss of a model (`label` or `tokens`), nβ and γ."""

    model: str
    loss: Literal["label", "tokens"]
    nbeta: float
    localization: float

    @property
    def name(self) -> str:
        return f"{self.model}, {self.loss}, {self.nbeta:g}, {self.localization:g}"


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


def tokens_loss(weights: stacked.Weights, tokens_CxBxL: Tensor, config: Any) -> Tensor:
    """Returns the mean losses of all tokens but the first (C, B), in nats, of a GPT-2."""
    C, B, L = tokens_CxBxL.shape
    P, d, w = L - 1, config.n_embd, weights

    def norm(x: Tensor, name: str) -> Tensor:
        found = layer_norm(x, (d,), eps=config.layer_norm_epsilon)
        return torch.addcmul(w[f"{name}.bias"][:, None], found, w[f"{name}.weight"][:, None])

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.baddbmm(w[f"{name}.bias"][:, None], x, w[f"{name}.weight"])

    wte = w["transformer.wte.weight"]
    x = stacked.looked_up(wte, tokens_CxBxL[:, :, :-1]).view(C, B, P, d)
    x = (x + w["transformer.wpe.weight"][:, None, :P]).view(C, B * P, d)
    for block in (f"transformer.h.{i}" for i in range(config.n_layer)):
        q, k, v = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").chunk(3, -1)
        x = x + linear(stacked.attend(q, k, v, C * B, config.n_head), f"{block}.attn.c_proj")
        h = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(gelu(h), f"{block}.mlp.c_proj")
    logits = torch.bmm(norm(x, "transformer.ln_f"), wte.transpose(1, 2))
    labels = tokens_CxBxL[:, :, 1:].reshape(-1)
    return cross_entropy(logits.flatten(0, 1), labels, reduction="none").view(C, B, P).mean(2)


class Problem:
    """A model at w* with its windows and loss, and what is computed at w* once.

    Args:
        posterior: the model and the loss.
        data: the folder of a family, with `models` and `windows`.
    """

    def __init__(self, posterior: Posterior, data: Path) -> None:
        model = loading.load(data / "models" / posterior.model, "float32", torch.device("cpu"))
        tokens_NxL = torch.from_numpy(windows.load(data / "windows/windows.safetensors").tokens_NxL)
        self.tokens_NxL = tokens_NxL[: len(tokens_NxL) // BATCH * BATCH].long()
        self.posterior, self.examples = posterior, len(self.tokens_NxL)
        named = dict(model.named_parameters())
        self.parameters, names, config = list(named.values()), tuple(named), model.config
        forward = tokens_loss if posterior.loss == "tokens" else stacked.gpt2

        def loss(weights: Sequence[Tensor], index_CxB: Tensor) -> Tensor:
            found = dict(zip(names, weights, strict=True))
            return forward(found, self.tokens_NxL[index_CxB], config)

        self.loss: StackedLoss = loss
        with torch.no_grad():
            logits = model(self.tokens_NxL[:8, :-1]).logits
            tokens = cross_entropy(logits.mT, self.tokens_NxL[:8, 1:], reduction="none")
            own = tokens.mean(1) if posterior.loss == "tokens" else tokens[:, -1]
            torch.testing.assert_close(
                self.at_w_star(torch.arange(8)[None])[0], own, rtol=1e-4, atol=1e-4
            )
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
