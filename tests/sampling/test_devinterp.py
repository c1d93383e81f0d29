"""The samplers are devinterp's: with the same noise they give the same weights, whatever the
options.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from devinterp.optim import SGMCMC, SGNHT
from torch import Tensor, nn

from replicate.sampling import SamplerConfig, compilation, samplers
from replicate.sampling.devinterp import optimizer
from tests.scenarios import Quadratic, filled, moved

NBETA, SEED, STEPS = 20.0, 123, 30
SHAPES = ((70, 90), (5,), (3, 2, 4))
MASKS: list[Tensor | None] = [torch.arange(6300).view(70, 90) % 3 == 0, None, torch.zeros(3, 2, 4)]
SGLD_OPTIONS = [
    SamplerConfig("sgld", 1e-3),
    SamplerConfig("sgld", 1e-3, localization=40.0),
    SamplerConfig("sgld", 1e-3, weight_decay=30.0),
    SamplerConfig("sgld", 1e-3, bounding_box=0.02),
    SamplerConfig("sgld", 1e-3, noise_level=0.3),
    SamplerConfig(
        "sgld", 2e-3, localization=7.0, weight_decay=5.0, bounding_box=0.03, noise_level=1.7
    ),
]
BOXED_SGNHT = SamplerConfig("sgnht", 1e-3, diffusion=0.1, bounding_box=0.05)
SGNHT_OPTIONS = [
    SamplerConfig("sgnht", 1e-4, diffusion=0.05),
    SamplerConfig("sgnht", 1e-4, diffusion=0.3, noise_diffusion=0.01),
    BOXED_SGNHT,
]
RMSPROP = SamplerConfig("rmsprop", 1e-3)
AVERAGED = SamplerConfig("leimkuhler", 1e-3, 5.0, 7.0, bounding_box=0.03, stationary=True)
masked = pytest.mark.parametrize("masks", [None, MASKS], ids=["all weights", "masked"])


class Valley:
    """A loss with curvature, slope and a coupling of all weights, in float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.centre = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
        self.weights = [nn.Parameter(centre.clone()) for centre in self.centre]

    def __call__(self) -> Tensor:
        square = sum(((w - 0.3) ** 2 * (1 + w.detach().abs())).sum() for w in self.weights)
        return 0.05 * (square + torch.stack([w.sum() for w in self.weights]).sum() ** 2 / 1000)


def ours(
    config: SamplerConfig, masks: list[Tensor | None] | None = None, **options: Any
) -> list[Tensor]:
    """The weights after some steps of this package's sampler."""
    valley = Valley()
    options |= {"nbeta": NBETA, "seed": SEED, "burn_in": 5, "masks": masks}
    moved(samplers.sampler(valley.weights, valley.centre, config, **options), valley, STEPS)
    return [w.detach() for w in valley.weights]


