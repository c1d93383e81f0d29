"""The Hessian's spectrum and the gradient at w* are those of closed forms and of whole matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from replicate.errors import ArgumentError
from replicate.models import module
from replicate.progress import silent
from replicate.sampling import Task, lanczos
from replicate.sampling.curvature import Curvature, Spectrum, measure, spectrum

POWER = np.logspace(-4, 2, 400)  # over six decades


def quadratic(
    h: np.ndarray, g: np.ndarray | float = 0.0, noise: float = 0.0, seed: int = 0
) -> Task:
    """The loss ½·Σ h·w² + Σ (g + noise of the example)·w at w = 0, in double precision."""
    draws = np.random.default_rng(seed).normal(size=(64, len(h)))
    h_D, g_NxD = torch.from_numpy(h), torch.from_numpy(g + noise * draws)
    w = nn.Parameter(torch.zeros_like(h_D))
    return Task(lambda index_B: (0.5 * h_D * w**2).sum() + g_NxD[index_B] @ w, [w])


def measured(task: Task, *, examples: int = 64, probes: int = 2, products: int = 60) -> Curvature:
    index_N = torch.arange(examples)
    settings: dict[str, Any] = {"probes": probes, "products": products, "seed": 5}
    return measure(task, index_N, batch_size=48, **settings, advance=silent)


def harmonic(h: np.ndarray, alpha: float) -> float:
    return float((h / (h + alpha)).sum() / 2)


def test_a_power_law_over_six_decades_is_resolved_within_the_error() -> None:
    """If H is diagonal, vᵀf(H)v = tr f(H) for all v with entries ± 1, so products alone matter.

    With too few of them the value is too large: all even derivatives of h/(h + α) are negative.
    """
    for products in (10, 20, 40):
        found = measured(quadratic(POWER), products=products)
        assert found.trace == pytest.approx((POWER.sum(), 0), rel=1e-9, abs=1e-6)
        assert found.highest == pytest.approx(100, rel=0.3 / products)
        for alpha in (10.0, 1.0, 0.1, 0.01):
            value, error = found.harmonic(100.0, 100.0 * alpha)
            truth = harmonic(POWER, alpha)
            assert truth * (1 - 1e-9) < value < truth + 1.5 * error + 1e-9
            if alpha >= 100 / products**2:
                assert error < 0.04 * truth


def test_random_vectors_agree_with_a_dense_matrix_to_within_their_error() -> None:
    """The scores of 20 seeds have mean 0 and variance about 1."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))
    h = np.logspace(-2, 1, 60)
    matrix = torch.from_numpy(rotation * h @ rotation.T)
    w = nn.Parameter(torch.zeros(60, dtype=torch.float64))
    task = Task(lambda index_B: (w @ matrix @ w / 2).expand(len(index_B)), [w])
    scores = []
    for seed in range(20):
        settings = {"batch_size": 4, "probes": 6, "products": 20, "seed": seed}
        found = spectrum(task, torch.arange(4), **settings, advance=silent)
        for (value, error), truth in (
            (found.trace, h.sum()),
            (found.harmonic(0.1), harmonic(h, 0.1)),
        ):
            scores.append((value - truth) / error)
    assert abs(np.mean(scores)) < 4 / 20**0.5
    assert 0.7 < np.std(scores) < 1.7


@pytest.mark.parametrize(("nbeta", "localization"), [(3.0, 10.0), (30.0, 10.0), (300.0, 1.0)])
def test_both_parts_together_are_the_llc_of_a_quadratic_with_a_gradient(
    nbeta: float, localization: float
) -> None:
    """The posterior is normal: mean −nβ·g/a and variance 1/a with a = nβ·h + γ in each weight."""
    h = np.array([-0.001, 0.0, 0.01, 0.1, 1.0, 10.0])
    g = np.array([0.003, 0.001, 0.02, -0.1, 0.2, -0.3])
    a = nbeta * h + localization
    mean = -nbeta * g / a
    truth = nbeta * (h / 2 * (mean**2 + 1 / a) + g * mean).sum()
    found = measured(quadratic(h, g))
    part, error = found.gradient_part(nbeta, localization)
    assert found.harmonic(nbeta, localization)[0] + part == pytest.approx(truth, rel=1e-6)
    assert error == pytest.approx(0, abs=1e-6 * abs(part))
    assert found.gradient_squared[0] == pytest.approx((g**2).sum())
    assert 0 < -part < found.gradient_bound(nbeta, localization)
    strong = 1e6 * nbeta
    assert found.curvature(nbeta, strong)[0] == pytest.approx(
        found.harmonic(nbeta, strong)[0], rel=1e-4
    )


