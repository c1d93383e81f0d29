"""Several chains at once: each has the losses and gradients that the model has at its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from replicate.models import task
from replicate.models.task import TextTask
from replicate.progress import silent
from replicate.sampling import Chain, SamplerConfig, SamplingConfig
from replicate.sampling.engine import run_pieces
from tests.models.small_task import build, save_windows, task_config

C, B = 3, 5


def loaded(folder: Path, architecture: str = "gpt2", **given: object) -> TextTask:
    """Returns a task of two layers that chains can share."""
    build(architecture, layers=2).save_pretrained(folder / "model")
    save_windows(folder, np.random.default_rng(0).integers(0, 12, (64, 9)).astype(np.int32))
    return task.load(task_config(folder, **{"together": C} | given))


FORMATS = [
    ("gpt2", "float32", "all", "last"),
    ("gpt2", "float32", "all", "tokens"),
    ("llama", "float32", "all", "last"),
    ("llama", "float32", "all", "tokens"),
    ("llama", "nf4", "unquantised", "last"),
    ("llama", "dequantised-float32", "all", "tokens"),
    ("gpt2", "float32", "attention", "last"),
]


@pytest.mark.parametrize(("architecture", "weights", "moved", "loss"), FORMATS)
def test_losses_and_gradients_are_those_of_each_chain_alone(
    tmp_path: Path, architecture: str, weights: str, moved: str, loss: str
) -> None:
    found = loaded(tmp_path, architecture, weights=weights, restriction=(moved,), loss=loss)
    assert found.stacked is not None
    torch.manual_seed(1)
    stack = [
        torch.stack([p.detach() + 0.1 * torch.randn_like(p) for _ in range(C)]).requires_grad_()
        for p in found.parameters
    ]
    index_CxB = torch.randint(64, (C, B))
    losses_CxB = found.stacked(stack, index_CxB)
    losses_CxB.mean(dim=1).sum().backward()
    for chain in range(C):
        with torch.no_grad():
            for parameter, each in zip(found.parameters, stack, strict=True):
                parameter.copy_(each[chain])
        found.model.zero_grad()
        alone_B = found.loss(index_CxB[chain])
        alone_B.mean().backward()
        torch.testing.assert_close(losses_CxB[chain], alone_B, rtol=1e-5, atol=1e-5)
        for name, parameter, each in zip(found.names, found.parameters, stack, strict=True):
            assert parameter.grad is not None
            assert each.grad is not None
            gradient = parameter.grad.to_dense()
            error = (each.grad[chain] - gradient).abs().max()
            assert error <= 1e-4 * gradient.abs().max(), name


@pytest.mark.parametrize("loss", ["last", "tokens"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_losses_and_gradients_are_those_of_all_logits(
    tmp_path: Path, architecture: str, loss: str
) -> None:
    """The reference builds the model anew and writes the cross-entropy out."""
    found = loaded(tmp_path, architecture, loss=loss)
    model, index_B = build(architecture, layers=2), torch.arange(B)
    tokens_BxL = found.tokens_NxL[index_B].long()
    shares_BxTxV = model(tokens_BxL[:, :-1]).logits.log_softmax(-1)
    losses_BxT = -shares_BxTxV.gather(-1, tokens_BxL[:, 1:, None])[..., 0]
    expected_B = losses_BxT.mean(dim=1) if loss == "tokens" else losses_BxT[:, -1]
    expected_B.sum().backward()
    found.loss(index_B).sum().backward()
    assert found.stacked is not None
    stack = [p.detach()[None].clone().requires_grad_() for p in found.parameters]
    losses_B = found.stacked(stack, index_B[None])[0]
    losses_B.sum().backward()
    torch.testing.assert_close(found.loss(index_B), expected_B, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses_B, expected_B, rtol=1e-5, atol=1e-6)
    for name, parameter, each in zip(found.names, found.parameters, stack, strict=True):
        assert parameter.grad is not None
        assert each.grad is not None
        expected = model.get_parameter(name).grad
        largest = float(expected.abs().max())
        for gradient in (parameter.grad.to_dense(), each.grad[0]):
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * largest)


def run(found: TextTask, sampler: SamplerConfig, together: int) -> dict[tuple[int, int], Chain]:
    sampling = SamplingConfig(nbeta=5.0, batch_size=B, shuffles=2, chains=2, burn_in=2, draws=6)
    return run_pieces(
        found,
        sampler,
        sampling,
        sampling.pieces(),
        np.zeros(64, np.float32),
        together=together,
        order=lambda shuffle: np.random.default_rng(shuffle).permutation(64),
        noise=lambda shuffle, chain: 10 * shuffle + chain,
        advance=silent,
    )


SAMPLERS = [
    SamplerConfig("sgld", 1e-3, localization=10.0, weight_decay=0.1, bounding_box=0.02),
    SamplerConfig("rmsprop", 1e-3, localization=10.0),
    SamplerConfig("sgnht", 1e-4, diffusion=0.1),
    SamplerConfig("leimkuhler", 1e-3, localization=10.0, stationary=True),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda config: config.sampler)
def test_chains_side_by_side_are_the_chains_one_after_the_other(
    tmp_path: Path, sampler: SamplerConfig
) -> None:
    found = loaded(tmp_path)
    before = [parameter.detach().clone() for parameter in found.parameters]
    alone, together = run(found, sampler, 1), run(found, sampler, C)
    assert list(alone) == list(together)
    for key, chain in alone.items():
        np.testing.assert_allclose(together[key].loss, chain.loss, rtol=1e-4)
        assert len(set(chain.loss)) == len(chain.loss)
    torch.testing.assert_close(list(found.parameters), before, rtol=0, atol=0)


def test_chains_side_by_side_do_not_depend_on_one_another(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    assert found.stacked is not None
    stack = [p.detach().expand(C, *p.shape).clone() for p in found.parameters]
    index_CxB = torch.randint(64, (C, B))
    before = found.stacked(stack, index_CxB)
    for each in stack:
        each[1] = torch.nan
    after = found.stacked(stack, index_CxB)
    assert torch.isnan(after[1]).all()
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_a_diverged_chain_is_nan_from_there_and_the_others_go_on(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    chains = run(found, SamplerConfig("sgld", 1e30, localization=10.0), C)
    for chain in chains.values():
        diverged = np.isnan(chain.loss)
        first = np.flatnonzero(diverged)[0]
        assert first > 0
        assert diverged[first:].all()
        assert np.isnan(chain.seconds[first:]).all()


@pytest.mark.parametrize(
    ("architecture", "given"),
    [
        ("llama", {"together": 1}),
        ("llama", {"compute_dtype": "bfloat16"}),
        ("llama", {"weights": "int8"}),
        ("gpt2", {"weights": "dequantised-float32"}),
    ],
)
def test_what_is_not_known_is_computed_one_by_one(
    tmp_path: Path, architecture: str, given: dict[str, object]
) -> None:
    assert loaded(tmp_path, architecture, **given).stacked is None
