"""Which parameters chains move, in words, as devinterp's masks.

    all                        every parameter that has a gradient
    unquantised                what loading in 4 or 8 bits leaves: all but the matrices of the
                               blocks
    embed, unembed             the embeddings; the output head, where it has a matrix of its own
    norms                      gains and offsets of the normalisations
    attention, mlp             that of every layer
    l3, l3 attn, l3 mlp, l3h2  layer 3, its attention, its MLP, its head 2: devinterp's own words
    model.layers.*.bias        any other word: a pattern of parameter names (fnmatch)

Several words are a union. λ̂ of a restriction is that of the model as a function of these
parameters alone (Wang et al. 2024, arXiv 2410.02984).
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

Masks = dict[str, Tensor | None]  # by parameter name; True where a weight moves, None where all do


def restrict(model: PreTrainedModel, words: Sequence[str]) -> Masks:
    """The masks of a restriction, in the model's order; what it leaves out has no gradients from
    then on.

    Raises:
        UserError: a word names no parameter that has a gradient.
    """
    trainable = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    chosen: list[Masks] = []
    for word in words:
        found = {
            name: mask for name, mask in masks(model, word.strip()).items() if name in trainable
        }
        if not found:
            raise UserError(
                f"restriction {word!r}: names no parameter of this model that has a gradient; {hint(model)}"
            )
        chosen.append(found)
    merged = {
        name: union([found[name] for found in chosen if name in found])
        for name in trainable
        if any(name in m for m in chosen)
    }
    for name, parameter in trainable.items():
        parameter.requires_grad_(name in merged)
    return merged


def masks(model: PreTrainedModel, word: str) -> Masks:
    names = [name for name, _ in model.named_parameters()]
    layers = range(model.config.get_text_config().num_hidden_layers)
    match word:
        case "all":
            return dict.fromkeys(names)
        case "unquantised":
            return dict.fromkeys(
                name
                for name, parameter in model.named_parameters()
                if id(parameter) not in matrices(model)
            )
        case "norms":
            return dict.fromkeys(
                name for name in names if is_norm(model.get_submodule(name.rpartition(".")[0]))
            )
        case "attention" | "mlp":
            part = {"attention": "attn", "mlp": "mlp"}[word]
            return {
                name: mask
                for layer in layers
                for name, mask in theirs(model, f"l{layer} {part}").items()
            }
        case _ if re.fullmatch(r"embed|unembed|l\d+( (attn|mlp)|[hg]\d+)?", word):
            return theirs(model, word)
        case _:
            return dict.fromkeys(name for name in names if fnmatchcase(name, word))


def theirs(model: PreTrainedModel, word: str) -> Masks:
    """devinterp's masks.

    Raises:
        UserError: it does not know the word or the architecture.
    """
    from devinterp.slt.weight_restrictions import create_param_masks

    try:
        return create_param_masks(model, word)
    except ValueError as error:
        raise UserError(f"restriction {word!r}: {error}; {hint(model)}") from None


def matrices(model: PreTrainedModel) -> set[int]:
    """The weights (by id) that bitsandbytes quantises: those of linear layers, the output head
    apart.
    """
    head = model.get_output_embeddings()
    return {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def union(found: Sequence[Tensor | None]) -> Tensor | None:
    whole = [mask for mask in found if mask is not None]
    return None if len(whole) < len(found) else torch.stack(whole).any(0)


def hint(model: PreTrainedModel) -> str:
    example = next(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return f"write all, unquantised, embed, unembed, norms, attention, mlp, l0, l0 attn, l0 mlp, l0h0, or a pattern such as {example}"


def summary(sizes: dict[str, int]) -> dict[str, int]:
    """Weights moved by parameter name, with the layers' numbers as `*`."""
    total: dict[str, int] = {}
    for name, size in sizes.items():
        pattern = re.sub(r"\.\d+\.", ".*.", name)
        total[pattern] = total.get(pattern, 0) + size
    return total