def test_curvatures_that_are_too_negative_count_as_none_where_asked() -> None:
    g = np.array([0.1, -0.2, 0.3])
    below, flat = (
        measured(quadratic(np.array([h, 0.5, 2.0]), g)).gradient_part(30.0, 1.0, clipped=True)
        for h in (-0.3, 0.0)
    )
    assert below[0] == pytest.approx(flat[0], rel=1e-6)


def test_the_noise_of_the_gradient_counts_as_far_as_the_chains_sample_it() -> None:
    """Chains that sample the loss of these examples alone are moved by their mean gradient."""
    found = measured(quadratic(np.array([0.1, 1.0]), 0.0, noise=1.0, seed=3))
    a = 10.0 * np.array([0.1, 1.0]) + 1.0
    sample = np.random.default_rng(3).normal(size=(64, 2)).mean(0)
    whole = -(10.0**2) * (sample**2 * (10.0 * np.array([0.1, 1.0]) / 2 + 1) / a**2).sum()
    assert found.gradient_part(10.0, 1.0, sampled=1.0)[0] == pytest.approx(whole, rel=1e-6)
    none, half = (found.gradient_part(10.0, 1.0, sampled=x)[0] for x in (0.0, 0.5))
    assert half == pytest.approx((none + whole) / 2, rel=1e-6)


def test_the_largest_nbeta_makes_the_gradient_part_a_tenth_under_a_strong_pull() -> None:
    found = measured(quadratic(np.array([1.0, 2.0]), np.array([0.3, 0.1])))
    nbeta = found.largest_nbeta()
    part, whole = found.gradient_part(nbeta, 1e6), found.harmonic(nbeta, 1e6)
    assert part[0] == pytest.approx(-0.1 * whole[0], rel=1e-4)


@pytest.mark.parametrize("size", [0.0, 0.2])
def test_the_gradient_has_no_bias_from_noise(size: float) -> None:
    """Over 40 samples, the means of ‖g‖² and of the gradient part are those of g alone."""
    h, g = np.array([0.01, 0.1, 1.0, 10.0]), np.array([1.0, -1.0, 1.0, -1.0]) * size
    exact = measured(quadratic(h, g), products=4).gradient_part(10.0, 1.0)[0]
    squared, parts = [], []
    for seed in range(40):
        found = measured(quadratic(h, g, noise=1.0, seed=seed), products=4)
        squared.append(found.gradient_squared)
        parts.append(found.gradient_part(10.0, 1.0))
    for values_SxE, truth in ((np.array(squared), (g**2).sum()), (np.array(parts), exact)):
        value, error = values_SxE.T
        scatter = value.std(ddof=1)
        assert abs(value.mean() - truth) < 4 * scatter / 40**0.5
        assert 0.6 < np.sqrt((error**2).mean()) / scatter < 2


def test_negative_curvature_is_refused_where_it_is_stronger_than_the_pull() -> None:
    found = measured(quadratic(np.array([-0.5, 1.0, 2.0]), 0.1))
    assert found.lowest == pytest.approx(-0.5)
    assert found.harmonic(1.0, 1.0)[0] == pytest.approx((-0.5 / 0.5 + 1 / 2 + 2 / 3) / 2)
    for method in (found.harmonic, found.gradient_part, found.gradient_bound):
        with pytest.raises(ArgumentError, match=r"curvature -0.5 .* raise localization"):
            method(2.5, 1.0)
        with pytest.raises(ArgumentError, match="must be above 0"):
            method(2.5, 0.0)
    assert "must be above 0.5 (negative" in str(found)


def test_masked_weights_have_no_curvature_and_no_gradient() -> None:
    task = quadratic(np.array([1.0, 2.0, 4.0, 8.0]), 0.5)
    found = measured(Task(task.loss, task.parameters, [torch.tensor([1.0, 0.0, 1.0, 0.0])]))
    assert found.spectrum.size == 2
    assert found.trace[0] == pytest.approx(5.0)
    assert found.harmonic(1.0, 1.0)[0] == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert found.gradient_squared[0] == pytest.approx(0.5)


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature() -> None:
    w = nn.Parameter(torch.zeros(3))
    found = measured(Task(lambda index_B: w.sum().expand(len(index_B)), [w]))
    assert found.trace == (0, 0)
    assert found.gradient_part(2.0, 1.0)[0] == pytest.approx(-(2.0**2) * 3)


