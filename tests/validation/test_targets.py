"""λ against other derivations of it, values at a finite nβ against other integrations."""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy import integrate, special

from replicate.sampling import SamplerConfig
from replicate.validation.targets import (
    Bigram,
    DeepLinear,
    LinearRegression,
    Model,
    NormalCrossing,
    Quadratic,
    Target,
)
from replicate.validation.theory import Truth, deep_linear, normal_crossing, two_layers


def flags(widths: list[int], rank: int) -> float:
    """λ of a deep linear network by a search for the ranks ρ of its partial products."""
    surplus = [width - rank for width in widths]

    @cache
    def best(layer: int, before: int) -> float:
        if layer == len(surplus):
            return 0.0 if before == 0 else np.inf
        last = layer == len(surplus) - 1
        ranks = [0] if last else range(min(before, surplus[layer]) + 1)
        return min((before - rho) * (surplus[layer] - rho) + best(layer + 1, rho) for rho in ranks)

    return (rank * (widths[0] + widths[-1] - rank) + best(1, surplus[0])) / 2


def reduced_rank(m: int, h: int, n: int, r: int) -> Truth:
    """λ and m of a matrix of rank r by the four cases of Aoyagi & Watanabe 2005."""
    if m + h < n + r:
        return Truth((h * m - h * r + n * r) / 2)
    if n + h < m + r:
        return Truth((h * n - h * r + m * r) / 2)
    if m + n < h + r:
        return Truth(m * n / 2)
    q = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n
    return Truth(q / 8) if (m + h + n + r) % 2 == 0 else Truth((q + 1) / 8, 2)


def test_two_derivations_of_the_deep_linear_llc_agree() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        widths = rng.integers(1, 12, rng.integers(3, 7)).tolist()
        rank = int(rng.integers(0, min(widths) + 1))
        assert deep_linear(widths, rank).llc == pytest.approx(flags(widths, rank)), (widths, rank)


def test_one_hidden_layer_is_a_reduced_rank_regression() -> None:
    for m, h, n in product(range(1, 8), repeat=3):
        for r in range(min(m, h, n) + 1):
            assert deep_linear([m, h, n], r) == reduced_rank(m, h, n, r), (m, h, n, r)


def test_llc_of_worked_examples() -> None:
    assert deep_linear([10, 10, 10], 3) == Truth(44, 2)
    assert deep_linear([5, 8, 6, 7], 2).llc == 31 / 2
    assert Bigram(12, 3, 3, 1, 3.0).truth.llc == 30
    assert Bigram(12, 3, 1, 1, 3.0).truth.llc == 21
    assert reduced_rank(4, 9, 5, 4).llc == 4 * 5 / 2  # wide enough to be any matrix: regular in it
    assert normal_crossing((1, 1)) == Truth(1 / 2, 2)
    assert normal_crossing((1, 2)) == Truth(1 / 4, 1)
    assert normal_crossing((3,)) == Truth(1 / 6, 1)
    assert NormalCrossing((1, 1, 1), 5).truth == Truth(5 / 2, 11)  # of copies


def test_impossible_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="no such network"):
        deep_linear([3, 1, 3], 2)
    with pytest.raises(ValueError, match="no posterior without localisation"):
        NormalCrossing((1, 1), 1).expected(SamplerConfig("sgld", 0.1), 10.0)


FINE = SamplerConfig("sgld", 1e-12, localization=1.0)


@pytest.mark.parametrize("t", [1.0, 20.0, 300.0])
def test_a_product_of_two_weights_has_its_bessel_function(t: float) -> None:
    x = 1 / (8 * t)
    value = 0.5 + x - x * special.k1(x) / special.k0(x)
    assert NormalCrossing((1, 1), 3).expected(FINE, t) == pytest.approx(3 * value, rel=1e-3)


def test_other_normal_crossings_by_direct_integration() -> None:
    def mean(t: float) -> float:
        def density(v: float, w: float) -> float:
            return float(np.exp(-t * v**2 * w**4 - (v**2 + w**2) / 2))

        above = integrate.dblquad(lambda v, w: t * v**2 * w**4 * density(v, w), 0, 9, 0, 9)[0]
        return above / integrate.dblquad(density, 0, 9, 0, 9)[0]

    assert NormalCrossing((1, 2), 1).expected(FINE, 5.0) == pytest.approx(mean(5.0), rel=1e-3)
    w6 = NormalCrossing((3,), 1).expected(SamplerConfig("sgld", 1e-12), 7.0)
    assert w6 == pytest.approx(1 / 6, rel=1e-3)


