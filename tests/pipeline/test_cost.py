"""The arithmetic of `plan` is checked against real models: their weights, operations and bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from replicate.models import last_token, loading, module
from replicate.pipeline import config, cost
from replicate.pipeline.config import Family
from replicate.pipeline.stages import collect
from replicate.pipeline.work import plans
from tests.conftest import ROOT, replicate
from tests.pipeline import small

CONFIG = config.load(ROOT / "params.yaml")
ARCHITECTURES = ["gpt2", "llama", "gpt_neox"]
LENGTH, WIDTH, INNER, WORDS = 33, 64, 128, 500


def given(architecture: str, width: int = WIDTH, inner: int = INNER) -> PretrainedConfig:
    if architecture == "gpt2":
        return GPT2Config(n_layer=5, n_embd=width, n_head=2, vocab_size=WORDS, n_positions=LENGTH)
    shape: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "vocab_size": WORDS,
    }
    return LlamaConfig(**shape) if architecture == "llama" else GPTNeoXConfig(**shape)


def family(weights: str = "float32", batch_size: int = 4, **other: Any) -> Family:
    found = CONFIG.families["sizes"]
    sampling = found.sampling.model_copy(update={"batch_size": batch_size})
    changed = {"weights": weights, "length": LENGTH, "sampling": sampling}
    return found.model_copy(update=changed | other)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_parameters_are_those_of_the_real_model(architecture: str) -> None:
    real = AutoModelForCausalLM.from_config(given(architecture))
    shape = cost.Shape(given(architecture))
    assert shape.parameters == shape.sampled(family()) == module.count(real)


@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_a_quantised_model_moves_what_bitsandbytes_leaves(tmp_path: Path, weights: str) -> None:
    AutoModelForCausalLM.from_config(given("llama")).save_pretrained(tmp_path)
    real = loading.load(tmp_path, weights, torch.device("cpu"))
    moved = sum(parameter.numel() for parameter in loading.sampled(real).values())
    assert cost.Shape(given("llama")).sampled(family(weights)) == moved


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_operations_are_those_that_torch_counts(architecture: str) -> None:
    """Up to attention, which torch does not count on a CPU."""
    model = AutoModelForCausalLM.from_config(given(architecture), attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(1, LENGTH, dtype=torch.long))
    expected = cost.Shape(given(architecture)).forward(LENGTH, LENGTH)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_activations_are_about_those_that_are_kept(architecture: str) -> None:
    """With an MLP as wide as the architecture's usual one; within a factor of 1.6."""
    usual = given(architecture, inner=172 if architecture == "llama" else 256)
    model, kept = loading.settle(AutoModelForCausalLM.from_config(usual)), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=torch.zeros(64, LENGTH, dtype=torch.long), logits_to_keep=1).logits
    counted, shape = sum(size for size, _ in kept.values()), cost.Shape(usual)
    assert loss.requires_grad
    expected = shape.memory(family(batch_size=64)) - shape.memory(family(batch_size=0))
    assert 1 / 1.6 < expected / counted < 1.6


def test_the_noted_configurations_are_the_published_models() -> None:
    sizes = {"gpt2": 124.4e6, "gpt2-xl": 1557.6e6, "llama-2-7b": 6738.4e6}
    sizes |= {"llama-2-13b": 13015.9e6, "llama-2-70b": 68976.6e6}
    for name, size in sizes.items():
        shape = cost.shape(CONFIG, name)
        assert shape is not None
        assert shape.parameters == pytest.approx(size, rel=1e-3)


def test_70b_in_4_bits_fits_80_gb_and_in_bfloat16_does_not() -> None:
    shape, llama2 = cost.shape(CONFIG, "llama-2-70b"), CONFIG.families["llama2"]
    assert shape is not None
    assert 37e9 < shape.memory(llama2) < 75e9
    assert shape.memory(llama2.model_copy(update={"weights": "bfloat16"})) > 137e9


