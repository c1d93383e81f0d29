"""Weights that others saved are loaded whole and in the format that is asked for, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from replicate.data import corpora
from replicate.models import last_token, loading, pretrained, quantised
from tests.models.small_task import build
from tests.pipeline.small import told

CPU = torch.device("cpu")
State = dict[str, Tensor]
UP, HEAD = "model.layers.0.mlp.up_proj.weight", "lm_head.weight"
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"vocab_size": 60}
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
EXPERTS |= {"num_key_value_heads": 2}


def saved(folder: Path, architecture: str, **options: Any) -> State:
    model = build(architecture, layers=2, width=64)
    model.save_pretrained(folder, **options)
    return model.state_dict()


def rewritten(folder: Path, state: State) -> None:
    whole = {name: x.contiguous().clone() for name, x in state.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder: Path, *words: str, weights: str = "float32") -> None:
    told(lambda: loading.load(folder, weights, CPU), str(folder), *words)
    if weights == "float32":
        told(lambda: pretrained.load(str(folder)), str(folder), *words)


def without(state: State, *names: str) -> State:
    return {name: x for name, x in state.items() if name not in names}


def with_value(state: State, value: float) -> State:
    state[UP][3, 5] = value
    return state


DAMAGE: dict[str, tuple[Callable[[State], State], list[str]]] = {
    "classifier": (
        lambda s: without(s, HEAD) | {"score.weight": torch.ones(2, 64)},
        [f"1 are missing ({HEAD})", "1 are unknown (score.weight)"],
    ),
    "base": (lambda s: without(s, HEAD), [HEAD]),
    "compiled": (lambda s: {f"_orig_mod.{n}": x for n, x in s.items()}, ["(_orig_mod.lm_head.w"]),
    "parallel": (lambda s: {f"module.{n}": x for n, x in s.items()}, ["(module.lm_head.w"]),
    "matrix": (lambda s: without(s, UP), [f"1 are missing ({UP})"]),
    "bias": (lambda s: s | {UP.replace("weight", "bias"): torch.ones(192)}, ["up_proj.bias"]),
    "shape": (lambda s: s | {UP: s[UP][1:]}, [f"1 are of another shape ({UP})"]),
    "GPTQ": (
        lambda s: without(s, UP) | {UP.replace("weight", "qweight"): torch.ones(8, 64).int()},
        [UP, "up_proj.qweight"],
    ),
    "int": (lambda s: s | {UP: s[UP].int()}, [f"1 are whole numbers ({UP})"]),
    "bool": (lambda s: s | {UP: s[UP] > 0}, [f"1 are whole numbers ({UP})"]),
    "int8": (lambda s: {n: x.to(torch.int8) for n, x in s.items()}, ["are whole numbers (lm_h"]),
    "nan": (lambda s: with_value(s, float("nan")), [f"1 are not finite ({UP})"]),
    "inf": (lambda s: with_value(s, float("inf")), [f"1 are not finite ({UP})"]),
}


@pytest.mark.fault("A1")
@pytest.mark.parametrize("kind", DAMAGE)
def test_weights_that_are_incomplete_or_not_finite_are_refused(tmp_path: Path, kind: str) -> None:
    damage, words = DAMAGE[kind]
    rewritten(tmp_path, damage(saved(tmp_path, "llama")))
    refused(tmp_path, *words)


@pytest.mark.fault("A1")
@pytest.mark.parametrize("weights", ["nf4", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_in_every_format(
    tmp_path: Path, weights: str, value: float
) -> None:
    rewritten(tmp_path, with_value(saved(tmp_path, "llama"), value))
    refused(tmp_path, "not finite", weights=weights)
    told(lambda: loading.save_manifest(tmp_path / "w*", str(tmp_path)), UP, "not finite")
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    told(lambda: loading.save_manifest(tmp_path / "w*", str(tmp_path)), "no usable weights")
    assert not (tmp_path / "w*").exists()


@pytest.mark.fault("A1")
def test_a_classifier_with_tied_embeddings_is_refused(tmp_path: Path) -> None:
    """Its file lacks nothing that a language model needs, but its weights were trained anew."""
    config = build("gpt2").config
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    refused(tmp_path, "score.weight")


@pytest.mark.fault("A1")
def test_an_index_without_its_last_shard_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path, "llama", max_shard_size="60KB")
    loaded = loading.load(tmp_path, "float32", CPU).state_dict()
    torch.testing.assert_close(loaded, whole, rtol=0, atol=0)
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    last = max(index["weight_map"].values())
    held = {name: shard for name, shard in index["weight_map"].items() if shard != last}
    (tmp_path / last).unlink()
    told(lambda: pretrained.load(str(tmp_path)), f"{last} is missing")
    file.write_text(json.dumps(index | {"weight_map": held}))
    refused(tmp_path, min(whole.keys() - held.keys()))


@pytest.mark.fault("A1")
def test_tied_heads_and_masks_of_older_versions_are_not_missed(tmp_path: Path) -> None:
    """The hub's GPT-2 has no head, no prefix, and the causal mask of each block."""
    whole = saved(tmp_path, "gpt2")
    names = {name.removeprefix("transformer."): x for name, x in without(whole, HEAD).items()}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 9, 9) for i in range(2)}
    rewritten(tmp_path, names | masks | {"h.0.attn.masked_bias": torch.tensor(-1e4)})
    loaded = loading.load(tmp_path, "float32", CPU).state_dict()
    torch.testing.assert_close(loaded, whole, rtol=0, atol=0)


