"""Changes the weights of GPT-2 and Llama by symmetries that leave every output as it is.

    gain         the gain of each norm inside a block × c, the matrices behind it ÷ c
    query-key    queries × c, keys ÷ c
    value-output values × c, the matrix behind them ÷ c
    units        the units of each MLP in another order
    heads        the heads of each block in another order

The function is the same, and so is its learning coefficient. The localisation (γ/2)·‖w − w*‖² is
that of the weights: it sees the scalings, and no permutation, which only rotates it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from replicate.errors import ArgumentError
from replicate.seeds import derive


@dataclass(frozen=True)
class Matrix:
    """Shows a linear map, or a part of one: `weight_OxI` and `bias_O` are views of parameters."""

    weight_OxI: Tensor
    bias_O: Tensor | None

    def scale(self, factor: float) -> None:
        """Multiplies what the map returns."""
        self.weight_OxI.mul_(factor)
        if self.bias_O is not None:
            self.bias_O.mul_(factor)

    def reorder(self, order: Tensor) -> None:
        """Puts what the map returns into another order."""
        self.weight_OxI.copy_(self.weight_OxI[order])
        if self.bias_O is not None:
            self.bias_O.copy_(self.bias_O[order])

    def reorder_input(self, order: Tensor) -> None:
        """Puts what the map reads into another order."""
        self.weight_OxI.copy_(self.weight_OxI[:, order])


@dataclass(frozen=True)
class Block:
    """Shows the parts of a transformer's block.

    Attributes:
        attention_norm: the norm in front of queries, keys and values.
        mlp_norm: the norm in front of the MLP.
        query, key, value, output: the matrices of attention.
        inward: the matrices that the MLP's input passes; `outward` is behind its units.
        groups: the number of heads with keys of their own.
    """

    attention_norm: nn.Module
    mlp_norm: nn.Module
    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    inward: Sequence[Matrix]
    outward: Matrix
    groups: int


def _gpt2(model: Any) -> list[Block]:
    def matrix(module: Any) -> Matrix:  # a Conv1D, whose weight is (in, out)
        return Matrix(module.weight.t(), module.bias)

    def block(layer: Any) -> Block:
        whole = matrix(layer.attn.c_attn)
        assert whole.bias_O is not None
        parts = zip(whole.weight_OxI.chunk(3), whole.bias_O.chunk(3), strict=True)
        query, key, value = (Matrix(*part) for part in parts)
        return Block(
            layer.ln_1,
            layer.ln_2,
            query,
            key,
            value,
            matrix(layer.attn.c_proj),
            [matrix(layer.mlp.c_fc)],
            matrix(layer.mlp.c_proj),
            model.config.num_attention_heads,
        )

    return [block(layer) for layer in model.transformer.h]


def _llama(model: Any) -> list[Block]:
    def matrix(module: nn.Linear) -> Matrix:
        return Matrix(module.weight, module.bias)

    def block(layer: Any) -> Block:
        attention, mlp = layer.self_attn, layer.mlp
        return Block(
            layer.input_layernorm,
            layer.post_attention_layernorm,
            matrix(attention.q_proj),
            matrix(attention.k_proj),
            matrix(attention.v_proj),
            matrix(attention.o_proj),
            [matrix(mlp.gate_proj), matrix(mlp.up_proj)],
            matrix(mlp.down_proj),
            model.config.num_key_value_heads,
        )

    return [block(layer) for layer in model.model.layers]


def _gain(block: Block, factor: float, _: np.random.Generator) -> None:
    behind = [block.query, block.key, block.value]
    for norm, matrices in ((block.attention_norm, behind), (block.mlp_norm, block.inward)):
        for parameter in norm.parameters():  # gain, and the offset of LayerNorm
            parameter.mul_(factor)
        for matrix in matrices:
            matrix.weight_OxI.div_(factor)


def _query_key(block: Block, factor: float, _: np.random.Generator) -> None:
    block.query.scale(factor)
    block.key.scale(1 / factor)


def _value_output(block: Block, factor: float, _: np.random.Generator) -> None:
    block.value.scale(factor)
    block.output.weight_OxI.div_(factor)


def _cycle(count: int, random: np.random.Generator) -> Tensor:
    """Returns a random order in which nothing stays where it was, if there are two or more."""
    order, chosen = np.empty(count, int), random.permutation(count)
    order[chosen] = np.roll(chosen, 1)
    return torch.from_numpy(order)


def _units(block: Block, _: float, random: np.random.Generator) -> None:
    order = _cycle(block.outward.weight_OxI.shape[1], random)
    for matrix in block.inward:
        matrix.reorder(order)
    block.outward.reorder_input(order)


def _heads(block: Block, _: float, random: np.random.Generator) -> None:
    order = _cycle(block.groups, random)

    def within(size: int) -> Tensor:
        return torch.arange(size).reshape(block.groups, -1)[order].flatten()

    for matrix in (block.query, block.key, block.value):
        matrix.reorder(within(len(matrix.weight_OxI)))
    block.output.reorder_input(within(block.output.weight_OxI.shape[1]))


ARCHITECTURES: dict[str, Callable[[Any], list[Block]]] = {"gpt2": _gpt2, "llama": _llama}
SYMMETRIES: dict[str, Callable[[Block, float, np.random.Generator], None]] = {
    "gain": _gain,
    "query-key": _query_key,
    "value-output": _value_output,
    "units": _units,
    "heads": _heads,
}


def rescaled(
    model: PreTrainedModel, symmetry: str, *, factor: float = 2.0, seed: int = 0
) -> PreTrainedModel:
    """Returns a copy of a model with other weights and the same outputs, up to rounding.

    Args:
        model: a GPT-2 or a Llama whose weights are floating-point numbers.
        symmetry: a key of `SYMMETRIES`, applied to every block.
        factor: c, by which a scaling multiplies; a power of two rounds nothing.
        seed: of the order that a permutation draws for each block.

    Raises:
        ArgumentError: the symmetry or the architecture is another, the weights are quantised, or
            the factor is not a positive number.
    """
    kind = getattr(model.config, "model_type", "")
    for name, given, known in (("symmetry", symmetry, SYMMETRIES), ("model", kind, ARCHITECTURES)):
        if given not in known:
            raise ArgumentError(f"{name}: {given!r} is none of {', '.join(known)}")
    if not 0 < factor < math.inf:
        raise ArgumentError(f"factor = {factor}: must be a positive number")
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise ArgumentError("model: its weights are quantised; load it in float32 or bfloat16")
    found = copy.deepcopy(model)
    with torch.no_grad():
        for i, block in enumerate(ARCHITECTURES[kind](found)):
            random = np.random.default_rng(derive(seed, symmetry, i))
            SYMMETRIES[symmetry](block, factor, random)
    return found
