"""A restriction moves what its words say, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from devinterp.slt.weight_restrictions import create_param_masks
from transformers import AutoModelForCausalLM, GPTNeoXConfig, PreTrainedModel

from replicate.errors import UserError
from replicate.models import last_token, loading
from replicate.models.restrictions import restrict, summary
from replicate.progress import silent
from replicate.sampling import SamplerConfig, SamplingConfig, Task, sample

CPU = torch.device("cpu")


def small(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if architecture == "gpt_neox":
        config = GPTNeoXConfig(
            vocab_size=300,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=16,
            attention_dropout=0.0,
            hidden_dropout=0.0,
        )
        return AutoModelForCausalLM.from_config(config).eval()
    return loading.build(
        architecture, layers=2, width=64, heads=2, vocabulary=300, length=16
    ).eval()


def run_chain(task: Task, draws: int) -> None:
    sample(
        task,
        SamplerConfig("sgld", 1e-4),
        SamplingConfig(1.0, 2, shuffles=1, chains=1, burn_in=0, draws=draws),
        np.zeros(20, np.float32),
        order=lambda shuffle: np.arange(20),
        noise=lambda shuffle, chain: 3,
        advance=silent,
    )


def moved(model: PreTrainedModel, *words: str) -> set[str]:
    """The parameters that a chain of three steps under a restriction changes."""
    masks = restrict(model, words)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tokens = torch.randint(0, 300, (20, 16), generator=torch.Generator().manual_seed(1))
    changed: set[str] = set()

    def loss(index_B: torch.Tensor) -> torch.Tensor:
        for name, parameter in model.named_parameters():
            if not torch.equal(parameter, before[name]):
                changed.add(name)
        return last_token.losses(model, tokens[index_B])

    run_chain(Task(loss, [model.get_parameter(name) for name in masks], list(masks.values())), 4)
    return changed


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_unquantised_is_what_loading_in_4_and_8_bits_leaves(
    tmp_path: Path, architecture: str, weights: str
) -> None:
    """So that λ̂ of a full-precision model can be compared with a quantised one's."""
    small(architecture).save_pretrained(tmp_path)
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
        (("l1",), "layers.0|embed|lm_head|model.norm"),
        (("l0 mlp", "norms"), "layers.1.mlp|attn|embed|lm_head"),
        (("*.q_proj.weight",), "k_proj|v_proj|o_proj|mlp|norm|embed|lm_head"),
    ],
    ids=lambda value: " + ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_named_moves_and_the_rest_stays(words: tuple[str, ...], held: str) -> None:
    model = small("llama")
    names = {name for name, _ in model.named_parameters()}
    stays = {name for name in names if held and any(part in name for part in held.split("|"))}
    assert moved(model, *words) == names - stays


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_parts_are_known_in_every_architecture(architecture: str) -> None:
    """Each part is found, none overlaps another, and the layers' words add up."""
    found = {
        word: set(restrict(small(architecture), [word]))
        for word in ("attention", "mlp", "embed", "norms")
    }
    assert all(found.values())
    together = set().union(*found.values())
    assert len(together) == sum(map(len, found.values()))
    layers = {name for word in ("l0", "l1") for name in restrict(small(architecture), [word])}
    assert layers <= together
    everything = set(restrict(small(architecture), ["all"]))
    assert everything - together <= {"lm_head.weight", "embed_out.weight", "transformer.wpe.weight"}


def test_one_head_is_held_by_a_mask_as_devinterp_has_it() -> None:
    """The rows of Q that belong to head 1 move; those of head 0 stay to the bit."""
    model = small("llama")
    theirs = create_param_masks(model, "l0h1")
    masks = restrict(model, ["l0h1"])
    assert masks.keys() == theirs.keys()
    weight = model.get_parameter("model.layers.0.self_attn.q_proj.weight")
    start, ends = weight.detach().clone(), []

    def loss(index_B: torch.Tensor) -> torch.Tensor:
        ends.append(weight.detach().clone())
        return weight.square().sum().expand(len(index_B))

    task = Task(loss, [weight], [masks["model.layers.0.self_attn.q_proj.weight"]])
    assert task.sizes == [32 * 64]
    run_chain(task, 3)
    assert torch.equal(ends[-1][:32], start[:32])
    assert (ends[-1][32:] != start[32:]).float().mean() > 0.99
    assert torch.equal(weight.detach(), start)


@pytest.mark.parametrize("word", ["everything", "l7", "l0h9", "model.layers.9.*", ""])
def test_a_word_that_names_nothing_is_one_line_with_the_words_that_do(word: str) -> None:
    with pytest.raises(UserError, match=r"restriction .*write all, unquantised, embed") as error:
        restrict(small("llama"), [word])
    assert "\n" not in str(error.value)


def test_quantised_matrices_cannot_be_named(tmp_path: Path) -> None:
    small("llama").save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match="'mlp': names no parameter of this model that has a gradient"
    ):
        restrict(loading.load(tmp_path, "nf4", CPU), ["mlp"])


def test_the_summary_counts_weights_by_pattern() -> None:
    sizes = {
        "model.layers.0.norm.weight": 4,
        "model.layers.11.norm.weight": 4,
        "lm_head.weight": 10,
    }
    assert summary(sizes) == {"model.layers.*.norm.weight": 8, "lm_head.weight": 10}
