"""`python -m benchmarks.efficiency`: how many gradients each sampler needs for λ̂ to 1 %.

Every row is one sampler at one step on one model at one posterior. Independent chains give λ̂ and
its standard error s; the gradients (of 32 windows) for a standard error of 1 % are

    all gradients of the chains, with their burn-in × (s / (0.01·λ̂))²

The bias is the difference to the reference, chains with a small step and many gradients. A row is
written to efficiency.json as soon as it is measured, and a row that is there is not measured again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm

from benchmarks.machine import describe
from replicate.data import windows
from replicate.data.json_io import read_json, write_json
from replicate.models import loading, stacked
from replicate.models.cpu_kernels import fast_cpu
from replicate.models.gelu import gelu
from replicate.progress import silent
from replicate.sampling import Chain, SamplerConfig, SamplingConfig, Task, run_pieces
from replicate.sampling.task import StackedLoss
from replicate.seeds import derive

FILE = Path(__file__).parent / "efficiency.json"
BATCH = 32
INITIAL = 32  # minibatches of devinterp's baseline

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
            torch.testing.assert_close(self.at_w_star(torch.arange(8)[None])[0], own, rtol=1e-4, atol=1e-4)
            self.init_losses_N = torch.cat(
                [self.at_w_star(i[None])[0] for i in torch.arange(self.examples).split(256)]
            ).numpy()
        self.table: list[list[Tensor]] | None = None

    def at_w_star(self, index_CxB: Tensor) -> Tensor:
        return self.loss([p[None].expand(len(index_CxB), *p.shape) for p in self.parameters], index_CxB)

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
        if self.table is None:
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
            excess_C = sum(
                ((w - a) * (g - m)).flatten(1).sum(1)
                for w, a, g, m in zip(weights, anchor, found, self.mean_gradient, strict=True)
            )
            return self.loss(weights, index_CxB) - excess_C[:, None]

        return loss

    def run(self, method: Method, seed: str) -> list[Chain]:
        """Runs the method's chains, each in a shuffle of its own."""
        loss = self.loss if method.control == "none" else self.controlled(method.control == "fresh")
        sampling = SamplingConfig(
            self.posterior.nbeta, BATCH, method.chains, 1, method.burn_in, method.draws
        )
        sampler = asdict(method.sampler) | {"localization": self.posterior.localization}

        def order(shuffle: int) -> NDArray[np.int64]:
            generator = np.random.default_rng(derive(2023, seed, "order", shuffle))
            if method.control == "table":
                blocks = generator.permutation(self.examples // BATCH)
                return (blocks[:, None] * BATCH + np.arange(BATCH)).ravel()
            return generator.permutation(self.examples)

        chains = run_pieces(
            Task(lambda index_B: self.at_w_star(index_B[None])[0], self.parameters, stacked=loss),
            SamplerConfig(**sampler),
            sampling,
            sampling.pieces(),
            self.init_losses_N,
            together=8,
            order=order,
            noise=lambda shuffle, chain: derive(2023, seed, "noise", shuffle, chain),
            advance=silent,
        )
        return list(chains.values())


def plan(model: str) -> list[tuple[Posterior, Method]]:
    """Returns the rows of a model, the most important first."""
    label, tokens = Posterior(model, "label", 30, 500), Posterior(model, "tokens", 1910, 300)

    def method(
        name: str, lr: float, chains: int, burn_in: int, draws: int, control: Control = "none", **k: Any
    ) -> Method:
        return Method(SamplerConfig(name, lr, **k), chains, burn_in, draws, control)

    return [
        (label, method("leimkuhler", 2e-3, 24, 20, 180)),
        (tokens, method("leimkuhler", 1e-4, 16, 160, 200)),
        (label, method("leimkuhler", 1e-3, 24, 30, 180, "table")),
        (tokens, method("leimkuhler", 1e-4, 16, 160, 200, "table")),
        (label, method("sgld", 1e-4, 16, 120, 300)),
        (tokens, method("leimkuhler", 2e-4, 16, 100, 150, "table")),
        (tokens, method("sgld", 2e-5, 16, 500, 500)),
        (label, method("leimkuhler", 1e-3, 24, 10, 180, stationary=True)),
        (label, method("sgld", 1e-3, 16, 30, 180)),
        (label, method("rmsprop", 1e-3, 16, 60, 180)),
        (tokens, method("rmsprop", 1e-4, 16, 200, 200)),
    ]


def row(posterior: Posterior, method: Method, chains: list[Chain], seconds: float) -> dict[str, Any]:
    """Returns what efficiency.json has of a method: λ̂ of each chain, and its costs."""
    start = method.burn_in
    values = [posterior.nbeta * (c.loss - c.init_loss) for c in chains]
    return {
        "posterior": asdict(posterior),
        "method": asdict(method),
        "seconds": seconds,
        "llc": [float(v[start:].mean()) for v in values],
        "quarters": [float(np.mean(q)) for q in np.array_split(np.stack(values)[:, start:], 4, 1)],
    }


@click.command()
@click.option("--model", default="mini-34k")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data/mini"))
@click.option("--traces", type=click.Path(path_type=Path), help="a folder for all losses")
@click.option("--minutes", type=float, default=60.0, help="after which no row is begun")
def main(model: str, data: Path, traces: Path | None, minutes: float) -> None:
    """Measures the rows that efficiency.json lacks and prints the table."""
    torch.set_num_threads(1)
    until, problems = time.monotonic() + 60 * minutes, {}
    with fast_cpu():
        for posterior, method in plan(model):
            found = read_json(FILE) if FILE.exists() else {}
            key = f"{posterior.name}: {method.name}"
            if key in found.get("rows", {}) or time.monotonic() > until:
                continue
            if posterior not in problems:
                problems[posterior] = Problem(posterior, data)
            begun = time.monotonic()
            chains = problems[posterior].run(method, key)
            new = row(posterior, method, chains, time.monotonic() - begun)
            if traces is not None:
                traces.mkdir(exist_ok=True, parents=True)
                parts = {n: np.stack([getattr(c, n) for c in chains]) for n in ("loss", "init_loss")}
                np.savez(traces / f"{key}.npz", **parts)
            found["machine"] = describe().name
            found.setdefault("rows", {})[key] = new
            write_json(FILE, found)
            llc = np.array(new["llc"])
            print(key, llc.mean(), llc.std(ddof=1) / len(llc) ** 0.5, new["seconds"], flush=True)


if __name__ == "__main__":
    main()
