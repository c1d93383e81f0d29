"""The label's loss, and nothing that it does not need.

A window's loss is the cross-entropy of its last token. Of the last block only keys and values are
needed at every position: queries attend, the output projection, the MLP and the vocabulary work at
the last position alone. For two blocks that is two fifths of the work, for GPT-2's twelve a tenth.
`focus` takes it out of any Hugging Face model without knowing its architecture: what a block adds
to its residual stream is made at the last position and broadcast; the other positions of the sum
are never read.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "label"
PROJECTIONS = ("c_proj", "o_proj", "dense", "out_proj")  # the attention's output, by architecture


def losses(model: nn.Module, tokens_BxL: Tensor) -> Tensor:
    """Cross-entropy (nats) of the last token given those before it, shape (B,). Only the logits of
    the last position are made.
    """
    logits_BxV = model(input_ids=tokens_BxL[:, :-1], use_cache=False, logits_to_keep=1).logits[
        :, -1
    ]
    return cross_entropy(
        logits_BxV.float(), tokens_BxL[:, -1].to(logits_BxV.device), reduction="none"
    )


def focus(model: PreTrainedModel) -> None:
    """Makes the model's logits right at the last position only, and its last block as cheap as that
    allows.

    What an architecture does not have under a known name is left whole. Where the vocabulary's
    matrix is the embedding's, the gradient of the few rows that were looked up is added to the
    other's in place, without a second matrix of that size.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if (
        isinstance(embedding, nn.Embedding)
        and isinstance(head, nn.Linear)
        and head.weight is embedding.weight
    ):
        embedding.sparse = True
    count = model.config.get_text_config().num_hidden_layers
    stacks = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not stacks or model.config._attn_implementation != "sdpa":
        return
    block = stacks[0][-1]
    attentions = [
        module for module in block.children() if getattr(module, "layer_idx", None) == count - 1
    ]
    for attention in attentions:
        for name in PROJECTIONS:
            if isinstance(projection := getattr(attention, name, None), nn.Module):
                projection.register_forward_pre_hook(last_position)
                attention.is_last = True  # pyright: ignore[reportArgumentType]
    if isinstance(mlp := getattr(block, "mlp", None), nn.Module):
        mlp.register_forward_pre_hook(last_position)
    model.set_attn_implementation(ATTENTION)


def last_position(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of activations (B, L, d) those at the last position (B, 1, d)."""
    return inputs[0][:, -1:], *inputs[1:]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """PyTorch's attention of query, key and value (B, heads, L, d), in the marked block for the
    last query; (B, L, heads, d).
    """
    if not getattr(module, "is_last", False):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups = query.shape[1] // key.shape[1]
    mask = None if attention_mask is None else attention_mask[..., -1:, : key.shape[2]]
    keys, values = repeat_kv(key, groups), repeat_kv(value, groups)
    attended = scaled_dot_product_attention(
        query[:, :, -1:], keys, values, mask, scale=options.get("scaling")
    )
    return attended.transpose(1, 2).expand(-1, query.shape[2], -1, -1), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