def test_the_steps_of_a_stage_are_the_product_of_its_numbers() -> None:
    """gpt2's search tries 4·3·3·3 settings of SGLD, 4·3·1·3 of SGNHT, and 16 for each of three
    samplers, with 4 chains of 120 steps.
    """
    found = {work.stage: work for work in cost.list_work(CONFIG, "paper")}
    assert found["search@gpt2"].steps == (108 + 36 + 48) * 4 * 120
    assert found["estimate@gpt2"].steps == 4 * 4 * 400
    stretched = (1 / 0.333 + 1 + 1) * 4 * 200
    assert found["transfer@gpt2"].steps == pytest.approx(stretched, abs=1)


def test_the_paper_study_takes_12_hours_of_an_h100_and_2800_steps_of_70b() -> None:
    """By arithmetic, without 70B, which has one setting and no neighbours."""
    works, device = (
        list(cost.list_work(CONFIG, "paper")),
        cost.Device(8e10, peak=cost.DEVICES["h100"]),
    )
    largest = [work for work in works if work.model == "llama-2-70b"]
    assert {work.stage for work in largest} == {"baseline@llama2", "estimate@llama2"}
    assert sum(work.steps for work in largest) <= 2800
    shapes = {name: cost.shape(CONFIG, name) for name in {work.model for work in works}}
    rows = [cost.cost(work, shapes[work.model], device) for work in works if work not in largest]
    assert sum(row["seconds"] for row in rows) / 3600 <= 12


def test_only_the_first_model_has_neighbours_where_params_yaml_says_so() -> None:
    """The other families have them of all models, as their results do."""
    found = [work for work in cost.list_work(CONFIG, "paper") if "neighbours" in work.stage]
    assert [work.model for work in found] == ["gpt2", "llama-2-7b"]
    plan = CONFIG.plan("paper")
    assert [family.neighbours for family in plan.families] == [("gpt2",), ("llama-2-7b",)]
    assert CONFIG.of_neighbours("sizes") is CONFIG
    assert "neighbours" not in CONFIG.families["sizes"].sampling.model_dump()


def test_a_step_on_all_tokens_has_the_logits_of_all_positions() -> None:
    """The protocol of 2023 has those of the last one, whatever the family's loss."""
    whole = CONFIG.families["sizes"].model_copy(update={"loss": "tokens"})
    config = CONFIG.model_copy(update={"families": CONFIG.families | {"sizes": whole}})
    before, after = (
        {(w.stage, w.model): w for w in cost.list_work(each, "control")}
        for each in (CONFIG, config)
    )
    shape, device = cost.shape(CONFIG, "34k-1"), cost.Device(1e12, peak={"float32": 1.0})
    assert shape is not None
    more = 2 * shape.config.vocab_size * shape.width * (whole.length - 2)  # a window's forward pass
    for stage, passes in (("estimate", 3 * whole.sampling.batch_size), ("baseline", 1)):
        key = (f"{stage}@sizes", "34k-1")
        a, b = (cost.cost(works[key], shape, device) for works in (before, after))
        count = (after[key].steps or after[key].examples) * passes
        assert b["operations"] - a["operations"] == pytest.approx(count * more)
        assert b["memory"] > a["memory"]
    assert after["original@sizes", "34k-1"].family.loss == "last"
    assert before["pretrain@sizes", "34k-1"] == after["pretrain@sizes", "34k-1"]