def test_step_size_correction_is_exact_to_first_order_on_a_quadratic() -> None:
    """w² has curvature 2: λ̂ = nβ/(a(1 − εa/4)), a = 2nβ + γ."""
    a = 2 * 10 + 1
    for lr in (1e-3, 4e-3):
        found = NormalCrossing((1,), 1).expected(SamplerConfig("sgld", lr, localization=1.0), 10.0)
        exact = 10 / (a * (1 - lr * a / 4))
        assert found == pytest.approx(exact, rel=2 * (lr * a / 4) ** 2 + 1e-6)


@pytest.mark.parametrize("widths", [(3, 2, 4), (2, 3, 3), (4, 3, 4), (3, 5, 2)])
def test_reduced_rank_values_by_random_matrices(widths: tuple[int, int, int]) -> None:
    """True rank 0: λ̂ = (N/2)·E tr[tAAᵀ(1 + tAAᵀ)⁻¹], weighted by det(1 + tAAᵀ)^(−N/2)."""
    (inputs, hidden, outputs), t, rng = widths, 3.0, np.random.default_rng(1)
    a = rng.standard_normal((200_000, hidden, inputs))
    x = np.clip(np.linalg.eigvalsh(a @ a.transpose(0, 2, 1)), 0, None)
    weight = np.exp(-outputs / 2 * np.log1p(t * x).sum(1))
    value = np.average((outputs / 2 * t * x / (1 + t * x)).sum(1), weights=weight)
    assert two_layers(4 * t, 2.0, widths, 0, 1.0) == pytest.approx(value, rel=0.02)


def test_reduced_rank_values_tend_to_the_llc() -> None:
    """Far from a tie of the exponents, the value at a finite nβ is soon λ itself."""
    for widths in ((4, 3, 24), (24, 3, 4), (3, 40, 3)):
        found = two_layers(3000.0, 10.0, widths, 1, 1.5)
        assert found == pytest.approx(reduced_rank(*widths, 1).llc, rel=0.01)


TARGETS: list[Target] = [
    Quadratic(7, 10.0),
    LinearRegression(5, 4.0, examples=200),
    NormalCrossing((1, 2), 3),
    DeepLinear((4, 3, 5), 2, 100, 2, 1.5),
    DeepLinear((3, 6, 5, 4), 1, 100),
    Bigram(6, 2, 1, 2, 3.0),
]


@torch.no_grad()
def shake(model: Model, size: float) -> None:
    """Moves all parameters away from w*."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters:
        parameter += size * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_w_star_is_a_minimum_of_the_empirical_loss(target: Target) -> None:
    model = target.model(1)
    base = model.losses().mean(dtype=np.float64)
    loss = model.loss(torch.arange(model.examples)).mean()
    loss.backward()
    assert sum(parameter.numel() for parameter in model.parameters) == target.parameters
    for parameter in model.parameters:
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 1e-5
    shake(model, 0.3)
    assert model.losses().mean(dtype=np.float64) > base


def test_loss_of_a_network_is_its_distance_from_the_truth() -> None:
    """The data are such that K = ‖W₁⋯W_L − W*‖²/2 is the empirical loss less that of w*."""
    target = DeepLinear((3, 4, 5, 2), 2, 50, 3)
    model = target.model(4)
    base = model.losses().mean(dtype=np.float64)
    star = [parameter.detach().clone() for parameter in model.parameters]
    shake(model, 0.5)
    chains = [
        torch.linalg.multi_dot([layer[copy] for layer in layers])
        for layers in (model.parameters, star)
        for copy in range(3)
    ]
    distance = sum(float(((chains[copy] - chains[3 + copy]) ** 2).sum()) for copy in range(3))
    assert model.losses().mean(dtype=np.float64) - base == pytest.approx(distance / 2, rel=1e-4)
    assert [tuple(layer.shape[1:]) for layer in star] == list(pairwise((3, 4, 5, 2)))


def test_examples_have_unit_noise() -> None:
    losses = LinearRegression(3, examples=20_000).model(0).losses()
    assert losses.mean() == pytest.approx(0.5, rel=0.03)
    assert losses.var() == pytest.approx(0.5, rel=0.1)  # of half a squared standard normal