def test_a_quarter_of_the_examples_has_the_curvature_of_the_first_ones() -> None:
    w, h_N = nn.Parameter(torch.zeros(3)), torch.arange(16.0)
    found = measured(Task(lambda i: h_N[i] * (w**2).sum() / 2, [w]), examples=16)
    assert found.trace[0] == pytest.approx(3 * 7.5)
    assert found.quarter.trace[0] == pytest.approx(3 * 1.5)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):  # pyright: ignore[reportIncompatibleMethodOverride]
        return g


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda w: Once.apply(w).square().sum(), "only once; use plain"),
        (lambda w: w.sum() * torch.nan, "derivative that is not finite; check"),
        (
            lambda w: (w - 1).abs().sqrt().sum() + (w**1.5).sum(),
            "derivative that is not finite; check",
        ),
    ],
)
def test_a_loss_without_curvature_is_refused(loss, words: str) -> None:
    w = nn.Parameter(torch.zeros(3))
    with pytest.raises(ArgumentError, match=words):
        measured(Task(lambda index_B: loss(w).expand(len(index_B)), [w]))


def test_an_error_needs_two_random_vectors_and_four_examples() -> None:
    with pytest.raises(ArgumentError, match="probes = 1"):
        measured(quadratic(POWER), probes=1)
    with pytest.raises(ArgumentError, match=r"3 examples: .* give more"):
        measured(quadratic(POWER), examples=3)


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    both: dict[str, Any] = {
        "vocab_size": 8,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if kind == "gpt2":  # with tied embeddings
        shape: dict[str, Any] = {"n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 2}
        return GPT2LMHeadModel(GPT2Config(**both, **shape)).eval()
    shape = {"hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(**both, **shape)).eval()


TOKENS = torch.randint(8, (6, 8), generator=torch.Generator().manual_seed(1))


def exact_losses(model: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Returns the loss of each window in the model's own precision, (B,)."""
    logits_BxTxV = model(tokens_BxL[:, :-1], use_cache=False).logits
    targets = logits_BxTxV.transpose(1, 2), tokens_BxL[:, 1:]
    return nn.functional.cross_entropy(*targets, reduction="none").mean(1)


def whole_hessian(task: Task) -> Tensor:
    """Returns H, (D, D), by finite differences of the gradient.

    `torch.func.hessian` is wrong for layer normalisation (torch 2.11), so it is no reference.
    """
    columns = []
    for basis_D in torch.eye(sum(task.sizes), dtype=torch.float64):
        parts = basis_D.split([w.numel() for w in task.parameters])
        ends = []
        for step in (1e-4, -2e-4, 1e-4):
            with torch.no_grad():
                for w, part in zip(task.parameters, parts, strict=True):
                    w += step * part.view_as(w)
            ends.append(lanczos.block_gradients(task, torch.arange(6), 1, 6, silent)[0])
        columns.append((ends[0] - ends[1]) / 2e-4)
    return torch.stack(columns)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_language_models_spectrum_is_that_of_its_whole_hessian(kind: str) -> None:
    """The weights that move are those of the norms and of the last product of attention."""
    model = network(kind).double()
    for name, weight in model.named_parameters():
        weight.requires_grad_(
            any(word in name for word in ("ln_", "norm", "attn.c_proj", "o_proj"))
        )
    task = module.task(model, [TOKENS], exact_losses)
    whole = whole_hessian(task)
    vector_D = torch.ones(len(whole), dtype=torch.float64)
    product_D = lanczos.hessian_product(task, vector_D, torch.arange(6), 4, silent)
    assert (product_D - whole @ vector_D).norm() < 5e-3 * product_D.norm()
    eigenvalues = np.linalg.eigvalsh((whole + whole.t()).numpy() / 2)
    found = language(model, probes=4)
    alpha = 2 * abs(eigenvalues.min())
    for (value, error), truth in (
        (found.trace, eigenvalues.sum()),
        (found.harmonic(alpha), harmonic(eigenvalues, alpha)),
    ):
        assert abs(value - truth) < 4 * error
    assert found.highest == pytest.approx(eigenvalues.max(), rel=0.01)


def language(model: nn.Module, probes: int = 2, products: int = 20) -> Spectrum:
    task = module.task(model, [TOKENS], module.mean_losses)
    settings = {"batch_size": 6, "probes": probes, "products": products, "seed": 1}
    return spectrum(task, torch.arange(6), **settings, advance=silent)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_bfloat16_changes_the_spectrum_by_a_few_percent(kind: str) -> None:
    """The weights are the same: those of bfloat16."""
    model = network(kind).bfloat16()
    rounded, exact = language(model, products=5), language(model.float(), products=5)
    assert rounded.trace[0] == pytest.approx(exact.trace[0], rel=0.05)
    assert rounded.highest == pytest.approx(exact.highest, rel=0.02)
