"""Exact symmetries change weights and no output; λ̂ of the localised posterior sees the scalings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from replicate.errors import ArgumentError
from replicate.models import loading
from replicate.models.symmetries import SYMMETRIES, rescaled

SCALINGS = ("gain", "query-key", "value-output")
OTHER = GPTNeoXConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
)
KINDS = ("gpt2", "llama", "llama with shared keys")


def tiny(kind: str, layers: int = 2, width: int = 16) -> PreTrainedModel:
    """A model whose every parameter, gains and biases too, is random."""
    torch.manual_seed(5)
    shape = {"layers": layers, "width": width, "heads": 4, "vocabulary": 20, "length": 12}
    if kind == "llama with shared keys":
        config = loading.configuration("llama", **shape).to_dict()
        model: PreTrainedModel = LlamaForCausalLM(
            LlamaConfig(**config | {"num_key_value_heads": 2, "attention_bias": True})
        )
    else:
        model = loading.build(kind, **shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def tokens(count: int = 8) -> torch.Tensor:
    return torch.randint(0, 20, (count, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
@torch.no_grad()
def test_a_symmetry_changes_weights_and_no_output(kind: str, symmetry: str) -> None:
    model = tiny(kind)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    other = rescaled(model, symmetry, factor=1.7, seed=3)
    expected, found = (each(input_ids=tokens()).logits for each in (model, other))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    moved = {name for name, w in other.named_parameters() if not torch.equal(w, before[name])}
    layers = {".".join(name.split(".")[:3]) for name in moved}
    assert len(layers) == 2, "every block has other weights, and nothing else"
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@torch.no_grad()
def test_a_power_of_two_rounds_nothing() -> None:
    model = tiny("gpt2")
    expected = model(input_ids=tokens()).logits
    for symmetry in SCALINGS[1:]:
        other = rescaled(model, symmetry, factor=2.0)
        assert torch.equal(other(input_ids=tokens()).logits, expected), symmetry


def hessian(model: PreTrainedModel) -> torch.Tensor:
    """The whole Hessian (d, d) of the mean loss over all tokens."""
    names, tensors = zip(*model.named_parameters(), strict=True)
    flat_D = torch.cat([tensor.detach().flatten() for tensor in tensors])

    def loss(flat_D: torch.Tensor) -> torch.Tensor:
        parts = flat_D.split([tensor.numel() for tensor in tensors])
        moved = {n: p.view_as(t) for n, p, t in zip(names, parts, tensors, strict=True)}
        given = {"input_ids": tokens(), "labels": tokens()}
        return torch.func.functional_call(model, moved, kwargs=given).loss

    found: Any = torch.autograd.functional.hessian(loss, flat_D, vectorize=True)
    return found


def test_llc_sees_the_scalings_and_no_permutation() -> None:
    """λ̂ of the quadratic loss at w* is ½·tr[H(H + α)⁻¹]. A permutation only rotates H."""
    model = tiny("gpt2", layers=1, width=8)
    model.set_attn_implementation("eager")  # the other has no second derivative
    found = {name: hessian(rescaled(model, name, factor=2.0)) for name in SYMMETRIES}
    found["none"] = hessian(model)
    each_NxD = {name: torch.linalg.eigvalsh(H.double()) for name, H in found.items()}
    alpha = 2 * max(float(h_D.abs().max()) for h_D in each_NxD.values())
    llc = {name: float((h_D / (h_D + alpha)).sum() / 2) for name, h_D in each_NxD.items()}
    for symmetry in SYMMETRIES:
        change = llc[symmetry] / llc["none"] - 1
        assert abs(change) > 0.01 if symmetry in SCALINGS else abs(change) < 1e-4, llc


@pytest.mark.parametrize(
    ("symmetry", "factor", "model", "said"),
    [
        ("mirror", 2.0, tiny("gpt2"), "symmetry: 'mirror' is none of gain"),
        ("gain", 0.0, tiny("gpt2"), "factor = 0.0: must be a positive number"),
        ("gain", 2.0, GPTNeoXForCausalLM(OTHER), "model: 'gpt_neox' is none of gpt2, llama"),
    ],
    ids=["symmetry", "factor", "model"],
)
def test_what_has_no_such_symmetry_is_refused(
    symmetry: str, factor: float, model: PreTrainedModel, said: str
) -> None:
    with pytest.raises(ArgumentError, match=said):
        rescaled(model, symmetry, factor=factor)
