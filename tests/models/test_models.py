"""Weights are loaded as they were, quantised gradients are true, and only what can move is
sampled.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import nn

from replicate.errors import UserError
from replicate.models import last_token as label
from replicate.models import loading as models
from replicate.models import quantised as dequantised

CPU = torch.device("cpu")


def saved(folder: Path, architecture: str = "llama", seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = models.build(architecture, layers=2, width=64, heads=2, vocabulary=300, length=16)
    model.save_pretrained(folder)
    return folder


def tokens(batch: int = 5) -> torch.Tensor:
    return torch.randint(0, 300, (batch, 16), generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    label.losses(model, tokens()).mean().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in models.sampled(model).items()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_loss_is_that_of_the_last_token_alone(tmp_path: Path, architecture: str) -> None:
    """Against all logits and a softmax by hand."""
    model = models.load(saved(tmp_path, architecture), "float32", CPU)
    logits = model(tokens()).logits[:, -2]
    by_hand = -torch.log_softmax(logits, -1)[torch.arange(5), tokens()[:, -1]]
    torch.testing.assert_close(label.losses(model, tokens()), by_hand)


def test_full_precision_samples_every_parameter(tmp_path: Path) -> None:
    model = models.load(saved(tmp_path), "float32", CPU)
    assert (
        sum(p.numel() for p in models.sampled(model).values())
        == models.count(model)
        == sum(p.numel() for p in model.parameters())
    )
    assert not model.training


@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_quantised_samples_embeddings_norms_and_head_alone(tmp_path: Path, weights: str) -> None:
    whole = models.load(saved(tmp_path), "float32", CPU)
    model = models.load(tmp_path, weights, CPU)
    names = set(models.sampled(model))
    assert names == {
        name
        for name, _ in whole.named_parameters()
        if "norm" in name or "embed" in name or "lm_head" in name
    }
    assert models.count(model) == models.count(whole)


def in_full(quantised: nn.Module, folder: Path) -> nn.Module:
    """The same model in full precision, with the values that its 4-bit weights stand for."""
    model = models.load(folder, "float32", CPU)
    state = {}
    for name, parameter in quantised.named_parameters():
        packed = getattr(parameter, "quant_state", None)
        state[name] = (
            parameter.data if packed is None else dequantize_4bit(parameter.data, packed).float()
        )
    model.load_state_dict(state)
    return model


def test_gradients_in_4_bits_are_those_of_the_dequantised_model_even_after_a_pass_without_gradients(
    tmp_path: Path,
) -> None:
    """The trap: bitsandbytes repacks weights on a forward pass without gradients, and backward is
    silently wrong from then on.
    """
    model = models.load(saved(tmp_path), "nf4", CPU)
    reference = gradients(in_full(model, tmp_path))
    with torch.no_grad():
        label.losses(model, tokens(64))
    found = gradients(model)
    assert set(found) <= set(reference)
    for name, gradient in found.items():
        assert gradient.norm() > 0
        assert float((gradient - reference[name]).norm() / reference[name].norm()) < 1e-4, name


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("weights", ["dequantised", "dequantised-float32"])
def test_a_dequantised_model_is_the_quantised_one_with_all_its_gradients(
    tmp_path: Path, architecture: str, weights: str
) -> None:
    """The same w*; every parameter has a gradient, in float32 that of the quantised model where
    that has one; w* is kept in 4 bits.
    """
    quantised = models.load(saved(tmp_path, architecture), "nf4", CPU)
    reference, loss = gradients(quantised), label.losses(quantised, tokens())
    model, dtype = models.load(tmp_path, "nf4", CPU), dequantised.FORMATS[weights]
    anchors = dequantised.dequantise(model, dtype)
    found = gradients(model)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert set(found) == set(models.sampled(model)) == set(dict(model.named_parameters()))
    assert (
        models.count(model)
        == models.count(quantised)
        == sum(parameter.numel() for parameter in model.parameters())
    )
    assert set(anchors) == set(found) - set(reference)
    for name, anchor in anchors.items():
        assert torch.equal(anchor.dense(), model.get_parameter(name).data)
        assert anchor.packed.numel() * 2 == model.get_parameter(name).numel()
    assert float((label.losses(model, tokens()) - loss).detach().abs().max()) < (
        0.05 if dtype == torch.bfloat16 else 1e-4
    )
    for name, gradient in reference.items():
        error = float((found[name].float() - gradient).norm() / gradient.norm())
        assert error < (0.05 if dtype == torch.bfloat16 else 1e-4), name


@pytest.mark.parametrize("weights", ["float32", "nf4", "dequantised"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_recomputed_activations_give_the_same_gradients_and_keep_less(
    tmp_path: Path, architecture: str, weights: str
) -> None:
    """In eval mode, where Hugging Face's own switch does nothing."""
    torch.manual_seed(0)
    models.build(
        architecture, layers=6, width=64, heads=2, vocabulary=300, length=16
    ).save_pretrained(tmp_path)
    found, kept = [], []
    for recomputed in (False, True):
        model = models.load(tmp_path, "nf4" if weights == "dequantised" else weights, CPU)
        if weights == "dequantised":
            dequantised.dequantise(model, torch.bfloat16)
        label.focus(model)
        if recomputed:
            models.recompute(model)
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            if not isinstance(tensor, nn.Parameter):
                sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            label.losses(model, tokens()).mean()
        kept.append(sum(sizes.values()))
        found.append(gradients(model))
    assert kept[1] < kept[0] / 3
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_gradients_in_8_bits_are_close_to_full_precision(tmp_path: Path) -> None:
    """Rounding to 8 bits of weights and activations: a few per cent."""
    reference = gradients(models.load(saved(tmp_path), "float32", CPU))
    model = models.load(tmp_path, "int8", CPU)
    with torch.no_grad():
        label.losses(model, tokens(64))
    for name, gradient in gradients(model).items():
        assert float((gradient - reference[name]).norm() / reference[name].norm()) < 0.1, name


def test_dropout_is_off_even_in_training_mode(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.build("gpt2", layers=1, width=32, heads=2, vocabulary=300, length=16)
    model.config.resid_pdrop = model.config.embd_pdrop = model.config.attn_pdrop = 0.1
    model.save_pretrained(tmp_path)
    loaded = copy.deepcopy(models.load(tmp_path, "float32", CPU)).train()
    torch.testing.assert_close(
        label.losses(loaded, tokens()), label.losses(loaded.eval(), tokens())
    )


def test_only_safetensors_are_loaded(tmp_path: Path) -> None:
    saved(tmp_path)
    state = models.load(tmp_path, "float32", CPU).state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="no usable weights"):
        models.load(tmp_path, "float32", CPU)


@pytest.mark.parametrize(
    "content", [b"", b"cut off", b"\xff" * 64], ids=["empty", "cut off", "noise"]
)
def test_damaged_weights_are_told(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="no usable weights"):
        models.load(tmp_path, "float32", CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_model_that_needs_a_gpu_says_so() -> None:
    assert models.device("any", "mini") == CPU
    with pytest.raises(UserError, match="llama-2-7b: needs a CUDA GPU"):
        models.device("cuda", "llama-2-7b")
