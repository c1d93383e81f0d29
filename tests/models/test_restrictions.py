"""A restriction moves what its words say, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from devinterp.slt.weight_restrictions import create_param_masks
from torch import Tensor
from transformers import PreTrainedModel

from replicate.errors import UserError
from replicate.models import last_token, loading
from replicate.models.restrictions import restrict, summary
from replicate.sampling import SamplerConfig, samplers
from tests import scenarios
from tests.models.test_last_token import build, tokens

CPU = torch.device("cpu")


def changed(model: PreTrainedModel, *words: str) -> dict[str, Tensor]:
    """Where three steps under a restriction change a parameter, for each parameter."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    masks, config = restrict(model, words), SamplerConfig("sgld", 1e-4)
    weights, anchor = [model.get_parameter(name) for name in masks], [before[n] for n in masks]
    sampler = samplers.sampler(weights, anchor, config, nbeta=1.0, seed=3, masks=[*masks.values()])
    scenarios.moved(sampler, lambda: last_token.losses(model, tokens()).mean(), 3)
    return {name: weight != before[name] for name, weight in model.named_parameters()}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_unquantised_is_what_loading_in_4_and_8_bits_leaves(
    tmp_path: Path, architecture: str, weights: str
) -> None:
    """So that λ̂ of a full-precision model can be compared with a quantised one's."""
    build(architecture).save_pretrained(tmp_path)
    left = set(loading.sampled(loading.load(tmp_path, weights, CPU)))
    assert set(restrict(loading.load(tmp_path, "float32", CPU), ["unquantised"])) == left
    assert set(restrict(loading.load(tmp_path, weights, CPU), ["all"])) == left


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (("all",), ""),
        (("unquantised",), "proj"),
        (("norms",), "proj|embed|lm_head"),
        (("embed",), "proj|norm|lm_head"),
        (("unembed",), "proj|norm|embed"),
        (("attention",), "mlp|norm|embed|lm_head"),
        (("mlp",), "attn|norm|embed|lm_head"),
        (("l1",), "layers.0|layers.2|embed|lm_head|model.norm"),
        (("l0 mlp", "norms"), "layers.1.mlp|layers.2.mlp|attn|embed|lm_head"),
        (("*.q_proj.weight",), "k_proj|v_proj|o_proj|mlp|norm|embed|lm_head"),
    ],
    ids=lambda value: " + ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_named_moves_and_the_rest_stays(words: tuple[str, ...], held: str) -> None:
    model = build("llama")
    names = {name for name, _ in model.named_parameters()}
    stays = {name for name in names if held and any(part in name for part in held.split("|"))}
    moved = {name for name, where in changed(model, *words).items() if where.any()}
    assert moved == names - stays


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_parts_are_known_in_every_architecture(architecture: str) -> None:
    """Each part is found, none overlaps another, and the layers' words add up."""
    words = ("attention", "mlp", "embed", "norms", "l0", "l1", "all")
    *parts, l0, l1, everything = (set(restrict(build(architecture), [word])) for word in words)
    assert all(parts)
    together = set().union(*parts)
    assert len(together) == sum(map(len, parts))
    assert l0 | l1 <= together
    assert everything - together <= {"lm_head.weight", "embed_out.weight", "transformer.wpe.weight"}


def test_one_head_is_held_by_a_mask_as_devinterp_has_it() -> None:
    """The 8 rows of Q that belong to head 1 of 4 move; the others stay to the bit."""
    masks, theirs = restrict(build("llama"), ["l0h1"]), create_param_masks(build("llama"), "l0h1")
    assert masks.keys() == theirs.keys()
    where = changed(build("llama"), "l0h1")["model.layers.0.self_attn.q_proj.weight"]
    assert where[8:16].float().mean() > 0.99
    assert not torch.cat([where[:8], where[16:]]).any()


@pytest.mark.parametrize("word", ["everything", "l7", "l0h9", "model.layers.9.*", ""])
def test_a_word_that_names_nothing_is_told_with_the_words_that_do(word: str) -> None:
    with pytest.raises(UserError, match=r"restriction .*write all, unquantised, embed"):
        restrict(build("llama"), [word])


def test_quantised_matrices_cannot_be_named(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'mlp': names no parameter of this model that has a grad"):
        restrict(loading.load(tmp_path, "nf4", CPU), ["mlp"])


def test_the_summary_counts_weights_by_pattern() -> None:
    sizes = {"model.layers.0.norm": 4, "model.layers.11.norm": 4, "lm_head.weight": 10}
    assert summary(sizes) == {"model.layers.*.norm": 8, "lm_head.weight": 10}
