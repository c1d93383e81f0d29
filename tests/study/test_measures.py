"""The fields that say what λ̂ measures: the pair replaces dilation, and what is unknown is null."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr

from replicate.estimation.posterior import Measured
from replicate.estimation.regimes import UNKNOWN, AtMinimum
from replicate.study import measures
from replicate.study.collecting import curve_point

LOSS, NBETA, SIZE = 1.0, 30.0, 400
CURVED = 3.0  # the curvature of every direction, nats


def chains(gamma: float, **minimum: Any) -> xr.Dataset:
    """Exact draws from the localised posterior of ½·h·‖Δ‖²; the seed is common to all γ."""
    rng = np.random.default_rng(0)
    dims = ("shuffle", "chain", "draw")
    squared = rng.chisquare(SIZE, (2, 4, 300)) / (NBETA * CURVED + gamma)
    rise = CURVED * squared / 2
    halves = np.stack([rise, rise], axis=-1)
    variables: dict[str, Any] = {
        "loss": (dims, LOSS + rise),
        "init_loss": (dims, np.full_like(rise, LOSS)),
        "virial": (dims, 2 * NBETA * rise),
        "squared_distance": (dims, squared),
        "half_loss": ((*dims, "half"), LOSS + halves),
        "half_init_loss": ((*dims, "half"), np.full_like(halves, LOSS)),
        "half_virial": ((*dims, "half"), 2 * NBETA * halves),
        "diverged": (dims[:2], np.zeros((2, 4), bool)),
    }
    sampler = {"lr": 1e-4, "localization": gamma, "weight_decay": 0.0, "bounding_box": None}
    attributes = {
        "family": "f",
        "model": "m",
        "sampler": sampler | {"noise_level": 1.0},
        "sampling": {"nbeta": NBETA},
        "task": {"sampled_parameters": SIZE},
        "machine": {},
        "baseline": {"loss": LOSS},
        "minimum": minimum,
    }
    return xr.Dataset(variables, {"draw": np.arange(300)}, attributes)


def test_the_pair_replaces_dilation() -> None:
    """∂ln λ̂/∂ln γ of a quadratic with equal curvatures is −γ/(nβ·h + γ)."""
    gamma = 60.0
    found = measures.of_posterior(chains(gamma), AtMinimum(), 50, None, chains(1.25 * gamma))
    alone = measures.of_posterior(chains(gamma), AtMinimum(), 50, None)
    steep = NBETA * CURVED
    between = -math.log((steep + 1.25 * gamma) / (steep + gamma)) / math.log(1.25)
    assert found["elasticity_gamma"][0] == pytest.approx(between, rel=1e-3)
    assert found["dilation"] == alone["dilation"] == alone["elasticity_gamma"]
    value, error = alone["dilation"]
    assert abs(value + gamma / (steep + gamma)) < 4 * error
    assert found["elasticity_gamma"][1] < error / 10


def test_a_harmonic_part_that_is_not_positive_is_unknown() -> None:
    for harmonic, expected in ((Measured(2.5, 0.1), 2.5), (Measured(-48.3, 9.0), None)):
        found = measures.of_posterior(chains(60.0), AtMinimum(harmonic=harmonic), 50, None)
        assert found["harmonic"] == expected
    assert measures.of_posterior(chains(60.0), AtMinimum(), 50, None)["harmonic"] is None


def test_a_point_of_a_curve_takes_w_star_from_its_own_trace() -> None:
    noted = {"trace": [1200.0, 3.0], "harmonic": [math.nan, math.nan]}
    noted |= {"gradient_squared": [0.0, 0.0]}
    row = curve_point(chains(9000.0, **noted, gradient_part=[-0.01, 0.002]), 50)
    assert row.llc == pytest.approx(SIZE / 2 * 90 / 9090, rel=0.02)
    assert row.gradient_part == pytest.approx((-0.01, 0.002))
    assert row.harmonic is None
    assert row.regime == "curvature"  # ½·nβ·tr(H)/γ = 2
    assert measures.noted(chains(1.0)).trace == UNKNOWN
