"""Compiled passes give the chains of those that are not compiled, and lack nothing in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters  # pyright: ignore[reportPrivateImportUsage]

from replicate import llc, sample
from replicate.errors import UserError
from replicate.models import attention, last_token
from replicate.models.config import TextLoss
from replicate.models.module import TEXT_LOSSES
from replicate.sampling import compilation
from replicate.sampling.compilation import compiled_loss
from replicate.sampling.task import Loss
from tests.models import small_task
from tests.models.test_last_token import build, tokens
from tests.pipeline import small

CPU = torch.device("cpu")
COMPILES = bool(shutil.which("g++")) and " " not in torch.__file__


@pytest.mark.parametrize("loss", ["last", "tokens"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_step_is_one_graph_with_the_same_gradients(architecture: str, loss: TextLoss) -> None:
    """As torch compiles it for a CPU, or where it cannot with a kernel for every operation."""
    model = small_task.build(architecture).eval()
    if loss == "last":
        last_token.focus(model)
    tokens_NxL = torch.from_numpy(np.random.default_rng(0).integers(0, 12, (8, 9)))

    def plain(index_B: Tensor) -> Tensor:
        return TEXT_LOSSES[loss](model, tokens_NxL[index_B])

    def step(passes: Loss, size: int) -> list[Tensor]:
        losses_B = passes(torch.arange(size))
        losses_B.mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return [losses_B.detach(), *gradients]

    torch._dynamo.reset()
    counters.clear()
    backend = "inductor" if architecture == "gpt2" and COMPILES else "aot_eager"
    passes = compiled_loss(plain, CPU, backend)
    for size in (4, 2) if backend == "aot_eager" else (4,):  # a minibatch and its half
        for one, other in zip(step(passes, size), step(plain, size), strict=True):
            torch.testing.assert_close(one, other)
    assert counters["stats"]["unique_graphs"] == (2 if backend == "aot_eager" else 1)
    assert not counters["graph_break"]


@pytest.mark.parametrize("loss", ["last", "tokens"])
@pytest.mark.parametrize(("architecture", "masks"), [("gpt2", 0), ("llama", 0), ("mistral", 3)])
def test_compiled_attention_has_a_mask_only_where_it_sees_less_than_the_text(
    architecture: str, masks: int, loss: TextLoss
) -> None:
    """With a mask it could not be FlashAttention. The small mistral sees 6 tokens back."""
    model, found = build(architecture), list[object]()
    if loss == "last":
        last_token.focus(model)
    attention.use(model)

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        for node in graph.graph.nodes:
            if "scaled_dot_product" in str(node.target):
                found.append(*node.args[3:4] or [node.kwargs["attn_mask"]])
        return graph.forward

    torch._dynamo.reset()
    passes = compiled_loss(lambda i: TEXT_LOSSES[loss](model, tokens()[i]), CPU, backend)
    with torch.no_grad():
        passes(torch.arange(4))
    assert len(found) == 3
    assert sum(mask is not None for mask in found) == masks


@pytest.mark.skipif(not COMPILES, reason="no C++ compiler here, or blanks in torch's path")
def test_compiled_chains_are_those_that_are_not() -> None:
    torch.manual_seed(0)
    x_Nx3, model = torch.randn(64, 3), torch.nn.Linear(3, 2)
    y_Nx2 = model(x_Nx3).detach()

    def squares(model: torch.nn.Module, x_Bx3: Tensor, y_Bx2: Tensor) -> Tensor:
        return (model(x_Bx3) - y_Bx2).square().sum(dim=1)

    given = {"nbeta": 20.0, "localization": 1.0, "loss_fn": squares, "show_progress": False}
    fixed = {"lr": 0.01, "burn_in": 4, "draws": 20}
    one, other = (
        sample(model, (x_Nx3, y_Nx2), **given | fixed, compiled=each) for each in (True, False)
    )
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-4)
    chosen = [llc(model, (x_Nx3, y_Nx2), **given, compiled=each).llc for each in (True, False)]
    np.testing.assert_allclose(*chosen, rtol=1e-3)


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, device in (("CXX", "cpu"), ("CC", "cuda")):
        monkeypatch.setenv(variable, f"no-{device}-compiler")
        with pytest.raises(UserError, match=f"compiled: needs no-{device}-compiler; install it"):
            compiled_loss(lambda index_B: index_B, torch.device(device))
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__file__", "/a path/torch/__init__.py")
    monkeypatch.setattr(compilation.shutil, "which", lambda name: name)
    with pytest.raises(UserError, match="must have no blanks; move /a path/torch"):
        compiled_loss(lambda index_B: index_B, CPU)
    for key, value in (("weights", "nf4"), ("gradient_checkpointing", True), ("together", 2)):
        with pytest.raises(ValueError, match="is for float32 or bfloat16 weights on one device"):
            small.configured(**{f"families__mini__{key}": value}, families__mini__compiled=True)
