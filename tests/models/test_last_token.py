"""The focused model has the same losses and gradients as the whole one, in each architecture."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from replicate.models import last_token

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 50}
SMALL |= {"max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GPT2 = SMALL | {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
SMALL |= {"intermediate_size": 64}
ARCHITECTURES = {
    "gpt2": GPT2,
    "llama": SMALL,
    "gpt_neox": SMALL,
    "mistral": SMALL | {"num_key_value_heads": 2, "sliding_window": 6},
    "qwen2": SMALL | {"num_key_value_heads": 2},
    "gemma2": SMALL | {"num_key_value_heads": 2, "head_dim": 8},
    "opt": SMALL | {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
}


def build(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[architecture](**ARCHITECTURES[architecture])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tokens() -> torch.Tensor:
    return torch.randint(1, 50, (5, 13), generator=torch.Generator().manual_seed(1))


def gradients(model: PreTrainedModel, losses_B: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses_B.mean().backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_and_all_gradients_are_those_of_the_whole_model(architecture: str) -> None:
    """The reference computes all logits of all positions, before the model is focused."""
    model = build(architecture)
    logits = model(input_ids=tokens()).logits[:, -2].float()
    reference = torch.nn.functional.cross_entropy(logits, tokens()[:, -1], reduction="none")
    whole = gradients(model, reference)
    last_token.focus(model)
    losses = last_token.losses(model, tokens())
    torch.testing.assert_close(losses, reference, rtol=1e-4, atol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    focused = gradients(model, losses)
    torch.testing.assert_close(focused, whole, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_the_last_block_works_at_one_position(architecture: str) -> None:
    """Linear layers see 12 positions of 5 windows, but MLP and projection of the last block 1."""
    model = build(architecture)
    last_token.focus(model)
    rows: dict[str, int] = {}
    for name, module in model.named_modules():
        if type(module).__name__ in ("Linear", "Conv1D"):
            module.register_forward_hook(
                lambda _, inputs, out, name=name: rows.update({name: out[..., 0].numel()})
            )
    last_token.losses(model, tokens())
    once = {name for name, count in rows.items() if count == 5}
    assert all(".2." in name or "head" in name or "embed_out" in name for name in once)
    assert {count for name, count in rows.items() if ".0." in name or ".1." in name} == {60}
    assert len(once) >= 4


def test_a_label_that_is_seen_does_not_matter() -> None:
    """The probabilities of all labels after one context sum to 1, so no logit sees the label."""
    model = build("llama")
    last_token.focus(model)
    window = tokens()[:1].repeat(50, 1)
    window[:, -1] = torch.arange(50)
    with torch.no_grad():
        assert float((-last_token.losses(model, window)).exp().sum()) == pytest.approx(1, abs=1e-5)
