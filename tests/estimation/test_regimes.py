"""Elasticities, degree, temperature and regimes of exact draws from posteriors that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from replicate.estimation.posterior import Measured, coupled
from replicate.estimation.regimes import AtMinimum, diagnose

DRAWS, CHAINS, NOISE = 1000, 8, 0.05
Loss = Callable[[np.ndarray], np.ndarray]


def trace(
    delta_NxD: np.ndarray, loss: Loss, slope: Loss, nbeta: float, gamma: float, d: int
) -> xr.Dataset:
    """Records draws Δ of a posterior, with the linear noise of two independent half-batches.

    `loss` returns L(w) − L(w*) and `slope` Δ·∇L, both (N,).
    """
    rng = np.random.default_rng(1)
    shape = (1, CHAINS, DRAWS)
    away = np.linalg.norm(delta_NxD, axis=1)
    noise = NOISE * gamma**0.5 / nbeta * rng.normal(size=(len(away), 2)) * away[:, None]
    init = 1 + 0.2 * rng.normal(size=(len(away), 2))
    loss_NxH, slope_NxH = (f(delta_NxD)[:, None] + noise for f in (loss, slope))
    dims = ("shuffle", "chain", "draw", "half")

    def shaped(values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        return dims[: 2 + values.ndim], values.reshape(*shape, *values.shape[1:])

    return xr.Dataset(
        {
            "loss": shaped((loss_NxH + init).mean(axis=1)),
            "init_loss": shaped(init.mean(axis=1)),
            "virial": shaped(nbeta * slope_NxH.mean(axis=1)),
            "squared_distance": shaped(away**2),
            "half_loss": shaped(loss_NxH + init),
            "half_init_loss": shaped(init),
            "half_virial": shaped(nbeta * slope_NxH),
            "diverged": (dims[:2], np.zeros(shape[:2], bool)),
        },
        {"draw": np.arange(DRAWS)},
        {
            "sampler": {
                "localization": gamma,
                "bounding_box": None,
                "weight_decay": 0.0,
                "noise_level": 1.0,
            },
            "sampling": {"nbeta": nbeta},
            "task": {"sampled_parameters": d},
        },
    )


def quadratic(
    h: np.ndarray, g: np.ndarray, nbeta: float, gamma: float, seed: int = 0
) -> xr.Dataset:
    rng, a = np.random.default_rng(seed), nbeta * h + gamma
    delta = -nbeta * g / a + rng.normal(size=(CHAINS * DRAWS, len(h))) / np.sqrt(a)
    return trace(
        delta,
        lambda x: 0.5 * x**2 @ h + x @ g,
        lambda x: x**2 @ h + x @ g,
        nbeta,
        gamma,
        len(h),
    )


def exact(h: np.ndarray, g: np.ndarray, nbeta: float, gamma: float) -> float:
    a = nbeta * h + gamma
    part = -(nbeta**2) * (g**2 / a).sum() + 0.5 * nbeta**3 * (g**2 * h / a**2).sum()
    return float(0.5 * (nbeta * h / a).sum() + part)


def slope_of(function: Callable[[float], float], at: float) -> float:
    """Returns d ln f/d ln x by a central difference."""
    step = 1e-4
    up, down = function(at * math.exp(step)), function(at * math.exp(-step))
    return (math.log(abs(up)) - math.log(abs(down))) / (2 * step)


def near(found: Measured, truth: float, sigmas: float = 4) -> bool:
    return abs(found.value - truth) < sigmas * found.error + 1e-9


SPECTRA = {
    "six decades": (np.logspace(-4, 2, 60), 0.0),
    "six decades, gradient": (np.logspace(-4, 2, 60), 0.02),
    "negative curvature": (np.r_[-0.05 * np.ones(5), np.logspace(-2, 1, 40)], 0.0),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(("nbeta", "gamma"), [(30.0, 500.0), (300.0, 30.0), (1e5, 1e4)])
def test_elasticities_of_a_quadratic_are_the_slopes_of_its_closed_form(
    name: str, nbeta: float, gamma: float
) -> None:
    h, size = SPECTRA[name]
    g = size * np.random.default_rng(3).normal(size=len(h)) * np.sqrt(gamma) / nbeta
    found = diagnose(quadratic(h, g, nbeta, gamma), baseline=1.0)
    assert near(found.elasticity_nbeta, slope_of(lambda b: exact(h, g, b, gamma), nbeta))
    assert near(found.elasticity_gamma, slope_of(lambda c: exact(h, g, nbeta, c), gamma))
    assert near(found.temperature, 1.0)
    virial = (nbeta * h / (nbeta * h + gamma)).sum()
    square = nbeta**2 * (g**2 / (nbeta * h + gamma)).sum()
    if not size:
        assert near(found.degree, 2.0)
    else:  # E[V] − 2λ̂ = nβ²·gᵀA⁻¹g
        assert near(found.degree, 2 + square / exact(h, g, nbeta, gamma))
    assert virial > 0


def test_the_halves_keep_the_noise_of_the_minibatch_out() -> None:
    """The same draws with ten times the noise have the same elasticities, within their errors."""
    h = np.logspace(-2, 1, 40)
    data = quadratic(h, 0 * h, 300.0, 30.0)
    loud = data.copy(deep=True)
    rng = np.random.default_rng(5)
    extra = (
        rng.normal(size=loud.half_loss.shape)
        * 10
        * NOISE
        * np.sqrt(data.squared_distance.values)[..., None]
    )
    loud["half_loss"] = loud.half_loss + extra
    loud["half_virial"] = loud.half_virial + 300.0 * extra
    truth = slope_of(lambda b: exact(h, 0 * h, b, 30.0), 300.0)
    assert near(diagnose(loud, baseline=1.0).elasticity_nbeta, truth)
    naive = 1 - float((300.0 * (loud.half_loss - loud.half_init_loss)).mean("half").var()) / exact(
        h, 0 * h, 300.0, 30.0
    )
    assert not near(Measured(naive, diagnose(loud, baseline=1.0).elasticity_nbeta.error), truth)


def grid_draws(
    loss: Loss, nbeta: float, gamma: float, axes: list[np.ndarray]
) -> tuple[np.ndarray, Callable[[float, float], float]]:
    """Returns draws (N, D) of the localised posterior on a grid, and λ̂(nβ, γ) by integration."""
    points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    values, squares = loss(points), (points**2).sum(axis=1)

    def weights(b: float, c: float) -> np.ndarray:
        log = -b * values - c / 2 * squares
        found = np.exp(log - log.max())
        return found / found.sum()

    index = np.random.default_rng(2).choice(len(points), CHAINS * DRAWS, p=weights(nbeta, gamma))
    return points[index], lambda b, c: float(b * weights(b, c) @ values)


@pytest.mark.parametrize("gamma", [0.01, 1.0, 300.0])
def test_elasticities_of_a_quartic_are_those_of_quadrature(gamma: float) -> None:
    scale = min(100.0**-0.25, gamma**-0.5) * 6
    draws, llc = grid_draws(
        lambda x: x[:, 0] ** 4, 100.0, gamma, [np.linspace(-scale, scale, 20001)]
    )
    data = trace(draws, lambda x: x[:, 0] ** 4, lambda x: 4 * x[:, 0] ** 4, 100.0, gamma, 1)
    found = diagnose(data, baseline=1.0)
    assert near(found.elasticity_nbeta, slope_of(lambda b: llc(b, gamma), 100.0))
    assert near(found.elasticity_gamma, slope_of(lambda c: llc(100.0, c), gamma))
    assert near(found.degree, 4.0)


def test_elasticities_of_a_cusp_are_those_of_quadrature() -> None:
    """(x² − y³)², whose learning coefficient is 5/12."""

    def loss(w: np.ndarray) -> np.ndarray:
        return (w[:, 0] ** 2 - w[:, 1] ** 3) ** 2

    def slope(w: np.ndarray) -> np.ndarray:
        x, y = w.T
        return 2 * (x**2 - y**3) * (2 * x**2 - 3 * y**3)

    axis = np.linspace(-2.5, 2.5, 1201)
    draws, llc = grid_draws(loss, 1000.0, 5.0, [axis, axis])
    found = diagnose(trace(draws, loss, slope, 1000.0, 5.0, 2), baseline=1.0)
    assert near(found.elasticity_nbeta, slope_of(lambda b: llc(b, 5.0), 1000.0))
    assert near(found.elasticity_gamma, slope_of(lambda c: llc(1000.0, c), 5.0))


FLAT = np.logspace(-1, 1, 60)  # far below α
STEEP = np.full(60, 100.0)
CASES = {
    "curvature": (FLAT, 0.0, 1.0, 500.0),
    "plateau": (STEEP, 0.0, 300.0, 1.0),
    "crossover": (np.logspace(-3, 3, 60), 0.0, 30.0, 30.0),
    "gradient": (STEEP, 1.0, 300.0, 1.0),
}


def known(h: np.ndarray, g: np.ndarray, nbeta: float, gamma: float) -> AtMinimum:
    part = exact(h, g, nbeta, gamma) - exact(h, 0 * g, nbeta, gamma)
    return AtMinimum(
        trace=Measured(float(h.sum())),
        gradient=Measured(float(g @ g)),
        gradient_part=Measured(part),
    )


@pytest.mark.parametrize("regime", CASES)
def test_each_regime_is_found_where_it_is(regime: str) -> None:
    h, size, nbeta, gamma = CASES[regime]
    g = size * np.ones_like(h)
    minimum = known(h, g, nbeta, gamma)
    found = diagnose(quadratic(h, g, nbeta, gamma), baseline=1.0, minimum=minimum)
    assert found.regime == regime, found


def test_a_quartic_in_a_tight_ball_is_localised_and_anharmonic() -> None:
    rng, gamma, axis = np.random.default_rng(0), 500.0, np.linspace(-0.3, 0.3, 6001)
    weights = np.exp(-3e2 * axis**4 - gamma / 2 * axis**2)
    draws = rng.choice(axis, (CHAINS * DRAWS, 60), p=weights / weights.sum())
    data = trace(draws, lambda x: (x**4).sum(1), lambda x: 4 * (x**4).sum(1), 3e2, gamma, 60)
    minimum = AtMinimum(trace=Measured(0.0), gradient=Measured(0.0))
    assert diagnose(data, baseline=1.0, minimum=minimum).regime == "localised, anharmonic"


def test_a_hot_chain_is_not_in_equilibrium() -> None:
    data = quadratic(FLAT, 0 * FLAT, 1.0, 500.0)
    for name in ("virial", "squared_distance", "half_virial"):
        data[name] = 1.5 * data[name]
    assert diagnose(data, baseline=1.0).regime == "not in equilibrium"


def test_a_rise_to_guessing_is_an_escape() -> None:
    data = quadratic(STEEP, 0 * STEEP, 30.0, 1.0)
    assert (
        diagnose(data, baseline=1.0, guess=2.0, minimum=known(STEEP, 0 * STEEP, 30.0, 1.0)).regime
        == "escaped"
    )


def test_few_draws_leave_the_regime_undecided() -> None:
    nbeta, gamma = 300.0, 2600.0  # both elasticities are ± 0.08, just inside a plateau's limit
    data = quadratic(STEEP, 0 * STEEP, nbeta, gamma).isel(draw=slice(0, 20))
    found = diagnose(data, baseline=1.0, minimum=known(STEEP, 0 * STEEP, nbeta, gamma))
    assert found.regime == "undecided"
    assert found.possible == ("plateau", "crossover")


def test_a_trace_without_the_virial_says_nothing_of_the_regime() -> None:
    data = quadratic(FLAT, 0 * FLAT, 1.0, 500.0)
    for name in ("virial", "squared_distance", "half_virial"):
        data[name] = data[name] * math.nan
    found = diagnose(data, baseline=1.0)
    assert found.regime == "undecided"
    assert math.isnan(found.elasticity_gamma.value)


@pytest.mark.parametrize(("nbeta", "gamma"), [(30.0, 500.0), (300.0, 30.0)])
def test_a_coupled_pair_is_far_more_precise_than_dilation(nbeta: float, gamma: float) -> None:
    h = np.logspace(-4, 2, 60)
    one, two = (quadratic(h, 0 * h, nbeta, c, seed=4) for c in (gamma, 1.25 * gamma))
    found = coupled(one, two, 1.0)
    secant = math.log(
        exact(h, 0 * h, nbeta, 1.25 * gamma) / exact(h, 0 * h, nbeta, gamma)
    ) / math.log(1.25)
    assert near(found, secant)
    assert found.error < diagnose(one, baseline=1.0).elasticity_gamma.error / 2
