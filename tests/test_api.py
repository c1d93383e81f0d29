"""`llc` estimates λ̂ of any module and changes nothing in it; what does not fit is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate import (
    SGLD,
    SGNHT,
    LeimkuhlerMatthews,
    RMSpropSGLD,
    baseline,
    calibrate,
    llc,
    sample,
)
from replicate.errors import ArgumentError
from replicate.models import last_token
from replicate.sampling import SamplerConfig
from replicate.sampling.samplers import SAMPLERS, Sampler
from replicate.validation import theory
from tests.conftest import ROOT
from tests.models import small_task
from tests.models.small_modules import Bowl, Lens, Vision, bowl_loss, classify

TOKENS = torch.randint(12, (40, 9), generator=torch.Generator().manual_seed(1))
SHORT: dict[str, Any] = {
    "nbeta": 10.0,
    "localization": 100.0,
    "lr": 1e-4,
    "burn_in": 4,
    "draws": 8,
    "chains": 2,
    "batch_size": 8,
    "show_progress": False,
}


def short(**other: Any) -> dict[str, Any]:
    return SHORT | other


def state(model: nn.Module) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [t.detach().numpy().tobytes() for t in tensors],
        [t.dtype for t in tensors],
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [id(p.grad) for p in model.parameters()],
        [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        [len(p._post_accumulate_grad_hooks or {}) for p in model.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
    ]


@pytest.mark.parametrize("sampler", [SGLD, RMSpropSGLD, LeimkuhlerMatthews])
def test_llc_of_a_quadratic_is_what_theory_says(sampler: type[Sampler]) -> None:
    h, x = (1.0, 4.0, 0.5), torch.zeros(16)
    lr = 0.002 if sampler is RMSpropSGLD else 0.01  # its theory is that of small steps
    estimate = llc(
        Bowl(h),
        x,
        nbeta=20.0,
        localization=5.0,
        lr=lr,
        loss_fn=bowl_loss,
        sampler=sampler,
        chains=8,
        burn_in=500,
        draws=5000,
        show_progress=False,
    )
    name = next(name for name, kind in SAMPLERS.items() if kind is sampler)
    truth = theory.gaussian(SamplerConfig(name, lr, localization=5.0), 20.0, np.array(h))
    assert abs(estimate.llc - truth) < 4 * estimate.standard_error < 0.2 * truth
    assert estimate.diverged == 0
    assert estimate.rhat < 1.05


def language_model() -> nn.Module:
    model = small_task.build()
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any]]] = {
    "GPT-2": (language_model, TOKENS, {}),
    "GPT-2, last token": (language_model, TOKENS, {"loss": "last"}),
    "Llama": (lambda: small_task.build("llama"), TOKENS, {}),
    "TransformerLens": (Lens, TOKENS, {}),
    "vision": (
        Vision,
        (torch.randn(40, 1, 6, 6), torch.randint(4, (40,))),
        {"loss_fn": classify},
    ),
}


@pytest.mark.parametrize("sampler", [SGLD, SGNHT, RMSpropSGLD])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_changes_in_the_model(name: str, sampler: type[Sampler]) -> None:
    make, data, options = MODELS[name]
    model = make()
    before = state(model)
    free = {"localization": 0.0, "lr": 1e-6} if sampler is SGNHT else {}
    settings = short(**options, **free)
    estimate = llc(model, data, sampler=sampler, **settings)
    assert state(model) == before
    assert estimate.trace.loss.shape == (1, 2, 12)
    assert estimate.trace.loss.std("draw").min() > 0


def test_nothing_changes_in_the_model_when_a_step_fails() -> None:
    model, calls = language_model(), []

    def loss(model: nn.Module, tokens: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return model(tokens).logits.float().logsumexp(-1).mean(-1)

    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        llc(model, TOKENS, loss_fn=loss, **SHORT)
    assert state(model) == before


def test_only_what_requires_a_gradient_moves() -> None:
    model = small_task.build()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "mlp" in name
    seen: list[dict[str, Tensor]] = []

    def loss(model: Any, tokens: Tensor) -> Tensor:
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return model(tokens).logits.float().square().mean((1, 2))

    trace = sample(model, TOKENS, loss_fn=loss, **SHORT)
    moved = {name for name in seen[0] if not torch.equal(seen[0][name], seen[-1][name])}
    assert moved == {name for name in seen[0] if "mlp" in name}
    assert trace.attrs["task"]["sampled_parameters"] == sum(seen[0][name].numel() for name in moved)


def test_the_losses_are_those_of_transformers() -> None:
    model: Any = small_task.build()
    with torch.no_grad():
        theirs = [float(model(row[None], labels=row[None]).loss) for row in TOKENS]
        last = last_token.losses(model, TOKENS)
    np.testing.assert_allclose(baseline(model, TOKENS), theirs, rtol=1e-5)
    np.testing.assert_allclose(baseline(model, TOKENS, loss="last"), last, rtol=1e-5)


def test_the_same_seed_gives_the_same_trace_and_the_attributes_say_what_made_it() -> None:
    model = small_task.build()
    first, again, other = (sample(model, TOKENS, seed=seed, **SHORT) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.loss, again.loss)
    assert (first.loss != other.loss).any()
    assert first.attrs["sampling"]["nbeta"] == SHORT["nbeta"]
    assert first.attrs["sampler"]["localization"] == SHORT["localization"]
    assert first.attrs["baseline"]["loss"] == pytest.approx(baseline(model, TOKENS).mean())
    assert json.dumps(first.attrs)


def test_a_sampler_that_blows_up_is_said_to_diverge() -> None:
    estimate = llc(small_task.build(), TOKENS, **short(lr=1e6))
    assert estimate.diverged == 1
    assert "2 of 2 chains diverged" in str(estimate)
    assert "lower lr" in str(estimate)


def test_an_estimate_is_printed_and_drawn() -> None:
    estimate = llc(small_task.build(), TOKENS, **SHORT)
    first, second, *rest = str(estimate).splitlines()
    assert first.startswith(f"λ̂ = {estimate.llc:.3g} ± {estimate.standard_error:.2g}")
    assert second == "At nβ = 10, γ = 100, ε = 0.0001: 2 chains of 8 draws after 4 steps."
    assert estimate.diagnosis.regime != "not in equilibrium" or rest[-1].startswith("Lower lr, or")
    figure = estimate.plot()
    losses, running = figure.axes
    assert len(losses.lines) == 3  # two chains, and the loss at w*
    assert np.asarray(running.lines[0].get_ydata())[-1] == pytest.approx(estimate.llc)
    figure.canvas.draw()
    ticks = [*losses.get_xticklabels(), *losses.get_yticklabels()]
    assert {label.get_size() for label in (*ticks, losses.xaxis.label)} == {7}  # as in the report
    assert json.loads(estimate.to_json())["llc"] == estimate.llc


def test_an_estimate_that_cannot_be_judged_says_so() -> None:
    alone = str(llc(small_task.build(), TOKENS, **short(chains=1)))
    assert "One chain has no standard error: run two or more." in alone
    brief = str(llc(small_task.build(), TOKENS, **short(draws=2)))
    assert "Too few draws to judge the chains: draw 4 or more." in brief


def test_calibrate_finds_a_known_coefficient() -> None:
    (found,) = calibrate(["quadratic"], show_progress=False)
    assert found.exact is not None
    assert found.interval[0] < found.exact < found.interval[1]


def broken() -> nn.Module:
    model = small_task.build()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return model


def frozen() -> nn.Module:
    return small_task.build().requires_grad_(False)


def constant(model: nn.Module, tokens: Tensor) -> Tensor:
    return torch.zeros(len(tokens))


def mean(model: Any, tokens: Tensor) -> Tensor:
    return model(tokens).logits.mean()


BAD: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "token": (small_task.build, TOKENS + 5, {}, "tokens: 16 is not in the model's vocabulary"),
    "negative token": (small_task.build, TOKENS - 1, {}, "tokens: -1 is not in"),
    "one window": (small_task.build, TOKENS[:1], {}, "tokens: at least two windows"),
    "one token": (small_task.build, TOKENS[:, :1], {}, "tokens: must be whole numbers"),
    "long": (small_task.build, TOKENS.repeat(1, 2), {}, "tokens: the model takes 9 of 18 tokens"),
    "floats": (small_task.build, TOKENS.float(), {}, "tokens: must be whole numbers"),
    "nan": (broken, TOKENS, {}, "the weight transformer.wte.weight of the model is not finite"),
    "frozen": (frozen, TOKENS, {}, "no parameter of the model requires a gradient"),
    "nbeta": (small_task.build, TOKENS, {"nbeta": 0.0}, "nbeta = 0.0: must be above 0"),
    "lr": (small_task.build, TOKENS, {"lr": float("inf")}, "lr = inf: must be finite"),
    "γ": (small_task.build, TOKENS, {"localization": -1.0}, "localization = -1.0: must not be"),
    "half a chain": (small_task.build, TOKENS, {"chains": 2.5}, "chains = 2.5: must be a whole"),
    "no number": (small_task.build, TOKENS, {"lr": "1e-4"}, "lr = '1e-4': must be a number"),
    "chains": (small_task.build, TOKENS, {"chains": 0}, "chains = 0: must be above 0"),
    "batch": (small_task.build, TOKENS, {"batch_size": 41}, "batch_size = 41: there are 40"),
    "loss": (small_task.build, TOKENS, {"loss": "first"}, "loss = 'first': must be one of"),
    "knob": (small_task.build, TOKENS, {"diffusion": 1.0}, "diffusion: SGLD has no such argument"),
    "no microbatch": (
        small_task.build,
        TOKENS,
        {"microbatch_size": 0},
        "microbatch_size = 0: must",
    ),
    "box": (small_task.build, TOKENS, {"bounding_box": 0}, "bounding_box = 0: must be above 0"),
    "noise": (small_task.build, TOKENS, {"noise_level": -1.0}, "noise_level = -1.0: must not be"),
    "sampler": (small_task.build, TOKENS, {"sampler": "adam"}, "sampler = 'adam': there are SGLD"),
    "start": (
        small_task.build,
        TOKENS,
        {"sampler": "leimkuhler", "stationary": True, "lr": 1.0},
        "stationary: needs localization above 0 and lr × localization below 4",
    ),
    "yes": (
        small_task.build,
        TOKENS,
        {"sampler": "leimkuhler", "stationary": 1},
        "stationary = 1: must be True or False",
    ),
    "SGNHT": (small_task.build, TOKENS, {"sampler": SGNHT}, "localization = 100.0: SGNHT has none"),
    "scalar": (small_task.build, TOKENS, {"loss_fn": mean}, "loss_fn: must return a loss for each"),
    "constant": (small_task.build, TOKENS, {"loss_fn": constant}, "the loss does not depend on"),
    "parts": (
        small_task.build,
        (TOKENS, TOKENS[1:]),
        {"loss_fn": constant},
        "data: every tensor must have one entry",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_the_remedy(name: str) -> None:
    make, data, options, message = BAD[name]
    model = make()
    before = state(model)
    with pytest.raises(ValueError) as error:
        llc(model, data, **short(**options))
    assert isinstance(error.value, ArgumentError)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert state(model) == before


def test_import_is_quick_and_loads_no_torch() -> None:
    code = "import sys, replicate; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.split() == ["False", "False"]
