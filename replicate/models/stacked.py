"""Computes the loss of several chains at once, for models like GPT-2 and Llama.

A step of a small model takes four hundred calls on small matrices, whose overhead takes most of the
time. Here each weight has an axis of chains, (C, …), and one call computes all chains. A chain's
results do not depend on the other chains. If only the last token's loss counts, the last block
computes keys and values at every position, and everything else at the last position alone, as in
`last_token`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import (
    cross_entropy,
    embedding,
    layer_norm,
    rms_norm,
    scaled_dot_product_attention,
    silu,
)
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import rotate_half

from replicate.models import quantised
from replicate.models.config import TextLoss
from replicate.models.gelu import gelu
from replicate.models.module import TEXT_LOSSES, count
from replicate.sampling.task import StackedLoss

LARGEST = 2**21  # weights; for larger models, one call for all chains saves no time

Weights = Mapping[str, Tensor]  # by parameter name, each (C, …)


def loss(
    model: PreTrainedModel, tokens_NxL: Tensor, names: Sequence[str], kind: TextLoss = "last"
) -> StackedLoss | None:
    """Returns the loss of several chains, or None if the model is not supported.

    It is also None if the losses that it gives for the first windows differ from the model's own.

    Args:
        model: the model, from which the weights that do not move are taken. Its weights must be
            float32, or dequantise to float32.
        tokens_NxL: the windows.
        names: the names of the parameters that move.
        kind: `last` for the loss of the last token, `tokens` for the mean of all but the first.

    Returns:
        A function of the moving tensors, each (C, …) and in the order of `names`, and of the
        windows' indices (C, B). It returns the losses (C, B) in nats.
    """
    forward = _forward(model.config)
    if forward is None or count(model) > LARGEST:
        return None
    weights = {name: quantised.dense(weight) for name, weight in model.named_parameters()}
    if any(each.dtype != torch.float32 for each in weights.values()):
        return None
    constant = {name: each for name, each in weights.items() if name not in names}

    def stacked(moving: Sequence[Tensor], index_CxB: Tensor) -> Tensor:
        C = len(index_CxB)
        found = {name: each.expand(C, *each.shape) for name, each in constant.items()}
        found |= dict(zip(names, moving, strict=True))
        return forward(found, tokens_NxL[index_CxB].long(), model.config, kind == "tokens")

    index_B = torch.arange(min(8, len(tokens_NxL)), device=tokens_NxL.device)
    with torch.no_grad():
        alone = TEXT_LOSSES[kind](model, tokens_NxL[index_B].long())
        together = stacked([model.get_parameter(name)[None] for name in names], index_B[None])[0]
    return stacked if torch.allclose(together, alone, rtol=1e-3, atol=1e-3) else None


def _forward(config: Any) -> Callable[[Weights, Tensor, Any, bool], Tensor] | None:
    """Returns `gpt2` or `llama` if it computes models of this configuration; otherwise None."""
    if config.model_type == "gpt2":
        tanh = config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        scaled = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
        # quantised or dequantised, GPT-2's matrices are transposed
        plain = getattr(config, "quantization_config", None) is None
        return gpt2 if plain and tanh and scaled and config.tie_word_embeddings else None
    if config.model_type == "llama":
        plain = not (config.tie_word_embeddings or config.attention_bias or config.mlp_bias)
        rope = config.rope_parameters.get("rope_type") == "default"
        heads = config.num_attention_heads
        ungrouped = config.num_key_value_heads == heads
        whole = config.head_dim * heads == config.hidden_size
        known = plain and rope and ungrouped and whole and config.hidden_act == "silu"
        return llama if known else None
    return None


def gpt2(weights: Weights, tokens_CxBxL: Tensor, config: Any, every: bool) -> Tensor:
    """Returns the losses (C, B), in nats, of a GPT-2 with the tanh form of GELU.

    Its output head shares the embedding's matrix. If not `every` token counts, the last one does.
    """
    C, B, L = tokens_CxBxL.shape
    P, d, eps = L - 1, config.n_embd, config.layer_norm_epsilon
    w = weights

    def norm(x: Tensor, name: str) -> Tensor:
        return torch.addcmul(
            w[f"{name}.bias"][:, None], layer_norm(x, (d,), eps=eps), w[f"{name}.weight"][:, None]
        )

    def linear(x: Tensor, name: str, columns: slice = slice(None)) -> Tensor:
        return torch.baddbmm(
            w[f"{name}.bias"][:, None, columns], x, w[f"{name}.weight"][:, :, columns]
        )

    wte = w["transformer.wte.weight"]
    x = looked_up(wte, tokens_CxBxL[:, :, :-1])
    x = (x.view(C, B, P, d) + w["transformer.wpe.weight"][:, None, :P]).view(C, B * P, d)
    for i in range(config.n_layer):
        block = f"transformer.h.{i}"
        h = norm(x, f"{block}.ln_1")
        if i == config.n_layer - 1 and not every:
            k, v = linear(h, f"{block}.attn.c_attn", slice(d, None)).chunk(2, -1)
            q = linear(at_last(h, B), f"{block}.attn.c_attn", slice(d))
            x = at_last(x, B)
        else:
            q, k, v = linear(h, f"{block}.attn.c_attn").chunk(3, -1)
        x = x + linear(attend(q, k, v, C * B, config.n_head), f"{block}.attn.c_proj")
        h = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(gelu(h), f"{block}.mlp.c_proj")
    logits = torch.bmm(norm(x, "transformer.ln_f"), wte.transpose(1, 2))
    return losses(logits, tokens_CxBxL)


def llama(weights: Weights, tokens_CxBxL: Tensor, config: Any, every: bool) -> Tensor:
    """Returns the losses (C, B), in nats, of a Llama without grouped queries.

    Its output head has a matrix of its own. If not `every` token counts, the last one does.
    """
    C, B, L = tokens_CxBxL.shape
    P, d, heads = L - 1, config.hidden_size, config.num_attention_heads
    w = weights
    turn = rotation(P, d // heads, config.rope_parameters["rope_theta"], tokens_CxBxL.device)

    def norm(x: Tensor, name: str) -> Tensor:
        return rms_norm(x, (d,), eps=config.rms_norm_eps) * w[f"{name}.weight"][:, None]

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.bmm(x, w[f"{name}.weight"].transpose(1, 2))

    x = looked_up(w["model.embed_tokens.weight"], tokens_CxBxL[:, :, :-1])
    for i in range(config.num_hidden_layers):
        block = f"model.layers.{i}"
        h = norm(x, f"{block}.input_layernorm")
        k, v = linear(h, f"{block}.self_attn.k_proj"), linear(h, f"{block}.self_attn.v_proj")
        if i == config.num_hidden_layers - 1 and not every:
            x, h = at_last(x, B), at_last(h, B)
        q = linear(h, f"{block}.self_attn.q_proj")
        mixed = attend(q, k, v, C * B, heads, turn)
        x = x + linear(mixed, f"{block}.self_attn.o_proj")
        h = norm(x, f"{block}.post_attention_layernorm")
        gated = silu(linear(h, f"{block}.mlp.gate_proj")) * linear(h, f"{block}.mlp.up_proj")
        x = x + linear(gated, f"{block}.mlp.down_proj")
    logits = linear(norm(x, "model.norm"), "lm_head")
    return losses(logits, tokens_CxBxL)


def looked_up(table_CxVxD: Tensor, tokens_CxBxP: Tensor) -> Tensor:
    """Looks up each chain's tokens in its own table; returns the embeddings (C, B·P, D)."""
    C, V, d = table_CxVxD.shape
    rows = tokens_CxBxP + V * torch.arange(C, device=tokens_CxBxP.device)[:, None, None]
    return embedding(rows.view(C, -1), table_CxVxD.reshape(C * V, d))


