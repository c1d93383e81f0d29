"""On a CUDA GPU: the noise, the samplers, the weights' formats and the count of memory are what
they are on a CPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import GPT2Config, LlamaConfig

from replicate.models import task as subjects
from replicate.pipeline.config import Params, load
from replicate.pipeline.planning.footprint import Chain, footprint
from replicate.pipeline.stages import clock
from replicate.sampling import Plan, Setting, noise, sample
from tests.conftest import ROOT
from tests.scenarios import filled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")

NAME, STEPS, NBETA = "mini-34k", 12, 30.0
SMALL = GPT2Config(
    vocab_size=500, n_positions=32, n_layer=2, n_embd=64, n_head=2, bos_token_id=0, eos_token_id=0
)
LLAMA = LlamaConfig(
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=2,
    vocab_size=500,
)
SETTINGS = [
    Setting("sgld", 1e-3, localization=100.0, weight_decay=0.1, bounding_box=0.5),
    Setting("rmsprop", 1e-3, localization=100.0),
    Setting("sgnht", 1e-6, diffusion=0.05),
]


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(ROOT)
    return load()


def trace(
    params: Params,
    folder: Path,
    setting: Setting,
    weights: str = "float32",
    products: str = "float32",
) -> xr.Dataset:
    """Of a random model in `folder`, which a second look finds at w* again."""
    family = params.families["mini"].model_copy(update={"products": products})
    subject = subjects.load(
        params.model_copy(update={"families": params.families | {"mini": family}}),
        NAME,
        folder / "windows",
        folder / "weights",
        weights=weights,
        restriction=["all"],
    )
    with torch.no_grad():
        init = (
            torch.cat([subject(part) for part in torch.arange(clock.WINDOWS).split(64)])
            .float()
            .cpu()
            .numpy()
        )
    before = [parameter.detach().clone() for parameter in subject.space.parameters]
    found = sample(
        subject.space,
        subject,
        init,
        setting,
        Plan(NBETA, batch_size=16, groups=1, chains=2, burn_in=4, draws=STEPS),
        order=lambda group: np.random.default_rng(group).permutation(clock.WINDOWS),
        noise=lambda group, chain: 100 * group + chain,
        advance=lambda steps=1, note="": None,
    )
    assert all(
        torch.equal(now, then) for now, then in zip(subject.space.parameters, before, strict=True)
    )
    return found


def made(folder: Path, config: GPT2Config | LlamaConfig) -> Path:
    torch.manual_seed(0)
    clock.make(config, 32, folder)
    return folder


def test_the_noise_is_the_cpus() -> None:
    size = 3 * noise.BLOCK + 77
    found = noise.fused(noise.normal)(size, noise.placed(7, 3, 2, "cuda"))
    np.testing.assert_allclose(found.cpu().numpy(), filled(size), atol=2e-5)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.sampler)
def test_a_chain_is_the_cpus(
    params: Params, tmp_path: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32: the same windows, the same noise, losses that differ by rounding alone."""
    folder = made(tmp_path, SMALL)
    there = trace(params, folder, setting)
    monkeypatch.setattr("replicate.models.loading.device", lambda *_: torch.device("cpu"))
    monkeypatch.setattr("replicate.sampling.noise.fused", lambda update: update)
    here = trace(params, folder, setting)
    assert float(here.loss[..., -1].mean()) != pytest.approx(
        float(here.loss[..., 0].mean()), rel=1e-3
    )
    np.testing.assert_allclose(there.loss, here.loss, rtol=1e-3)


@pytest.mark.parametrize(
    "weights", ["float32", "bfloat16", "int8", "nf4", "dequantised", "dequantised-float32"]
)
def test_every_format_gives_the_same_chain_twice(
    params: Params, tmp_path: Path, weights: str
) -> None:
    """It starts at w*, moves, stays finite, and gives the same bits again."""
    folder = made(tmp_path, LLAMA)
    first, again = (
        trace(params, folder, SETTINGS[0], weights, products="bfloat16") for _ in range(2)
    )
    assert not first.failed.any()
    np.testing.assert_allclose(
        first.loss[..., 0], first.init_loss[..., 0], rtol=0.02
    )  # the first step is at w*
    assert (np.abs(first.loss - first.init_loss).mean("draw") > 1e-3).all()
    np.testing.assert_array_equal(first.loss, again.loss)


def test_products_in_bfloat16_give_nearly_the_same_chain(params: Params, tmp_path: Path) -> None:
    folder = made(tmp_path, SMALL)
    precise, brief = (
        trace(params, folder, SETTINGS[0], products=products)
        for products in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(brief.loss, precise.loss, rtol=0.02)


@pytest.mark.parametrize("weights", ["float32", "nf4", "dequantised"])
def test_the_plan_counts_the_memory_that_torch_allocates(
    params: Params, tmp_path: Path, weights: str
) -> None:
    """Within a fifth, of a model large enough that its weights and activations are what counts."""
    config = LlamaConfig(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        vocab_size=32000,
    )
    chain = Chain(weights, "float32", ("all",), "sgld", 200, 16, None, "kept")  # pyright: ignore[reportArgumentType]
    clock.make(config, chain.length, tmp_path)
    found = clock.measured(params, NAME, tmp_path, chain)
    assert footprint(config, chain).memory(cuda=True) == pytest.approx(found.memory, rel=0.2)
