"""Weights are loaded as they were, quantised gradients are true, and nothing is executed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from replicate.errors import UserError
from replicate.models import last_token, loading, module, quantised
from tests.models.small_task import build

CPU = torch.device("cpu")
DEQUANTISED = {"dequantised": (torch.bfloat16, 0.05), "dequantised-float32": (torch.float32, 1e-4)}


def saved(folder: Path, architecture: str = "llama", layers: int = 2, width: int = 64) -> Path:
    shape = {"layers": layers, "width": width, "vocabulary": 300, "length": 16}
    build(architecture, **shape).save_pretrained(folder)
    return folder


def loaded(folder: Path, weights: str) -> PreTrainedModel:
    if weights not in DEQUANTISED:
        return loading.load(folder, weights, CPU)
    model = loading.load(folder, "nf4", CPU)
    quantised.dequantise(model, DEQUANTISED[weights][0])
    return model


def tokens(batch: int = 5) -> torch.Tensor:
    return torch.randint(0, 300, (batch, 16), generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    last_token.losses(model, tokens()).mean().backward()
    found = {name: weight.grad for name, weight in loading.sampled(model).items()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b).norm() / b.norm())


@pytest.mark.parametrize("weights", ["float32", "nf4", "int8"])
def test_what_is_not_quantised_has_gradients(tmp_path: Path, weights: str) -> None:
    whole, model = loaded(saved(tmp_path), "float32"), loaded(tmp_path, weights)
    words = ("norm", "embed", "lm_head", *(["proj"] if weights == "float32" else []))
    names = [name for name, _ in whole.named_parameters()]
    assert list(loading.sampled(model)) == [n for n in names if any(word in n for word in words)]
    assert module.count(model) == sum(weight.numel() for weight in whole.parameters())
    assert not model.training


@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize(("weights", "error"), [("nf4", 1e-4), ("int8", 0.1)])
def test_quantised_gradients_are_true_even_after_a_pass_without_gradients(
    tmp_path: Path, weights: str, error: float, width: int
) -> None:
    """bitsandbytes may repack weights in a pass without gradients; backward is then silently wrong.
    Rounding weights and activations to 8 bits costs a few per cent. On CPUs it decodes rows wrongly
    that are no multiple of 64 weights.
    """
    model = loaded(saved(tmp_path, width=width), weights)
    reference = gradients(loaded(tmp_path, {"nf4": "dequantised-float32"}.get(weights, "float32")))
    with torch.no_grad():
        last_token.losses(model, tokens(64))
    for name, gradient in gradients(model).items():
        assert distance(gradient, reference[name]) < error, name


@pytest.mark.parametrize("width", [64, 32, 80])
def test_weights_in_4_bits_are_the_nearest_of_16_multiples_of_their_block_s_largest(
    tmp_path: Path, width: int
) -> None:
    whole, model = loaded(saved(tmp_path, width=width), "float32"), loaded(tmp_path, "nf4")
    name = "model.layers.0.mlp.up_proj"
    weight, packed = whole.get_submodule(name).weight, model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    assert isinstance(packed, torch.Tensor)
    code = packed.quant_state.code  # pyright: ignore[reportAttributeAccessIssue]
    blocks = weight.detach().reshape(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = code[((blocks / largest)[..., None] - code).abs().argmin(-1)] * largest
    x = torch.randn(3, width)
    torch.testing.assert_close(
        model.get_submodule(name)(x), x @ nearest.view_as(weight).t(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("weights", DEQUANTISED)
def test_a_dequantised_model_is_the_quantised_one_with_all_its_gradients(
    tmp_path: Path, architecture: str, weights: str
) -> None:
    """Its w* is the same, and stays in 4 bits."""
    packed = loaded(saved(tmp_path, architecture), "nf4")
    reference, losses_B = gradients(packed), last_token.losses(packed, tokens())
    dtype, error = DEQUANTISED[weights]
    model = loading.load(tmp_path, "nf4", CPU)
    anchors = quantised.dequantise(model, dtype)
    found = gradients(model)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert set(found) == set(dict(model.named_parameters()))
    assert module.count(model) == module.count(packed)
    assert set(anchors) == set(found) - set(reference)
    for name, anchor in anchors.items():
        assert torch.equal(anchor.dense(), model.get_parameter(name).data)
        assert anchor.packed.numel() * 2 == model.get_parameter(name).numel()
    torch.testing.assert_close(last_token.losses(model, tokens()), losses_B, rtol=0, atol=error)
    for name, gradient in reference.items():
        assert distance(found[name], gradient) < error, name


@pytest.mark.parametrize("weights", ["float32", "nf4", "dequantised"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_gradient_checkpointing_gives_the_same_gradients_and_stores_less(
    tmp_path: Path, architecture: str, weights: str
) -> None:
    """In eval mode, in which Hugging Face's own switch does nothing."""
    saved(tmp_path, architecture, layers=6)
    found, stored = [], []
    for checkpointing in (False, True):
        model = loaded(tmp_path, weights)
        last_token.focus(model)
        if checkpointing:
            loading.checkpoint_gradients(model)
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            if not isinstance(tensor, nn.Parameter):
                sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            last_token.losses(model, tokens()).mean()
        stored.append(sum(sizes.values()))
        found.append(gradients(model))
    assert stored[1] < stored[0] / 3
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_dropout_is_off_even_in_training_mode(tmp_path: Path) -> None:
    model = build("gpt2", vocabulary=300, length=16)
    model.config.resid_pdrop = model.config.embd_pdrop = model.config.attn_pdrop = 0.1
    model.save_pretrained(tmp_path)
    found = loaded(tmp_path, "float32")
    before = last_token.losses(found, tokens())
    torch.testing.assert_close(last_token.losses(found.train(), tokens()), before)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The file that hostile files would make; it must not be there in the end."""
    yield tmp_path / "pwned"
    assert not (tmp_path / "pwned").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "model", "gpt2", layers=1)


def refused(folder: Path, says: str = "no usable weights") -> None:
    with pytest.raises(UserError, match=says) as error:
        loading.load(folder, "float32", CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("indexed", [False, True])
def test_pickled_weights_are_not_read(folder: Path, mark: Path, name: str, indexed: bool) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": Payload(mark)}, folder / name)
    if indexed:
        index = {"metadata": {}, "weight_map": {"transformer.wte.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder)


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_code_of_a_repository_is_not_run(folder: Path, mark: Path) -> None:
    """It is ignored in a model that transformers knows, and refused in another one."""
    lines = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (folder / "evil.py").write_text(f"{lines}class Config: pass\nclass Model: pass\n")
    named = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    edited(folder, auto_map=named)
    assert type(loaded(folder, "float32")).__module__.startswith("transformers.models.gpt2")
    edited(folder, model_type="evil")
    refused(folder, "model_type 'evil' is no causal language model")


@pytest.mark.parametrize("damage", [b"", b"cut off", b"\xff" * 64])
def test_damaged_weights_are_told(folder: Path, damage: bytes) -> None:
    (folder / "model.safetensors").write_bytes(damage)
    refused(folder)


CHANGES = [
    ({"n_layer": "x"}, "config.json: no model can be made from it"),
    ({"n_head": 0}, "config.json: no model can be made from it"),
    ({"n_embd": 32}, "no usable weights"),  # another model could have it
    ({"model_type": ["gpt2"]}, "is no causal language model"),
]


@pytest.mark.parametrize(("changes", "says"), CHANGES)
def test_a_changed_configuration_is_told(folder: Path, changes: dict[str, Any], says: str) -> None:
    edited(folder, **changes)
    refused(folder, says)


@pytest.mark.parametrize("content", ["[]", "{}", "{"])
def test_a_manifest_that_names_no_model_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="manifest"):
        loading.load(tmp_path, "float32", CPU)


def test_a_model_in_a_folder_is_loaded_from_there_until_it_changes(tmp_path: Path) -> None:
    source = saved(tmp_path / "mine")
    loading.save_manifest(tmp_path / "w*", str(source))
    found, truth = (loaded(path, "float32").state_dict() for path in (tmp_path / "w*", source))
    torch.testing.assert_close(found, truth, rtol=0, atol=0)
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="has changed; run"):
        loaded(tmp_path / "w*", "float32")
    file.unlink()
    with pytest.raises(UserError, match="holds no model"):
        loaded(tmp_path / "w*", "float32")
