"""On a CUDA GPU the noise and the chains are those of a CPU, compiled or not, in every format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from replicate.errors import UserError
from replicate.models import task
from replicate.sampling import SamplerConfig, capture, noise
from replicate.sampling.compilation import fused
from tests.models import small_task
from tests.scenarios import EXAMPLES, filled, packed, sampled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")

WIDTH = 3 * noise.BLOCK // 96 + 5
CONFIGS = [
    SamplerConfig("sgld", 1e-4, localization=100.0, weight_decay=0.1, bounding_box=0.5),
    SamplerConfig("rmsprop", 1e-4, localization=100.0),
    SamplerConfig("sgnht", 1e-6, diffusion=0.05),
]
by_sampler = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.sampler)


def regression(
    config: SamplerConfig,
    device: str,
    dtype: torch.dtype = torch.float32,
    packed_anchor: bool = False,
    **other: Any,
) -> xr.Dataset:
    """Chains of a linear regression with a matrix and a vector of weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, 96, generator=generator).to(device)
    anchor, values = packed(torch.randn(96, WIDTH, generator=generator), dtype)
    parts = {name: getattr(anchor, name).to(device) for name in ("packed", "scale", "code")}
    anchor = replace(anchor, **parts)
    w = torch.nn.Parameter(values.to(device))
    b = torch.nn.Parameter(torch.zeros(WIDTH, dtype=dtype, device=device))

    def loss(i: torch.Tensor) -> torch.Tensor:
        return (x[i] @ w.float() / 10 + b.float()).square().mean(dim=1)

    anchors = [anchor, None] if packed_anchor else ()
    size: Any = {"batch_size": 16, "burn_in": 4, "draws": 12} | other
    return sampled(loss, [w, b], config, 30.0, anchors=anchors, **size)


def test_the_noise_is_the_cpus() -> None:
    size = 3 * noise.BLOCK + 77
    found = fused(noise.normal)(size, noise.placed(7, 3, 2, "cuda"))
    np.testing.assert_allclose(found.cpu().numpy(), filled(size), atol=2e-5)


@by_sampler
def test_a_chain_is_the_cpus(config: SamplerConfig) -> None:
    """In float32 the losses of the same batches under the same noise differ by rounding alone."""
    here, there = regression(config, "cpu"), regression(config, "cuda")
    assert float(here.loss.std()) > 1e-3 * float(here.loss.mean())
    np.testing.assert_allclose(there.loss, here.loss, rtol=1e-3)


@by_sampler
@pytest.mark.parametrize("packed_anchor", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_format_gives_the_same_chain_twice(
    config: SamplerConfig, dtype: torch.dtype, packed_anchor: bool
) -> None:
    """A chain moves, stays finite, and has the same bits again."""
    first, again = (regression(config, "cuda", dtype, packed_anchor) for _ in range(2))
    assert not first.diverged.any()
    assert (first.loss.std("draw") > 0).all()
    np.testing.assert_array_equal(first.loss, again.loss)


@by_sampler
@pytest.mark.parametrize("packed_anchor", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeated_steps_are_the_steps(
    config: SamplerConfig, dtype: torch.dtype, packed_anchor: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA graphs, of whole minibatches and of two halves, they have the same bits."""
    made, captured = list[str](), capture.captured
    monkeypatch.setattr(capture, "captured", lambda *given: made.append("") or captured(*given))
    given: Any = config, "cuda", dtype, packed_anchor
    plain, again = (regression(*given, draws=92, repeated=each) for each in (False, True))
    assert len(made) == 2 * plain.loss.shape[1]  # two graphs a chain
    xr.testing.assert_equal(again.drop_vars("seconds"), plain.drop_vars("seconds"))


def test_a_loss_that_waits_for_the_gpu_is_told() -> None:
    w = torch.nn.Parameter(torch.zeros(3, device="cuda"))

    def loss(index_B: torch.Tensor) -> torch.Tensor:
        return (w - float(w.sum())).square().sum().expand(len(index_B))

    with pytest.raises(UserError, match=r"compiled: a step cannot be captured .*; write false"):
        sampled(loss, [w], CONFIGS[0], 1.0, draws=92, repeated=True)


def test_compiled_passes_give_the_losses_of_those_that_are_not(tmp_path: Path) -> None:
    """At w* too, where a chain's losses are compared with the baseline, in bfloat16 by autocast."""
    small_task.build(layers=2, width=64, vocabulary=96, length=65).save_pretrained(
        tmp_path / "model"
    )
    tokens_NxL = np.random.default_rng(0).integers(0, 96, (64, 65), dtype=np.int32)
    small_task.save_windows(tmp_path, tokens_NxL)
    given: dict[str, Any] = {"loss": "tokens", "compute_dtype": "bfloat16", "compiled": True}
    loaded = task.load(small_task.task_config(tmp_path, **given))
    index_B = torch.arange(64, device="cuda")
    compiled, plain = loaded.step_loss(index_B), loaded.loss(index_B)
    assert loaded.step_loss is not loaded.loss
    torch.testing.assert_close(compiled, plain, rtol=2e-3, atol=2e-3)
    assert abs(float((compiled - plain).mean())) < 2e-4
    means = compiled.mean(), plain.mean()
    one, other = (torch.autograd.grad(mean, loaded.parameters) for mean in means)
    for here, there in zip(one, other, strict=True):
        assert float((here - there).norm()) < 0.02 * float(there.norm())
