"""Attention for windows that are one text each, without padding.

PyTorch's kernel knows that attention is causal and needs no mask; with a mask it cannot be
FlashAttention. Left alone, transformers reads positions on the host to see whether a window holds
several texts. Where torch compiles the model it cannot read them, and makes a mask.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "one_text"  # the name under which transformers knows it


def use(model: PreTrainedModel) -> None:
    """Makes a model that attends by PyTorch's kernel attend so; others stay as they are."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes attention with PyTorch's kernel; in the last block, for the last query only.

    The last block broadcasts the result of that query to all L positions: (B, L, heads, d).
    """
    if not getattr(module, "is_last", False):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    repeats = query.shape[1] // key.shape[1]
    mask = None if attention_mask is None else attention_mask[..., -1:, : key.shape[2]]
    keys, values = repeat_kv(key, repeats), repeat_kv(value, repeats)
    attended = scaled_dot_product_attention(
        query[:, :, -1:], keys, values, mask, scale=options.get("scaling")
    )
    return attended.transpose(1, 2).expand(-1, query.shape[2], -1, -1), None


def _mask(
    *,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **options: Any,
) -> Tensor | None:
    """Returns the mask that transformers asks for, or None where attention is causal alone."""
    local = local_size is not None and local_size <= kv_length
    other = use_vmap or "allow_is_bidirectional_skip" in options
    if q_length == kv_length and attention_mask is None and not local and not other:
        return None
    options |= {"q_length": q_length, "kv_length": kv_length, "use_vmap": use_vmap}
    return sdpa_mask(attention_mask=attention_mask, local_size=local_size, **options)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)