def at_last(x: Tensor, B: int) -> Tensor:
    """Selects the last position of each of B windows: x is (C, B·P, d), the result (C, B, d)."""
    C, rows, d = x.shape
    return x.view(C, B, rows // B, d)[:, :, -1]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    batch: int,
    heads: int,
    turn: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Computes causal attention.

    Args:
        q: the queries (C, B·Q, d), of all positions (Q = P) or of the last alone (Q = 1).
        k: the keys (C, B·P, d).
        v: the values (C, B·P, d).
        batch: C·B, the number of windows of all chains.
        heads: the number of heads.
        turn: the cosines and sines of `rotation`; None without rotary embeddings.

    Returns:
        The concatenated outputs of the heads, (C, B·Q, d).
    """
    C, rows, d = q.shape
    q, k, v = (x.view(batch, -1, heads, d // heads).transpose(1, 2) for x in (q, k, v))
    P, Q = k.shape[2], q.shape[2]
    if turn is not None:
        cos, sin = turn
        q = q * cos[P - Q :] + rotate_half(q) * sin[P - Q :]
        k = k * cos + rotate_half(k) * sin
    mixed = scaled_dot_product_attention(q, k, v, is_causal=Q == P)
    return mixed.transpose(1, 2).reshape(C, rows, d)


def rotation(
    positions: int, size: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines of rotary embeddings (Su et al. 2021, arXiv 2104.09864).

    Args:
        positions: the number of positions.
        size: the number of dimensions of a head.
        theta: the base of the frequencies.
        device: the device of the results.

    Returns:
        Two tensors (positions, size).
    """
    inverse = theta ** (-torch.arange(0, size, 2, device=device).float() / size)
    angle = torch.arange(positions, device=device).float()[:, None] * inverse
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def losses(logits: Tensor, tokens_CxBxL: Tensor) -> Tensor:
    """Returns the mean cross-entropies (C, B), in nats, of the last Q tokens of each window.

    `logits` is (C, B·Q, V), of the positions before these tokens.
    """
    C, B, _ = tokens_CxBxL.shape
    labels_CxBxQ = tokens_CxBxL[:, :, -(logits.shape[1] // B) :]
    found = cross_entropy(logits.flatten(0, 1), labels_CxBxQ.flatten(), reduction="none")
    return found.view(C, B, -1).mean(dim=2)