def rows(*arguments: str, **environment: str) -> list[dict[str, Any]]:
    done = replicate("plan", *arguments, "--json", cwd=ROOT, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plan_for_a_named_device_downloads_nothing(tmp_path: Path) -> None:
    offline = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    found = {
        (row["stage"], row["model"]): row for row in rows("paper", "--device", "h100", **offline)
    }
    assert {row["fit"] for row in found.values()} == {"fits"}
    one, ten = (found["estimate@gpt2", name]["seconds"] for name in ("gpt2", "gpt2-xl"))
    assert 10 < one < ten
    assert not any(tmp_path.rglob("*"))


def test_a_model_that_cannot_be_counted_is_unknown_and_its_code_is_not_run(tmp_path: Path) -> None:
    model, mark = CONFIG.models["gpt2"], tmp_path / "mark"
    assert model.source == "hub"
    snapshots = tmp_path / "hub" / f"models--{model.repository.replace('/', '--')}" / "snapshots"
    folder = snapshots / model.revision
    folder.mkdir(parents=True)
    evil = '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}'
    (folder / "config.json").write_text(evil)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\n")
    found = rows("paper", "--device", "h100", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert {row["fit"] for row in found if row["model"] == "gpt2"} == {"unknown"}
    assert not mark.exists()


def test_a_plan_for_this_machine_has_times() -> None:
    found = rows("demo", CUDA_VISIBLE_DEVICES="")
    assert all(row["seconds"] > 0 for row in found if row["fit"] == "fits")
    assert {"pretrain@demo", "quantisation@demo"} <= {row["stage"] for row in found}


TIED: dict[str, Any] = {
    "head_dim": 32,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
EXPERTS: dict[str, Any] = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
} | TIED
EXPERTS |= {"tie_word_embeddings": False, "moe_intermediate_size": 32}
LATENT: dict[str, Any] = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "q_lora_rank": 16}
LATENT |= {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
ODD = {
    **dict.fromkeys(("gemma", "cohere", "llama"), TIED),
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": WIDTH, "pad_token_id": 1},
    "xglm": {"attention_heads": 2, "ffn_dim": 64, "pad_token_id": 1},
    **dict.fromkeys(("mixtral", "qwen2_moe", "olmoe", "gpt_oss"), EXPERTS),
    "deepseek_v3": EXPERTS | LATENT | {"head_dim": 8},
}


@pytest.mark.fault("B6")
@pytest.mark.parametrize("kind", ODD)
def test_tied_embeddings_with_padding_and_mixtures_of_experts_are_counted_and_run(
    tmp_path: Path, kind: str
) -> None:
    shape: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"vocab_size": WORDS, "intermediate_size": INNER}
    odd = CONFIG_MAPPING[kind](**shape | ODD[kind])
    AutoModelForCausalLM.from_config(odd).save_pretrained(tmp_path)
    model = loading.load(tmp_path, "float32", torch.device("cpu"))
    last_token.focus(model)
    last_token.losses(model, torch.zeros(2, 9, dtype=torch.long)).mean().backward()
    assert all(p.grad is None or p.grad.to_dense().isfinite().all() for p in model.parameters())
    work = cost.Work("estimate@own", kind, family(), steps=9)
    row = cost.cost(work, cost.Shape(odd), cost.Device(1e12, peak=cost.DEVICES["h100"]))
    assert (row["fit"], row["parameters"]) == ("fits", module.count(model))


@pytest.mark.fault("B6")
@pytest.mark.parametrize("settings", [{"model_type": "t5"}, {"n_head": 0}, {"n_layer": "x"}])
def test_an_estimate_never_ends_the_plan(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Neither does a restriction that the model cannot have."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"} | settings))
    own = {"source": "local", "path": str(tmp_path)}
    found = small.configured(**{f"families__mini__models__{small.MODELS[0]}": own})
    assert cost.shape(found, small.MODELS[0]) is None
    sampling = family().sampling.model_copy(update={"restriction": ("nothing",)})
    work = cost.Work("estimate@own", "x", family(sampling=sampling), steps=9)
    row = cost.cost(work, cost.Shape(given("gpt2")), cost.Device(1e12))
    assert (row["fit"], row["seconds"]) == ("unknown", None)


@pytest.mark.fault("A2")
def test_what_may_stay_unquantised_reaches_the_task_and_no_result(empty: Path) -> None:
    name = small.MODELS[0]
    plain = small.configured()
    listed = small.configured(families__mini__left_unquantised=["*.mlp.*"])
    for path in (plain.paths.windows("mini") / plans.WINDOWS, plain.paths.models("mini") / name):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    task, before = (plans.task_config(each, name) for each in (listed, plain))
    assert (task.left_unquantised, before.left_unquantised) == (("*.mlp.*",), ())
    assert task.identity() == before.identity()
    assert collect.parts(listed, name) == collect.parts(plain, name)
    last, whole = (small.configured(families__mini__loss=loss) for loss in ("last", "tokens"))
    assert collect.parts(last, name) == collect.parts(plain, name) != collect.parts(whole, name)