def theirs(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> list[Tensor]:
    """The weights after some steps of devinterp's optimizer."""
    valley = Valley()
    sampler = make(valley.weights)
    for _ in range(STEPS):
        sampler.zero_grad()
        valley().backward()
        sampler.step()
    return [w.detach() for w in valley.weights]


@pytest.fixture
def our_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives devinterp this package's noise, tensor after tensor from step 0 on."""

    def numbers() -> Iterator[Tensor]:
        for step in itertools.count(0):
            for tensor, shape in enumerate(SHAPES):
                x = filled(int(np.prod(shape)), SEED, step, tensor)
                yield torch.from_numpy(x).view(shape).double()

    stream = numbers()
    monkeypatch.setattr(torch, "randn_like", lambda *_: next(stream))
    monkeypatch.setattr(torch, "normal", lambda *, std, **_: std * next(stream))


def same(found: Sequence[Tensor], reference: Sequence[Tensor], tolerance: float = 1e-12) -> None:
    """All but one weight in a thousand agree: SGNHT's box may reverse one in one case only."""
    for a, b in zip(found, reference, strict=True):
        assert ((a - b).abs() < tolerance).double().mean() > 0.999


@masked
@pytest.mark.parametrize("config", SGLD_OPTIONS, ids=str)
@pytest.mark.usefixtures("our_noise")
def test_sgld_takes_devinterps_path(
    config: SamplerConfig, masks: list[Tensor | None] | None
) -> None:
    found = ours(config, masks)
    floats = [None if mask is None else mask.double() for mask in masks or [None] * 3]
    same(found, theirs(lambda weights: optimizer(weights, config, NBETA, floats)))
    if masks:
        torch.testing.assert_close(found[2], Valley().centre[2], rtol=0, atol=0)


@pytest.mark.parametrize("config", SGNHT_OPTIONS, ids=str)
@pytest.mark.usefixtures("our_noise")
def test_sgnht_takes_devinterps_path(config: SamplerConfig) -> None:
    """Both begin with the momenta that the noise of step 0 gives. devinterp has its thermostat in
    float32.
    """
    same(ours(config), theirs(lambda weights: optimizer(weights, config, NBETA)), 1e-5)


@pytest.mark.parametrize("config", [*SGLD_OPTIONS, BOXED_SGNHT, RMSPROP, AVERAGED], ids=str)
@masked
def test_the_steps_in_torch_are_those_of_the_compiled_loop(
    config: SamplerConfig, masks: list[Tensor | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They agree to the noise's rounding in float32: its logarithm and cosine are torch's there."""
    loop = ours(config, masks)
    monkeypatch.setattr("replicate.sampling.samplers.base.has_cpu_kernel", lambda _: False)
    same(ours(config, masks), loop, 1e-5)


@pytest.mark.skipif(
    shutil.which("g++") is None or " " in torch.__file__,
    reason="no g++, with which torch compiles for a CPU, or blanks in its path",
)
@pytest.mark.parametrize("config", [SGLD_OPTIONS[-1], SGNHT_OPTIONS[0], RMSPROP, AVERAGED], ids=str)
def test_compiled_into_one_kernel_the_steps_are_the_same(
    config: SamplerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch compiles for this processor as it would for a GPU."""
    monkeypatch.setattr("replicate.sampling.samplers.base.has_cpu_kernel", lambda _: False)
    eager = ours(config)
    monkeypatch.setattr(
        compilation, "fused", cache(lambda update: torch.compile(update, dynamic=True))
    )
    same(ours(config), eager, 1e-5)


OPTIMIZERS = [
    (SamplerConfig("sgld", 1e-3, localization=3), partial(SGMCMC.sgld, lr=1e-3, localization=3)),
    (SamplerConfig("sgnht", 1e-4, diffusion=0.05), partial(SGNHT, lr=1e-4, diffusion_factor=0.05)),
]


@pytest.mark.parametrize(("config", "make"), OPTIMIZERS, ids=["sgld", "sgnht"])
def test_the_reference_is_devinterps_own(config: SamplerConfig, make: Callable[..., Any]) -> None:
    """With `implementation="devinterp"` each number is that of devinterp with torch's generator."""
    found = ours(config, implementation="devinterp")
    torch.manual_seed(SEED)
    reference = theirs(lambda weights: make(weights, nbeta=NBETA))
    torch.testing.assert_close(found, reference, rtol=0, atol=0)


@pytest.mark.parametrize("diffusion", [0.001, 0.3])
def test_with_the_noise_of_2023_the_llc_does_not_depend_on_the_diffusion_factor(
    diffusion: float,
) -> None:
    """A regular model of 64 weights has λ = 32 in equilibrium, whatever the initial friction."""
    target = Quadratic(np.array([0.5, 1.0, 2.0, 4.0] * 16))
    config = SamplerConfig("sgnht", 1e-4, diffusion=diffusion, noise_diffusion=0.01)
    sampler = samplers.sampler([target.w], [target.w.detach().clone()], config, nbeta=NBETA, seed=1)
    losses = moved(sampler, lambda: target(torch.arange(1)).mean(), 16_000)
    assert NBETA * losses[4000:].mean() == pytest.approx(32.0, rel=0.06)


def attached(weights: list[nn.Parameter]) -> AbstractContextManager[None]:
    """Moves each weight as soon as its gradient comes."""
    anchor = [w.detach().clone() for w in weights]
    sampler = samplers.sampler(weights, anchor, SamplerConfig("sgld", 1e-3), nbeta=1.0, seed=0)
    return sampler.attached()


def test_no_full_set_of_gradients_ever_exists() -> None:
    """When the gradient of one weight comes, those that came before it are gone."""
    weights = [nn.Parameter(torch.ones(10_000)) for _ in range(6)]
    alive: list[int] = []

    def count(_: Tensor) -> None:
        alive.append(sum(w.grad is not None for w in weights))

    with attached(weights):
        for w in weights:
            w.register_post_accumulate_grad_hook(count)
        value = torch.ones(10_000)
        for w in weights:
            value = (value * w).tanh()
        value.sum().backward()
    assert alive == [0] * 6


def test_a_weight_moved_too_early_is_an_error_not_a_wrong_gradient() -> None:
    """Autograd is told of the change: a second backward pass through the old graph is refused."""
    w = nn.Parameter(torch.ones(10))
    loss = (w**2).sum()
    with attached([w]):
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
