"""Restricts chains to some parameters of a model, which are named by these words.

    all                        every parameter that has a gradient
    unquantised                the parameters that loading in 4 or 8 bits leaves as they are: all
                               but the matrices of the blocks
    embed, unembed             the embeddings; the output head, if it has a matrix of its own
    norms                      gains and offsets of the normalisations
    attention, mlp             the attention or the MLP of every layer
    l3, l3 attn, l3 mlp, l3h2  layer 3, its attention, its MLP, its head 2, as in devinterp
    l3g1                       in layer 3, the key and value head 1, and the query heads that use it
    model.layers.*.bias        any other word is a pattern of parameter names (fnmatch)

Layers and heads are counted from 0. Several words name the union of their parameters. The λ̂ of a
restriction treats the loss as a function of these parameters alone (Wang et al. 2024, arXiv
2410.02984).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from replicate.errors import UserError

Masks = dict[str, Tensor | None]  # by parameter name: True where a weight moves, None if all do


def restrict(model: PreTrainedModel, words: Sequence[str]) -> Masks:
    """Restricts gradients to the parameters that the words name.

    Args:
        model: the model, whose `requires_grad` flags are changed in place.
        words: words from the list of this module; the union of their parameters moves.

    Returns:
        The masks of the parameters that move, by name, in the model's order.

    Raises:
        UserError: a word names no parameter that has a gradient.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen: dict[str, list[Tensor | None]] = {name: [] for name in trainable}
    for word in words:
        masks = _masks(model, word.strip())
        found = {name: mask for name, mask in masks.items() if name in trainable}
        if not found:
            problem = "names no parameter of this model that has a gradient"
            raise UserError(f"restriction {word!r}: {problem}; {_hint(model)}")
        for name, mask in found.items():
            chosen[name].append(mask)
    merged = {name: _union(masks) for name, masks in chosen.items() if masks}
    for name, parameter in trainable.items():
        parameter.requires_grad_(name in merged)
    return merged


def _masks(model: PreTrainedModel, word: str) -> Masks:
    names = [name for name, _ in model.named_parameters()]
    layers = range(model.config.get_text_config().num_hidden_layers)
    match word:
        case "all":
            return dict.fromkeys(names)
        case "unquantised":
            quantised = matrices(model)
            return dict.fromkeys(n for n, p in model.named_parameters() if id(p) not in quantised)
        case "norms":
            modules = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
            return dict.fromkeys(n for n in names if "norm" in type(modules[n]).__name__.lower())
        case "attention" | "mlp":
            part = {"attention": "attn", "mlp": "mlp"}[word]
            found = [_by_devinterp(model, f"l{layer} {part}") for layer in layers]
            return {name: mask for masks in found for name, mask in masks.items()}
        case _ if re.fullmatch(r"embed|unembed|l\d+( (attn|mlp)|[hg]\d+)?", word):
            return _by_devinterp(model, word)
        case _:
            return dict.fromkeys(name for name in names if fnmatchcase(name, word))


def _by_devinterp(model: PreTrainedModel, word: str) -> Masks:
    from devinterp.slt.weight_restrictions import create_param_masks

    try:
        return create_param_masks(model, word)
    except ValueError as error:  # devinterp does not know the word or the architecture
        raise UserError(f"restriction {word!r}: {error}; {_hint(model)}") from None


def matrices(model: PreTrainedModel) -> set[int]:
    """Returns the ids of the weights that bitsandbytes quantises.

    They are the matrices of all linear layers except the output head.
    """
    head = model.get_output_embeddings()
    return {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _union(found: Sequence[Tensor | None]) -> Tensor | None:
    masks = [mask for mask in found if mask is not None]
    return None if len(masks) < len(found) else torch.stack(masks).any(0)


def _hint(model: PreTrainedModel) -> str:
    example = next(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    words = "all, unquantised, embed, unembed, norms, attention, mlp, l0, l0 attn, l0 mlp, l0h0"
    return f"write {words}, or a pattern such as {example}"


def summary(sizes: dict[str, int]) -> dict[str, int]:
    """Adds up the sizes of parameters whose names differ only in the number of the layer.

    Args:
        sizes: the number of weights of each parameter, by name.

    Returns:
        The sums by name, with `*` in place of the layer's number.
    """
    total: dict[str, int] = {}
    for name, size in sizes.items():
        pattern = re.sub(r"\.\d+\.", ".*.", name)
        total[pattern] = total.get(pattern, 0) + size
    return total
