"""`llc` chooses what it is not told, and `curve` follows λ̂ along γ."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from replicate import curve, llc
from replicate.errors import ArgumentError
from replicate.models.module import mean_losses
from tests.models import small_task
from tests.models.small_modules import Bowl, bowl_loss

H = tuple(np.logspace(-1, 1, 12))
DATA = torch.zeros(64)
BOWL: dict[str, Any] = {"loss_fn": bowl_loss, "show_progress": False}
TOKENS = torch.randint(12, (40, 9), generator=torch.Generator().manual_seed(1))


def trained() -> nn.Module:
    model = small_task.build()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        mean_losses(model, TOKENS).mean().backward()
        optimizer.step()
    return model


def exact(nbeta: float, gamma: float) -> float:
    h = np.array(H)
    return float(0.5 * (nbeta * h / (nbeta * h + gamma)).sum())


@pytest.mark.parametrize(("nbeta", "gamma"), [(1.0, 1000.0), (10.0, 10.0)])
def test_the_step_is_chosen_so_that_its_bias_is_small(nbeta: float, gamma: float) -> None:
    found = llc(
        Bowl(H), DATA, nbeta=nbeta, localization=gamma, budget=200_000, precision=0.2, **BOWL
    )
    error = max(found.standard_error, found.result.monte_carlo_error)
    assert abs(found.llc - exact(nbeta, gamma)) < 4 * error + 0.01 * found.llc
    assert any(choice.endswith("of λ̂, by a pair") for choice in found.trace.attrs["choices"])
    assert found.standard_error < 0.1 * found.llc
    assert any("as asked" in choice for choice in found.trace.attrs["choices"])


def test_flat_directions_do_not_lengthen_the_draws() -> None:
    flat = tuple(np.logspace(-6, -4, 12))
    given: dict[str, Any] = {"nbeta": 1.0, "localization": 0.1, "precision": 0.2, **BOWL}
    found = llc(Bowl(flat + H), DATA, **given)
    draws, slowest = found.trace.sizes["draw"], 2 / (found.trace.attrs["sampler"]["lr"] * 0.1)
    independent = found.result.ess / found.result.chains
    assert slowest < draws < 6 * slowest  # with 2.5 of burn-in
    assert independent > 5  # ten relaxation times of λ̂
    assert abs(found.llc - exact(1.0, 0.1)) < 4 * found.standard_error + 0.01 * found.llc


def test_several_models_are_estimated_one_after_the_other() -> None:
    given: dict[str, Any] = {"nbeta": 1.0, "localization": 1000.0, "precision": 0.5, **BOWL}
    models = [Bowl(H), Bowl(tuple(2 * h for h in H))]
    found = llc((model for model in models), DATA, **given)
    assert [each.llc for each in found] == [llc(model, DATA, **given).llc for model in models]
    assert found[0].llc < found[1].llc
    for nothing in (3, None):
        with pytest.raises(ArgumentError, match="model"):
            llc(nothing, DATA, **given)  # pyright: ignore


def test_the_answer_says_that_the_budget_ended_the_draws() -> None:
    given = {"nbeta": 1.0, "localization": 1000.0, "precision": 1e-6, "budget": 9000}
    found = llc(Bowl(H), DATA, **given, **BOWL)
    assert found.trace.attrs["choices"][-1].startswith("the budget of 9,000 gradients")
    assert found.trace.sizes["draw"] * 4 <= 9000


def test_all_settings_of_a_language_model_are_chosen() -> None:
    few: dict[str, Any] = {"budget": 16_000, "precision": 9.0, "chains": 2, "show_progress": False}
    model = trained()
    before = [p.detach().clone() for p in model.parameters()]
    found = llc(model, TOKENS, **few)
    told = " ".join(found.trace.attrs["choices"])
    assert all(name in told for name in ("nβ = ", "γ = ", "ε = "))
    assert found.diagnosis.rise < 0.25
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    again = llc(model, TOKENS, **few)
    assert again.trace.drop_vars("seconds").identical(found.trace.drop_vars("seconds"))


def tilted(model: Bowl, x_B: torch.Tensor) -> torch.Tensor:
    return bowl_loss(model, x_B) + 0.5 * model.w.sum()


@pytest.mark.parametrize(("nbeta", "says"), [(1.0, "more than a tenth"), (100.0, "below zero")])
def test_a_gradient_comes_with_the_advice_to_sample_the_text_and_the_largest_nbeta(
    nbeta: float, says: str
) -> None:
    """Up to nβ = tr(H)/(20·‖g‖²), the gradient part −nβ²·‖g‖²/γ is below a tenth of λ̂."""
    given: dict[str, Any] = {"nbeta": nbeta, "localization": 1000.0, "precision": 0.2}
    given |= BOWL
    slope: dict[str, Any] = {"loss_fn": tilted}
    found = llc(Bowl(H), DATA, **given | slope)
    a = nbeta * np.array(H) + 1000
    part = (-(nbeta**2) / a + nbeta**3 * np.array(H) / 2 / a**2).sum() * 0.25
    assert found.diagnosis.gradient_part.value == pytest.approx(part, rel=1e-3)
    (sentence,) = [each for each in found.advice if "sample_text" in each]
    assert says in sentence
    assert f"nβ up to {sum(H) / (20 * 12 * 0.25):.3g}" in sentence
    level = llc(Bowl(H), DATA, **given)
    assert not any("sample_text" in each for each in level.advice)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"nbeta": 1.0}, "localization: give it, for no loss"),
        ({"nbeta": 1.0, "localization": 10.0, "budget": 20}, "budget = 20: the first look"),
        ({"nbeta": 1.0, "localization": 10.0, "draws": 20}, "draws: only chains of fixed"),
        ({"nbeta": 0.0, "localization": 10.0}, "nbeta = 0.0: must be above 0"),
        ({"nbeta": 1.0, "localization": -1.0}, "localization = -1.0: must be above 0"),
        ({"nbeta": 1.0, "localization": 1.0, "evaluated": 65}, "evaluated = 65: there are 64"),
        ({"nbeta": 1.0, "localization": 10.0, "precision": -1.0}, "precision = -1.0"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        llc(Bowl(H), DATA, **settings, **BOWL)


def test_a_curve_of_a_quadratic_is_its_harmonic_part() -> None:
    found = curve(Bowl(H), DATA, nbeta=[1.0, 10.0], localization=[100, 1000], draws=1500, **BOWL)
    assert [(p.nbeta, p.localization) for p in found.points] == [
        (nbeta, gamma) for nbeta in (1.0, 10.0) for gamma in (1000, 100)
    ]
    for point in found.points:
        truth = exact(point.nbeta, point.localization)
        assert abs(point.estimate.llc - truth) < max(
            5 * point.estimate.standard_error, 0.03 * truth
        )
        assert point.harmonic[0] == pytest.approx(truth, abs=4 * point.harmonic[1] + 1e-3 * truth)
    assert str(found).count("\n") == 4
    assert found.natural == pytest.approx(64 / np.log(64))
    assert len(found.plot().axes[0].lines) >= 3


def test_a_curve_takes_a_step_that_is_stable_where_its_chains_are() -> None:
    """At w* this loss has no curvature, so that the step that is stable there is far too long."""

    def quartic(model: Bowl, x_B: torch.Tensor) -> torch.Tensor:
        return model.w.pow(4).sum() + 0.0 * x_B

    given: dict[str, Any] = {"loss_fn": quartic, "show_progress": False}
    found = curve(Bowl(H), DATA, nbeta=1e4, localization=[100.0], draws=400, **given)
    (point,) = found.points
    w = np.linspace(-1, 1, 20_001)
    density = np.exp(-1e4 * w**4 - 50 * w**2)
    truth = len(H) * float((1e4 * w**4 * density).sum() / density.sum())
    assert point.estimate.trace.attrs["sampler"]["lr"] < 0.25 / 100
    error = max(point.estimate.standard_error, point.estimate.result.monte_carlo_error)
    assert abs(point.estimate.llc - truth) < 4 * error + 0.01 * truth


def test_lines_of_several_nbeta_meet_at_the_same_alpha_and_wbic_is_named() -> None:
    natural = 64 / np.log(64)
    found = curve(Bowl(H), DATA, nbeta=[natural, 2.0], alpha=[20.0, 5.0], draws=40, **BOWL)
    assert [point.alpha for point in found.points] == pytest.approx([20.0, 5.0] * 2)
    assert [found.named(point.nbeta) for point in found.points] == ["n/ln n"] * 2 + [""] * 2
    assert str(found).count("n/ln n (WBIC)") == 2


def test_a_curve_ends_where_the_chains_leave() -> None:
    """Without localization, γ falls by √10 while the loss rises by 5 % of the rise to guessing."""
    few: dict[str, Any] = {"draws": 30, "budget": 3000, "chains": 2, "show_progress": False}
    found = curve(trained(), TOKENS, **few)
    gammas = [point.localization for point in found.points]
    assert len(gammas) > 1
    assert np.divide(gammas[:-1], gammas[1:]) == pytest.approx(10**0.5)
    assert all(point.estimate.diagnosis.rise <= 0.06 for point in found.points)
    n, told = TOKENS.numel() - len(TOKENS), str(found)
    assert ("(WBIC)" in told) == (found.points[0].nbeta == pytest.approx(n / np.log(n)))


def line_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(200, 1, generator=generator)
    return x, 2 * x + 1 + torch.randn(200, 1, generator=generator)


def test_all_estimators_of_a_line_on_its_plateau_are_those_of_its_gaussian() -> None:
    """At the least squares, λ̂ is near d/2 = 1, and Var(ℓᵢ) = r²·xᵀA⁻¹x + ½·(xᵀA⁻¹x)²."""
    x, y = line_data()
    model = nn.Linear(1, 1)
    design = torch.cat([x, torch.ones_like(x)], dim=1)
    solved = torch.linalg.lstsq(design, y).solution
    with torch.no_grad():
        model.weight.copy_(solved[0])
        model.bias.copy_(solved[1])
    spread = (design @ torch.linalg.inv(design.T @ design + torch.eye(2)) * design).sum(dim=1)
    residual = (y - design @ solved)[:, 0]
    singular = 100 * float((residual**2 * spread + spread**2 / 2).mean())
    found = llc(
        model,
        (x, y),
        loss_fn=lambda model, x, y: line_loss(model, x, y) / 2,
        nbeta=200.0,
        localization=1.0,
        lr=1e-3,
        batch_size=200,
        budget=6000,
        precision=0.1,
        evaluated=200,
        show_progress=False,
    )
    for name, truth in {"controlled": 1.0, "variance": 1.0, "singular": singular}.items():
        result = found.estimators[name]
        error = max(result.standard_error, result.monte_carlo_error)
        assert abs(result.llc - truth) < 0.02 + 4 * error, name
        assert error < 0.3, name
    assert found.table().count("\n") == len(found.estimators) == 7
    assert set(json.loads(found.to_json())["estimators"]) == set(found.estimators)


@pytest.mark.fault("A2")
@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda model, x, y: (torch.nn.functional.dropout(model(x), 0.5) - y).square().mean(-1),
        lambda model, x, y: ((x - x.mean(0)) * 3 + model(x) - y).square().mean(-1),
        lambda model, x, y: (model(x) - y[:, 0]).square().mean(-1),  # (B, 1) and (B,) broadcast
    ],
    ids=["dropout", "batch statistics", "broadcast"],
)
def test_a_loss_that_depends_on_its_batch_or_on_chance_is_refused(loss_fn: Any) -> None:
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(2))
    with pytest.raises(ArgumentError, match="changes from call to call"):
        llc(
            nn.Linear(1, 1),
            (x, 2 * x + 1),
            batch_size=40,
            loss_fn=loss_fn,
            nbeta=1.0,
            localization=9.0,
            lr=1e-4,
        )


LINE = {"nbeta": 1.0, "localization": 9.0, "lr": 1e-3, "show_progress": False}


def line_loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (model(x) - y).square().mean(-1)


@pytest.mark.fault("A4")
def test_one_draw_has_an_error_of_its_own() -> None:
    """Through two points the control variate would go exactly, with an error of 0."""
    x = torch.randn(64, 1, generator=torch.Generator().manual_seed(2))
    data = x, 2 * x + torch.randn(64, 1, generator=torch.Generator().manual_seed(3))
    found = llc(nn.Linear(1, 1), data, loss_fn=line_loss, chains=2, draws=1, batch_size=8, **LINE)
    assert found.standard_error > 1e-3


@pytest.mark.fault("C10")
def test_data_in_bfloat16_are_no_obstacle() -> None:
    x = torch.randn(40, 1, dtype=torch.bfloat16)
    model = nn.Linear(1, 1).bfloat16()
    found = llc(model, (x, x), loss_fn=line_loss, burn_in=2, draws=4, **LINE)
    assert found.trace.attrs["task"]["data"]


@pytest.mark.fault("C8")
@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        ("folder", TOKENS, "model: must be a torch module, not str; load it"),
        (nn.ModuleList([nn.Linear(2, 2)]), TOKENS, "ModuleList has no forward; `llc` takes a loss"),
        (nn.Embedding(12, 3), "text", "data: must be tensors or arrays of N examples, not str"),
        (nn.Sequential(nn.Embedding(12, 3), nn.Flatten()), TOKENS, "must return logits"),
    ],
    ids=["path", "modules", "text", "no logits"],
)
def test_what_is_no_model_or_no_data_is_one_line(model: Any, data: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        llc(model, data, **LINE)


def test_chains_that_are_not_in_equilibrium_are_not_called_well() -> None:
    """The step is near the limit of stability, so the temperature is a third too high."""
    settings: dict[str, Any] = {"nbeta": 30.0, "localization": 300.0, "burn_in": 40, "draws": 150}
    told = str(llc(small_task.build(), TOKENS, lr=3e-3, show_progress=False, **settings))
    assert "Regime: not in equilibrium" in told
    assert "Lower lr" in told
    assert "nothing is wrong" not in told
