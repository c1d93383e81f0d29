"""The type of matrix products is not seen in λ̂, and a task moves what its restriction names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from replicate.estimation import estimators
from replicate.models import module, task, training
from replicate.models.config import Schedule, TaskConfig, order
from replicate.models.task import TextTask
from replicate.progress import silent
from replicate.sampling import SamplerConfig, SamplingConfig, sample
from tests.models.small_task import build, save_windows, task_config

N = 2000


def text() -> np.ndarray:
    """Most tokens are one more than the one two places before."""
    rng = np.random.default_rng(0)
    tokens_NxL = rng.integers(0, 12, (N, 9), dtype=np.int32)
    for i in range(2, 9):
        rule = (tokens_NxL[:, i - 2] + 1) % 12
        tokens_NxL[:, i] = np.where(rng.random(N) < 0.8, rule, tokens_NxL[:, i])
    return tokens_NxL


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TaskConfig:
    """A small trained model and its windows, as the stages leave them."""
    folder, tokens_NxL = tmp_path_factory.mktemp("task"), text()
    save_windows(folder, tokens_NxL)
    model = build()
    schedule = Schedule(5e-3, 64, warmup=20, check=50, tolerance=0.0, descent=0.5, steps=400)
    tokens = torch.from_numpy(tokens_NxL).long()
    batches = training.epochs(tokens, 64, torch.Generator().manual_seed(0))
    training.train(model, tokens, schedule, batches, silent)
    model.save_pretrained(folder / "model")
    return task_config(folder)


def losses(found: TextTask) -> np.ndarray:
    with torch.no_grad():
        return found.loss(torch.arange(N)).numpy()


def llc(found: TextTask) -> estimators.Result:
    losses_N = losses(found)
    sampling = SamplingConfig(30.0, 32, shuffles=4, chains=1, burn_in=30, draws=40)
    trace = sample(
        found,
        SamplerConfig("sgld", 1e-3, localization=30.0),
        sampling,
        losses_N,
        order=lambda shuffle: order(1, "small", N, shuffle),
        noise=lambda shuffle, chain: shuffle,
        advance=silent,
    )
    mean = float(losses_N.mean(dtype=np.float64))
    return estimators.summarise(estimators.controlled(trace, 30.0, mean))


def test_lambda_in_bfloat16_is_that_of_float32_within_its_error(config: TaskConfig) -> None:
    """Batches and noise are the same; each type has a baseline of its own."""
    a, b = (task.load(replace(config, compute_dtype=name)) for name in ("float32", "bfloat16"))
    assert losses(b).dtype == np.float32
    assert not np.array_equal(losses(a), losses(b))
    np.testing.assert_allclose(losses(b), losses(a), rtol=0.05, atol=0.05)
    x, y = llc(a), llc(b)
    assert x.llc > 10 * x.standard_error
    assert abs(x.llc - y.llc) < max(x.standard_error, y.standard_error)


def test_a_task_says_what_it_is_and_how_much_of_it_moves(config: TaskConfig) -> None:
    whole, part = task.load(config), task.load(replace(config, restriction=("l0",)))
    size = sum(p.numel() for p in whole.model.parameters())
    known = {"parameters": size, "examples": N, "length": 9}
    assert whole.identity().items() >= (known | {"sampled_parameters": size}).items()
    assert sum(part.sizes) < size
    sampled = {"sampled_parameters": sum(part.sizes), "restriction": ["l0"]}
    assert part.identity() == whole.identity() | sampled


def test_the_order_of_examples_is_that_of_the_family_and_the_shuffle() -> None:
    first = order(1, "small", 50, 0)
    assert sorted(first) == list(range(50))
    np.testing.assert_array_equal(first, order(1, "small", 50, 0))
    for other in ((2, "small", 50, 0), (1, "big", 50, 0), (1, "small", 50, 1)):
        assert not np.array_equal(first, order(*other))


def test_dequantised_weights_have_their_anchors_in_four_bits(config: TaskConfig) -> None:
    folder = config.folder.with_name("llama")
    build("llama", width=64).save_pretrained(folder)
    found = task.load(replace(config, folder=folder, weights="dequantised"))
    packed = {name for name, x in zip(found.names, found.anchors, strict=True) if x is not None}
    assert packed == {name for name in found.names if "proj" in name}
    assert sum(found.sizes) == module.count(found.model)
