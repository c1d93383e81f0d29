"""Our samplers are devinterp's: with the same noise the same weights, whatever the options; with
their own, the same distribution.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from devinterp.optim import SGMCMC, SGNHT
from torch import Tensor, nn

from replicate.sampling import Plan, Setting, Space, noise, sample, samplers
from replicate.sampling.devinterp import optimizer
from replicate.sampling.samplers.base import Sampler
from tests.scenarios import Quadratic, filled, quadratic_llc

NBETA, SEED, STEPS = 20.0, 123, 30
SHAPES = ((70, 90), (5,), (3, 2, 4))


class Valley:
    """A loss with curvature, slope and a coupling of all weights, in float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.centre = [
            torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES
        ]
        self.weights = [nn.Parameter(centre.clone()) for centre in self.centre]

    def __call__(self) -> Tensor:
        square = sum(((w - 0.3) ** 2 * (1 + w.detach().abs())).sum() for w in self.weights)
        return 0.05 * (square + torch.stack([w.sum() for w in self.weights]).sum() ** 2 / 1000)


def ours(setting: Setting, masks: list[Tensor | None] | None, **options: Any) -> list[Tensor]:
    valley = Valley()
    sampler = samplers.sampler(
        valley.weights,
        valley.centre,
        setting,
        nbeta=NBETA,
        seed=SEED,
        burn_in=5,
        masks=masks,
        **options,
    )
    with sampler.attached():
        for _ in range(STEPS):
            valley().backward()
            sampler.step()
    return [w.detach() for w in valley.weights]


def theirs(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    first: int,
) -> list[Tensor]:
    """devinterp's weights with our noise in place of torch's; its first step has ours of step
    `first`.
    """
    valley = Valley()

    def numbers() -> Iterator[Tensor]:
        for step in itertools.count(0):
            for tensor, shape in enumerate(SHAPES):
                yield (
                    torch.from_numpy(filled(int(np.prod(shape)), SEED, step, tensor))
                    .view(shape)
                    .double()
                )

    stream = numbers()
    monkeypatch.setattr(torch, "randn_like", lambda *_: next(stream))
    monkeypatch.setattr(torch, "normal", lambda *, std, **_: std * next(stream))
    sampler = make(valley.weights)
    if first == 0:
        stream = numbers()
    for _ in range(STEPS):
        sampler.zero_grad()
        valley().backward()
        sampler.step()
    return [w.detach() for w in valley.weights]


def same(found: list[Tensor], reference: list[Tensor], tolerance: float = 1e-12) -> None:
    """But for one weight in a thousand, which SGNHT's box may turn round in the one case and not in
    the other.
    """
    for a, b in zip(found, reference, strict=True):
        assert ((a - b).abs() < tolerance).double().mean() > 0.999


MASKS: list[Tensor | None] = [torch.arange(6300).view(70, 90) % 3 == 0, None, torch.zeros(3, 2, 4)]
SGLD_OPTIONS = [
    Setting("sgld", 1e-3),
    Setting("sgld", 1e-3, localization=40.0),
    Setting("sgld", 1e-3, weight_decay=30.0),
    Setting("sgld", 1e-3, bounding_box=0.02),
    Setting("sgld", 1e-3, noise_level=0.3),
    Setting("sgld", 2e-3, localization=7.0, weight_decay=5.0, bounding_box=0.03, noise_level=1.7),
]


