"""Computes the baseline of a model: the loss of each example at w*, and the gradient at w*.

It also measures by how much a step without noise lowers the loss, to tell whether w* is a minimum,
and the curvature of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.errors import UserError
from replicate.models import module, restrictions
from replicate.models.config import PROMISED
from replicate.models.task import TextTask
from replicate.progress import Advance
from replicate.sampling import curvature


def losses(
    task: TextTask, index_N: NDArray[np.int64], batch_size: int, advance: Advance
) -> NDArray[np.float32]:
    """Returns the losses (nats per label) of the examples `index_N` at w*, (N,) in that order."""
    found = []
    with torch.no_grad():
        for index_B in torch.from_numpy(index_N).split(batch_size):
            found.append(task.loss(index_B).cpu())
            advance(len(index_B))
    return torch.cat(found).numpy()


def examine(
    task: TextTask,
    gradient_N: NDArray[np.int64],
    batch_size: int,
    gradient_batch: int,
    advance: Advance,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Computes the losses, the gradient and the effect of noise-free steps at w*.

    Args:
        task: the task, whose parameters are at w*.
        gradient_N: the indices of the examples whose gradient is computed. The gradient of the
            first half gives the direction of the steps, which the second half evaluates.
        batch_size: the number of examples in a forward pass.
        gradient_batch: the number of examples in a backward pass.
        advance: reports the examples that are done.

    Returns:
        The loss of every example at w* (N,) in nats per label, and the fields of
        `replicate.study.records.Baseline`, except those that name the model.

    Raises:
        UserError: the model cannot read its windows, or a loss is not finite.
    """
    check(task)
    losses_N = losses(task, np.arange(task.examples), batch_size, advance)
    if not np.isfinite(losses_N).all():
        problem = f"the loss at w* is {losses_N[~np.isfinite(losses_N)][0]} for some windows"
        raise UserError(f"{task.config.model}: {problem}; choose another compute_dtype or model")
    halves, gradients = torch.from_numpy(gradient_N).chunk(2), []
    for half in halves:
        for index_B in half.split(gradient_batch):
            (task.loss(index_B).sum() / len(half)).backward()
            advance(len(index_B))
        pairs = zip(task.parameters, task.masks, strict=True)
        gradients.append([gradient(*pair) for pair in pairs])
        task.model.zero_grad(set_to_none=True)
    first, second = gradients
    norm = inner(first, first) + 2 * inner(first, second) + inner(second, second)
    fall, fall_error = descent(task, first, halves[1].numpy(), losses_N, batch_size, advance)
    report = {
        "loss": float(losses_N.mean(dtype=np.float64)),
        "standard_error": float(losses_N.std(dtype=np.float64) / np.sqrt(len(losses_N))),
        "gradient_norm": norm**0.5 / 2,
        "gradient_norm_squared": inner(first, second),
        "descent": fall,
        "descent_error": fall_error,
        "parameters": module.count(task.model),
        "sampled_parameters": sum(task.sizes),
        "sampled": restrictions.summary(dict(zip(task.names, task.sizes, strict=True))),
        "windows": task.config.hashes[0],
    }
    return losses_N, report


def hessian(
    task: TextTask,
    order_N: NDArray[np.int64],
    windows: int,
    probes: int,
    products: int,
    batch_size: int,
    seed: int,
    advance: Advance,
) -> dict[str, Any]:
    """Measures the Hessian of the label loss at w*, over the first windows in an order of all.

    The other arguments are those of `replicate.sampling.curvature.spectrum`.

    Returns:
        The fields of `Spectrum`, from which ½·tr[H(H + α)⁻¹] follows for any α, with trace, lowest
        and highest curvature (nats). `quarter` has the same of the first quarter of the windows.
    """
    settings: dict[str, Any] = {"batch_size": batch_size, "probes": probes, "products": products}

    def measured(index: Tensor) -> dict[str, Any]:
        found = curvature.spectrum(task, index, seed=seed, advance=advance, **settings)
        trace, error = found.trace
        ends = {"lowest": found.lowest, "highest": found.highest}
        rules = {"values_PxK": found.values_PxK.tolist(), "weights_PxK": found.weights_PxK.tolist()}
        sizes = {"size": found.size, "examples": found.examples}
        return {"trace": trace, "trace_error": error} | ends | sizes | rules

    index = torch.from_numpy(order_N[:windows])
    return measured(index) | {"quarter": measured(index[: max(1, len(index) // 4)])}


def check(task: TextTask) -> None:
    """Checks that the model can read its family's windows.

    Raises:
        UserError: the windows have tokens outside the vocabulary, or are too long for the model.
    """
    name, key = task.config.model, f"families.{task.config.family}"
    highest, length = int(task.tokens_NxL.max()), task.tokens_NxL.shape[1] - 1
    known = task.model.get_input_embeddings().get_parameter("weight").shape[0]
    longest = getattr(task.model.config.get_text_config(), "max_position_embeddings", length)
    if highest >= known:
        problem = f"knows {known} tokens, and its windows hold number {highest}"
        raise UserError(f"{name}: {problem}; {key}.tokenizer is another model's")
    if length > longest:
        problem = f"reads {longest} tokens at most, and windows have {length} before the label"
        raise UserError(f"{name}: {problem}; lower {key}.length")


def gradient(parameter: nn.Parameter, mask: Tensor | None) -> Tensor:
    """Returns a parameter's gradient, with 0 for each weight that the mask excludes."""
    found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return found if mask is None else found * mask.to(found.device)


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Returns the inner product of two lists of tensors, summed in float64."""
    return sum(
        float(x.flatten().double() @ y.flatten().double()) for x, y in zip(a, b, strict=True)
    )


@torch.no_grad()
def descent(
    task: TextTask,
    direction: Sequence[Tensor],
    index_B: NDArray[np.int64],
    losses_N: NDArray[np.float32],
    batch_size: int,
    advance: Advance,
) -> tuple[float, float]:
    """Measures by how much one step without noise lowers the loss, at best.

    One step along −`direction` is tried for each value of `PROMISED`. Its length is such that a
    loss linear in the weights would fall by this value. At a minimum no step lowers the loss.

    Args:
        task: the task, whose parameters are at w* and are restored at the end.
        direction: the gradient of other examples than `index_B`, one tensor for each parameter.
        index_B: the examples whose loss is compared before and after the step.
        losses_N: the loss of each example at w* (nats).
        batch_size: the number of examples in a forward pass.
        advance: reports the examples that are done.

    Returns:
        The largest mean fall and its standard error, both in nats.
    """
    origins = [parameter.detach().clone() for parameter in task.parameters]
    found = []
    for promised in PROMISED:
        step = promised / inner(direction, direction)
        for parameter, origin, slope in zip(task.parameters, origins, direction, strict=True):
            parameter.copy_(origin.float() - step * slope.float())
        after_B = losses(task, index_B, batch_size, advance)
        fall_B = losses_N[index_B].astype(np.float64) - after_B
        found.append((float(fall_B.mean()), float(fall_B.std(ddof=1) / np.sqrt(len(fall_B)))))
    for parameter, origin in zip(task.parameters, origins, strict=True):
        parameter.copy_(origin)
    return max(found)