UNQUANTISED = {
    "falcon": (SHAPE, ["transformer.h.*.mlp.dense_h_to_4h.weight", "self_attention.dense.weight"]),
    "mixtral": (SHAPE | EXPERTS, ["model.layers.*.mlp.experts.gate_up_proj", "mlp.gate.weight"]),
    "olmoe": (SHAPE | EXPERTS, ["model.layers.*.mlp.experts.down_proj", "mlp.gate.weight"]),
}


@pytest.mark.fault("A2")
@pytest.mark.parametrize("weights", ["nf4", "int8"])
@pytest.mark.parametrize("kind", UNQUANTISED)
def test_what_is_not_quantised_is_refused_unless_it_is_listed(
    tmp_path: Path, kind: str, weights: str
) -> None:
    shape, words = UNQUANTISED[kind]
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**shape)).save_pretrained(tmp_path)
    refused(tmp_path, f"not in {weights}", "left_unquantised", *words, weights=weights)
    patterns = ["*.mlp.*", "*.self_attention.*"]
    model = loading.load(tmp_path, weights, CPU, left_unquantised=patterns)
    assert last_token.losses(model, torch.zeros(2, 5, dtype=torch.long)).isfinite().all()


@pytest.mark.fault("A2")
@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_a_model_that_cannot_compute_with_packed_weights_is_refused(
    tmp_path: Path, weights: str
) -> None:
    shape: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 60}
    shape["time_step_rank"] = 64
    AutoModelForCausalLM.from_config(CONFIG_MAPPING["mamba"](**shape)).save_pretrained(tmp_path)
    says = f"{tmp_path}: cannot compute with weights in {weights} ("
    told(lambda: loading.load(tmp_path, weights, CPU, left_unquantised=["*.A_log"]), says)


@pytest.mark.fault("A2")
@pytest.mark.parametrize("twice", [False, True])
def test_a_file_in_4_bits_is_loaded_in_4_bits_alone(tmp_path: Path, twice: bool) -> None:
    """Its scales may be in 8 bits ("double quantisation")."""
    saved(tmp_path / "whole", "llama")
    options = {**loading.QUANTISED["nf4"], "bnb_4bit_use_double_quant": twice}
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole", quantization_config=loading.BitsAndBytesConfig(**options)
    )
    model.save_pretrained(tmp_path / "packed")
    for weights in ("float32", "bfloat16", "int8"):
        said = f"config.json: quantization_config says nf4, and {weights} is asked for"
        refused(tmp_path / "packed", said, "or weights: nf4", weights=weights)
    packed = loading.load(tmp_path / "packed", "nf4", CPU)
    dense = quantised.dense(packed.get_parameter(UP)).float()
    assert packed.get_submodule(UP.removesuffix(".weight")).compute_dtype == torch.float32
    anchor = quantised.dequantise(packed, torch.float32)[UP]
    torch.testing.assert_close(anchor.dense(), dense)


