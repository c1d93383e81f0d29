"""What the scatter of losses tells, on quadratics whose posterior is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from replicate.estimation import estimators, fluctuations, posterior
from replicate.estimation.estimate import Estimate
from tests.estimation.test_regimes import CHAINS, DRAWS, quadratic

NBETA, LABELS, EXAMPLES = 30.0, 5, 40


@pytest.mark.parametrize("gamma", [1.0, 3000.0])
def test_the_variance_of_the_loss_is_that_of_the_quadratic(gamma: float) -> None:
    """Var(U) = ½·Σ (nβ·h/a)²: λ̂ on a plateau, and far less where the localisation decides.

    The noise of a half alone has more than this variance.
    """
    h = np.full(20, 100.0)
    data = quadratic(h, 0 * h, NBETA, gamma)
    loud = data.copy(deep=True)
    extra = np.random.default_rng(8).normal(size=loud.half_loss.shape) * 5 / NBETA
    loud["half_loss"] = loud.half_loss + extra
    truth = 0.5 * ((NBETA * h / (NBETA * h + gamma)) ** 2).sum()
    for one, tolerance in ((data, 5), (loud, 5)):
        found = estimators.summarise(fluctuations.variance(one, NBETA))
        assert abs(found.llc - truth) < tolerance * found.standard_error
        assert found.standard_error < 0.3 * truth
    llc = Estimate(data.assign_attrs(data.attrs | {"baseline": {"loss": 1.0}})).llc
    assert (abs(llc / truth - 1) < 0.1) == (gamma == 1.0)


def test_halves_of_few_examples_add_no_bias() -> None:
    """The loss of N = 20 examples is gᵢ·w: half-batches of 8 or 10 are not independent.

    Then Var(U) = nβ²·ḡᵀA⁻¹ḡ, and the product of the halves alone would be negative.
    """
    rng, N, d = np.random.default_rng(6), 20, 5
    g = rng.normal(size=(N, d)) + 0.1
    draws, gamma = CHAINS * DRAWS, 500.0
    away = rng.normal(size=(draws, d)) / np.sqrt(gamma)
    truth = NBETA**2 * (g.mean(axis=0) ** 2).sum() / gamma
    for size in (16, 20):
        data = quadratic(np.zeros(d), np.zeros(d), NBETA, gamma)
        batches = np.argsort(rng.random((draws, N)), axis=1)[:, :size]
        losses = np.take_along_axis(away @ g.T, batches, axis=1)
        halves = losses.reshape(draws, 2, size // 2).mean(axis=2)
        data["half_loss"] = data.half_init_loss + halves.reshape(data.half_loss.shape)
        data["half_virial"] = NBETA * (data.half_loss - data.half_init_loss)
        data["loss"] = data.half_loss.mean("half")
        data["init_loss"] = data.half_init_loss.mean("half")
        alone = fluctuations.variance(data, NBETA)
        data.attrs["sampling"]["batch_size"], data.attrs["task"]["examples"] = size, N
        found = estimators.summarise(fluctuations.variance(data, NBETA))
        assert abs(found.llc - truth) < 5 * found.standard_error
        assert float(alone.mean()) < truth - 10 * found.standard_error
        measured = posterior.measure(data, 1.0).variance
        assert abs(measured.value - truth) < 5 * measured.error


def kept(h: np.ndarray, noise: np.ndarray, gamma: float) -> xr.Dataset:
    """Losses ½·Σ h·w² + gᵢ·w of examples at draws of the posterior."""
    rng = np.random.default_rng(4)
    away = rng.normal(size=(CHAINS * DRAWS, len(h))) / np.sqrt(NBETA * h + gamma)
    loss = 0.5 * away**2 @ h[:, None] + away @ noise.T
    shape = (1, CHAINS, DRAWS, len(noise))
    dims = ("shuffle", "chain", "kept", "example")
    return xr.Dataset(
        {
            "example_loss": (dims, loss.reshape(shape)),
            "diverged": (dims[:2], np.zeros(shape[:2], bool)),
        }
    )


@pytest.mark.parametrize("gamma", [1e-3, 300.0])
def test_the_singular_fluctuation_is_that_of_the_quadratic(gamma: float) -> None:
    """Var(ℓᵢ) = gᵢᵀA⁻¹gᵢ + ½·tr[(HA⁻¹)²]; ν is d/2 if T·Σ = H, gradients rule and γ is small."""
    h = np.logspace(-1, 1, 12)
    noise = np.random.default_rng(5).normal(size=(EXAMPLES, len(h)))
    noise *= np.sqrt(h / LABELS / (noise**2).mean(axis=0))  # so that T·Σ = H exactly
    a = NBETA * h + gamma
    linear = 0.5 * NBETA * LABELS * ((noise**2).mean(axis=0) / a).sum()
    truth = linear + 0.25 * NBETA * LABELS * ((h / a) ** 2).sum()
    found = estimators.summarise(fluctuations.singular(kept(h, noise, gamma), NBETA, LABELS))
    assert abs(found.llc - truth) < 5 * found.standard_error
    assert found.standard_error < 0.05 * truth
    assert linear == pytest.approx(0.5 * (NBETA * h / a).sum())
    whole = fluctuations.functional_variance(found.llc, NBETA, LABELS * 1000)
    each = kept(h, noise, gamma).example_loss.var(("shuffle", "chain", "kept")).mean()
    assert whole == pytest.approx(LABELS**2 * 1000 * float(each), rel=1e-3)
