"""λ̂ as a curve: chains that pass warm down γ, what is known of w* beside them, and bad input."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from replicate.data import tensors, traces
from replicate.models import task
from replicate.models.config import order
from replicate.pipeline.config import reading
from replicate.pipeline.stages import curve
from replicate.pipeline.work import plans
from replicate.progress import silent
from replicate.sampling import SamplerConfig, SamplingConfig, curvature
from replicate.sampling.walkers import Walkers
from replicate.seeds import derive
from replicate.study import records
from replicate.study.records import CurvePoint
from tests.pipeline import small
from tests.pipeline.small import MODELS, configured

MODEL, GAMMAS = MODELS[0], (5000.0, 2000.0)


def points() -> list[CurvePoint]:
    return records.read(configured().paths.study("demo") / "curve.json", CurvePoint)


def stored(gamma: float) -> Any:
    return traces.load(configured().paths.curve("mini") / MODEL / "30" / f"{gamma:g}")


def test_the_chains_pass_warm_from_the_largest_localisation_to_the_smallest(project: Path) -> None:
    config = configured()
    found = task.load(plans.task_config(config, MODEL))
    losses_N = tensors.load(config.paths.baselines("mini") / MODEL / "losses.safetensors")["losses"]
    walkers = Walkers(
        found,
        losses_N,
        1,
        2,
        order=lambda _: order(2023, "mini", found.examples, "curve"),
        noise=lambda _, chain: derive(2023, "noise", "curve", MODEL, chain),
    )
    for gamma in GAMMAS:
        trace = stored(gamma)
        sampler = SamplerConfig(**trace.attrs["sampler"])
        assert (sampler.sampler, sampler.localization) == ("leimkuhler", gamma)
        burn_in = trace.attrs["sampling"]["burn_in"]
        assert burn_in >= 5 / (sampler.lr * gamma)  # 2.5 relaxation times
        sampling, controlled = SamplingConfig(**trace.attrs["sampling"]), trace.attrs["controlled"]
        legs = [1, small.CURVE["draws"] - 1]  # then the draws are doubled
        while burn_in + sum(legs) < trace.sizes["draw"]:
            legs.append(sum(legs))
        again = []
        for leg in legs:
            part = replace(sampling, burn_in=0 if again else burn_in, draws=leg)
            again.append(walkers.run(sampler, part, silent, controlled=controlled).loss.values)
        np.testing.assert_allclose(trace.loss, np.concatenate(again, axis=2), rtol=1e-5)


def test_a_point_has_the_harmonic_part_of_the_hessian_at_its_own_setting(project: Path) -> None:
    config = configured()
    found = task.load(plans.task_config(config, MODEL))
    index = torch.from_numpy(order(2023, "mini", found.examples, "gradient"))
    numbers: dict[str, Any] = {"probes": 2, "products": 12, "seed": derive(2023, "curvature")}
    hessian = curvature.measure(found, index, batch_size=4, **numbers, advance=silent)
    loss = sum(found.loss(part).sum() for part in index.split(4)) / len(index)
    assert isinstance(loss, torch.Tensor)
    squared = sum(float(g.square().sum()) for g in torch.autograd.grad(loss, found.parameters))
    rows = {row.localization: row for row in points()}
    assert list(rows) == [2000.0, 5000.0]
    assert -hessian.lowest < 2000 / 30
    for gamma, row in rows.items():
        assert row.harmonic == pytest.approx(hessian.harmonic(30.0, gamma)[0], rel=0.01)
        # of the loss of all windows, which are known; to first order in nβ·h/γ
        assert row.gradient_part == pytest.approx((-(30.0**2) * squared / gamma, 0.0), rel=0.1)
        trace = stored(gamma)
        assert (row.lr, row.chains) == (pytest.approx(trace.attrs["sampler"]["lr"], rel=1e-4), 2)
        assert row.regime is not None


def test_another_ladder_is_another_curve(project: Path) -> None:
    """A γ that is added below changes nothing above it; one that is added above changes all."""
    key = "families__mini__curve__localization"
    small.run(configured(**{key: [5000.0, 2000.0, 1000.0]}), "collect", name="demo")
    assert len(points()) == 2
    small.run(configured(**{key: [9000.0, 5000.0, 2000.0]}), "collect", name="demo")
    assert points() == []
    refused = records.read(configured().paths.study("demo") / "refused.json", records.Refused)
    assert any(row.path.endswith("30/5000") and "ladder" in row.reason for row in refused)


def test_a_curve_is_computed_once_and_one_model_alone(project: Path) -> None:
    config = configured()
    unit = curve.plan(config, MODEL)
    before, files = unit.file.stat().st_mtime_ns, small.files(config.paths.curve("mini"))
    shutil.rmtree(config.paths.curve("mini"))
    small.run(config, "curve", only=MODEL)
    assert unit.file.stat().st_mtime_ns == before
    assert small.files(config.paths.curve("mini")) == files
    small.told(lambda: small.run(config, "curve", only=MODELS[1]), f"--only {MODELS[1]}", MODEL)


def test_a_family_without_a_curve_runs_none(project: Path) -> None:
    config = configured(families__mini__curve=None)
    small.run(config, "curve")
    small.run(config, "collect", name="demo")
    assert points() == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("nbeta", [], "nbeta: needs at least 1, and has 0"),
        ("nbeta", [30.0, 30.0], "nbeta: each value may be listed only once"),
        ("localization", [0.0], "localization.0: must be above 0"),
        ("chains", 1, "chains: must be at least 2"),
        ("draws", 3, "draws: must be at least 4"),
    ],
)
def test_a_curve_that_cannot_be_run_is_told(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        configured(**{f"families__mini__curve__{key}": value})
    assert reading.explain(error.value).startswith(f"families.mini.curve.{said}")


def test_a_model_of_another_family_is_told() -> None:
    changes = {"families__mini__curve__models": ["gpt2"]}
    small.told(lambda: configured(**changes), "families.mini.curve.models: 'gpt2' is not of family")