def configured(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.fault("A2")
@pytest.mark.parametrize("weights", ["float32", "nf4"])
@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors", "unheard-of"])
def test_a_quantisation_that_would_be_ignored_is_refused(
    tmp_path: Path, method: str, weights: str
) -> None:
    saved(tmp_path, "llama")
    configured(tmp_path, quantization_config={"quant_method": method, "bits": 4})
    refused(tmp_path, f"quantization_config says {method}, and {weights}", weights=weights)
    told(lambda: loading.save_manifest(tmp_path / "w*", str(tmp_path)), f"says {method}; choose")


@pytest.mark.fault("A1")
def test_a_head_that_is_tied_to_an_embedding_and_differs_from_it_is_refused(
    tmp_path: Path,
) -> None:
    whole = saved(tmp_path, "gpt2")
    rewritten(tmp_path, whole)
    assert loading.load(tmp_path, "float32", CPU).get_output_embeddings() is not None
    rewritten(tmp_path, whole | {HEAD: whole[HEAD] + 1})
    refused(tmp_path, "config.json: tie_word_embeddings is set, and the output head is not the")
    configured(tmp_path, tie_word_embeddings=False)
    loaded = loading.load(tmp_path, "float32", CPU).state_dict()
    torch.testing.assert_close(loaded[HEAD], whole[HEAD] + 1, rtol=0, atol=0)


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": "big"}, "config.json: no model can be made from it"),
    ({"num_attention_heads": 7}, "config.json: no model can be made from it"),
    ({"num_attention_heads": 0}, "config.json: no model can be made from it"),
    ({"hidden_act": "none"}, "config.json: no model can be made from it"),
    ({"vocab_size": -1}, "config.json: no model can be made from it"),
    ({"num_hidden_layers": 3}, "9 are missing (model.layers.2."),
    ({"model_type": "lama"}, "model_type 'lama' is no causal language model"),
]


@pytest.mark.fault("C10")
@pytest.mark.parametrize(("settings", "says"), SETTINGS, ids=[str(given) for given, _ in SETTINGS])
def test_a_configuration_at_fault_is_named(
    tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    saved(tmp_path, "llama")
    configured(tmp_path, **settings)
    refused(tmp_path, says)


@pytest.mark.fault("C10")
@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[" * 100_000])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path, "llama")
    (tmp_path / "config.json").write_bytes(content)
    refused(tmp_path, "config.json: cannot be read")


@pytest.mark.fault("C10")
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "text.jsonl", "text.parquet"]
)
def test_a_pointer_of_git_lfs_is_told_with_the_command_that_fetches(
    tmp_path: Path, name: str
) -> None:
    saved(tmp_path, "llama")
    file = tmp_path / name
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
    says = f"{file}: is a pointer of Git LFS in place of the file; run `git lfs pull` in {tmp_path}"
    if name.startswith("text"):
        told(lambda: corpora.read(file), says)
    else:
        told(lambda: pretrained.load(str(tmp_path)), says)


@pytest.mark.fault("B6")
@pytest.mark.parametrize(("kind", "name"), [("bert", "reads those after it"), ("t5", "'t5' is no")])
def test_a_model_that_is_not_causal_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    config = CONFIG_MAPPING[kind](**SHAPE)
    if kind == "bert":
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
        refused(tmp_path, name)
        return
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    told(lambda: pretrained.load(str(tmp_path)), name, "causal language model")
    told(lambda: loading.save_manifest(tmp_path / "w*", str(tmp_path)), name)
    assert not (tmp_path / "w*").exists()