@pytest.mark.parametrize("masks", [None, MASKS], ids=["all weights", "masked"])
@pytest.mark.parametrize("setting", SGLD_OPTIONS, ids=str)
def test_sgld_walks_devinterps_path(
    setting: Setting, masks: list[Tensor | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ours(setting, masks)
    groups = [None if mask is None else mask.double() for mask in masks or [None] * 3]
    same(
        found,
        theirs(monkeypatch, lambda weights: optimizer(weights, setting, NBETA, groups), first=0),
    )
    if masks:
        torch.testing.assert_close(found[2], Valley().centre[2], rtol=0, atol=0)


@pytest.mark.parametrize(
    "setting",
    [
        Setting("sgnht", 1e-4, diffusion=0.05),
        Setting("sgnht", 1e-4, diffusion=0.3, noise_diffusion=0.01),
        Setting("sgnht", 1e-3, diffusion=0.1, bounding_box=0.05),
    ],
    ids=str,
)
def test_sgnht_walks_devinterps_path(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same first momenta, which are the noise of step 0. devinterp has its thermostat in
    float32.
    """
    same(
        ours(setting, None),
        theirs(monkeypatch, lambda weights: optimizer(weights, setting, NBETA), first=1),
        1e-5,
    )


@pytest.mark.parametrize(
    "setting",
    [
        *SGLD_OPTIONS,
        Setting("sgnht", 1e-3, diffusion=0.1, bounding_box=0.05),
        Setting("rmsprop", 1e-3),
    ],
    ids=str,
)
@pytest.mark.parametrize("masks", [None, MASKS], ids=["all weights", "masked"])
def test_the_way_of_gpus_is_the_way_of_cpus(
    setting: Setting, masks: list[Tensor | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the rounding of the noise, whose logarithm and cosine are torch's there, in float32."""
    native = ours(setting, masks)
    monkeypatch.setattr("replicate.sampling.samplers.base.is_native", lambda _: False)
    same(ours(setting, masks), native, 1e-5)


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++, with which torch compiles for a CPU"
)
@pytest.mark.parametrize(
    "setting",
    [SGLD_OPTIONS[-1], Setting("sgnht", 1e-4, diffusion=0.05), Setting("rmsprop", 1e-3)],
    ids=str,
)
def test_compiled_into_one_kernel_it_is_the_same(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, by the same compiler for this machine's processor; one kernel for parameters of
    three shapes and all steps.
    """
    monkeypatch.setattr("replicate.sampling.samplers.base.is_native", lambda _: False)
    eager = ours(setting, None)
    monkeypatch.setattr(noise, "fused", cache(lambda update: torch.compile(update, dynamic=True)))
    same(ours(setting, None), eager, 1e-5)


def test_the_reference_is_devinterps_own() -> None:
    """`implementation: devinterp` is SGMCMC.sgld and devinterp.optim.SGNHT with torch's generator,
    number by number.
    """
    for setting, make in (
        (
            Setting("sgld", 1e-3, localization=3.0),
            lambda w: SGMCMC.sgld(w, lr=1e-3, localization=3.0, nbeta=NBETA),
        ),
        (
            Setting("sgnht", 1e-4, diffusion=0.05),
            lambda w: SGNHT(w, lr=1e-4, diffusion_factor=0.05, nbeta=NBETA),
        ),
    ):
        valley = Valley()
        torch.manual_seed(SEED)
        reference = make(valley.weights)
        for _ in range(STEPS):
            reference.zero_grad()
            valley().backward()
            reference.step()
        for a, b in zip(
            ours(setting, None, implementation="devinterp"), valley.weights, strict=True
        ):
            torch.testing.assert_close(a, b.detach(), rtol=0, atol=0)


H = np.array([0.5, 1.0, 2.0, 4.0] * 8)


@pytest.mark.parametrize("implementation", ["replicate", "devinterp"])
def test_both_find_the_exact_llc_of_a_quadratic(implementation: samplers.Implementation) -> None:
    """With noise of their own: one stationary distribution, 8000 draws, Monte-Carlo error about 1
    %.
    """
    target = Quadratic(H)
    plan = Plan(
        NBETA,
        batch_size=1,
        groups=1,
        chains=2,
        burn_in=300,
        draws=4000,
        implementation=implementation,
    )
    trace = sample(
        Space([target.w]),
        target,
        np.zeros(64, np.float32),
        Setting("sgld", 0.02, localization=5.0),
        plan,
        order=lambda group: np.arange(64),
        noise=lambda group, chain: chain,
        advance=lambda steps=1, note="": None,
    )
    assert NBETA * float(trace.loss.sel(draw=slice(0, None)).mean()) == pytest.approx(
        quadratic_llc(H, NBETA, 5.0, 0.02), rel=0.03
    )


@pytest.mark.parametrize("diffusion", [0.001, 0.3])
def test_with_the_studys_noise_lambda_does_not_depend_on_the_diffusion_factor(
    diffusion: float,
) -> None:
    """Regular model of 64 weights: λ = 32 in equilibrium, wherever the thermostat began."""
    target = Quadratic(np.array([0.5, 1.0, 2.0, 4.0] * 16))
    setting = Setting("sgnht", 1e-4, diffusion=diffusion, noise_diffusion=0.01)
    sampler = samplers.sampler(
        [target.w], [target.w.detach().clone()], setting, nbeta=NBETA, seed=1, burn_in=0
    )
    assert NBETA * walk(sampler, target, 16_000)[4000:].mean() == pytest.approx(32.0, rel=0.06)


def walk(sampler: Sampler, target: Quadratic, steps: int) -> np.ndarray:
    """The loss before each step."""
    losses = np.empty(steps)
    with sampler.attached():
        for step in range(steps):
            loss = target(torch.arange(1)).mean()
            losses[step] = loss.item()
            loss.backward()
            sampler.step()
    return losses


def test_no_full_set_of_gradients_ever_exists() -> None:
    """When the gradient of one weight comes, those that came before it are gone."""
    weights = [nn.Parameter(torch.ones(10_000)) for _ in range(6)]
    sampler = samplers.sampler(
        weights,
        [w.detach().clone() for w in weights],
        Setting("sgld", 1e-3),
        nbeta=1.0,
        seed=0,
        burn_in=0,
    )
    alive: list[int] = []
    with sampler.attached():
        for w in weights:
            w.register_post_accumulate_grad_hook(
                lambda _: alive.append(sum(v.grad is not None for v in weights))
            )
        value = torch.ones(10_000)
        for w in weights:
            value = (value * w).tanh()
        value.sum().backward()
    assert alive == [0] * 6


def test_a_weight_moved_too_early_is_an_error_not_a_wrong_gradient() -> None:
    """Autograd is told of what was written: a second backward through the old graph is refused."""
    w = nn.Parameter(torch.ones(10))
    sampler = samplers.sampler(
        [w], [w.detach().clone()], Setting("sgld", 1e-3), nbeta=1.0, seed=0, burn_in=0
    )
    loss = (w**2).sum()
    with sampler.attached():
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
