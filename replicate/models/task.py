"""Defines the task of a language model: the model at w*, its windows, and the weights that move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from replicate.data import windows
from replicate.models import (
    attention,
    cpu_kernels,
    last_token,
    loading,
    quantised,
    restrictions,
    stacked,
)
from replicate.models.config import TaskConfig
from replicate.models.module import TEXT_LOSSES, count
from replicate.sampling import Task


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """Holds a language model at w*, and the task on its family's windows.

    Attributes:
        config: the configuration that was loaded.
        model: the model at w*.
        tokens_NxL: the windows.
        names: the names of the parameters that move, in the order of `parameters`.
    """

    config: TaskConfig
    model: PreTrainedModel
    tokens_NxL: Tensor
    names: tuple[str, ...]

    @property
    def examples(self) -> int:
        """The number of windows, N."""
        return len(self.tokens_NxL)

    def identity(self) -> dict[str, Any]:
        """Returns `TaskConfig.identity` and the sizes of the model and of its windows."""
        return self.config.identity() | {
            "length": self.tokens_NxL.shape[1],
            "parameters": count(self.model),
            "sampled_parameters": sum(self.sizes),
            "examples": self.examples,
        }


def load(config: TaskConfig) -> TextTask:
    """Loads a model at w* and its windows onto the device on which the chains run.

    Args:
        config: the model, its windows, their formats, and what moves.

    Raises:
        UserError: the model or the windows cannot be loaded, or a word of the restriction names no
            parameter.
    """
    device = loading.device(config.device, config.model, config.gpus_per_model)
    tokens_NxL = torch.zeros(0, 2, dtype=torch.int32, device=device)
    if config.windows is not None:
        tokens_NxL = torch.from_numpy(windows.load(config.windows).tokens_NxL).to(device)
    dtype = quantised.FORMATS.get(config.weights)
    weights, compute_dtype = "nf4" if dtype else config.weights, config.compute_dtype
    model = loading.load(
        config.folder,
        weights,
        device,
        compute_dtype,
        config.gpus_per_model,
        config.left_unquantised,
    )
    anchors = quantised.dequantise(model, dtype) if dtype else {}
    masks = restrictions.restrict(model, config.restriction)
    compiled = config.compiled and device.type == "cuda"
    if config.loss == "last":
        last_token.focus(model)
    if compiled:
        attention.use(model)
    else:
        last_token.sparsify(model)
    if config.gradient_checkpointing:
        loading.checkpoint_gradients(model)
    cpu_kernels.trim()
    plain = compute_dtype == "float32" and not config.gradient_checkpointing
    together = plain and config.together > 1
    return TextTask(
        loss=_loss(model, tokens_NxL, config),
        parameters=[model.get_parameter(name) for name in masks],
        masks=list(masks.values()),
        anchors=[anchors.get(name) for name in masks],
        stacked=stacked.loss(model, tokens_NxL, tuple(masks), config.loss) if together else None,
        compiled=compiled,
        repeated=compiled,
        config=config,
        model=model,
        tokens_NxL=tokens_NxL,
        names=tuple(masks),
    )


def _loss(
    model: PreTrainedModel, tokens_NxL: Tensor, config: TaskConfig
) -> Callable[[Tensor], Tensor]:
    losses, rounded = TEXT_LOSSES[config.loss], config.compute_dtype == "bfloat16"

    def loss(index_B: Tensor) -> Tensor:
        tokens_BxL = tokens_NxL[index_B.to(tokens_NxL.device)].long()
        with torch.autocast(tokens_BxL.device.type, torch.bfloat16, rounded):
            return losses(model, tokens_BxL)

    return loss
