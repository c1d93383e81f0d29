"""w* as the chains find it: the loss of every example, the gradient, and whether noise-free steps
lower the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.errors import UserError
from replicate.models import loading as models
from replicate.models import restrictions
from replicate.models import task as subjects
from replicate.pipeline.config import Baseline
from replicate.progress import Advance

PROMISED = (0.001, 0.003, 0.01, 0.03, 0.1)  # nats


def examine(
    subject: subjects.Subject, settings: Baseline, advance: Advance
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The label loss of every example at w* (N,), in nats, and a report of what a file of results
    says of it. Advances by examples.

    Raises:
        UserError: the model cannot read its windows.
    """
    check(subject)
    N, size = len(subject.tokens_NxL), subject.settings.microbatch or settings.batch_size
    with torch.no_grad():
        found = []
        for index in torch.arange(N).split(size):
            found.append(subject(index).cpu())
            advance(len(index))
    losses = torch.cat(found).numpy()

    halves, points = [], []
    parameters, masks = subject.space.parameters, subject.space.masks
    used = torch.from_numpy(subject.order("gradient")[: settings.gradient_examples])
    piece = subject.settings.microbatch or subject.settings.sampling.batch_size
    for half in used.chunk(2):
        for index in half.split(piece):
            (subject(index).sum() / len(half)).backward()
            advance(len(index))
        points.append(half)
        halves.append([gradient(*pair) for pair in zip(parameters, masks, strict=True)])
        subject.model.zero_grad(set_to_none=True)
    first, second = halves
    fall, fall_error = descent(subject, parameters, first, points[1], losses, size, advance)
    report = {
        "loss": float(losses.mean(dtype=np.float64)),
        "standard_error": float(losses.std(dtype=np.float64) / np.sqrt(N)),
        "gradient_norm": (inner(first, first) + 2 * inner(first, second) + inner(second, second))
        ** 0.5
        / 2,
        "gradient_norm_squared": inner(first, second),
        "descent": fall,
        "descent_error": fall_error,
        "parameters": models.count(subject.model),
        "sampled_parameters": sum(subject.space.sizes),
        "sampled": restrictions.summary(dict(zip(subject.names, subject.space.sizes, strict=True))),
        "examples": N,
    }
    return losses, report


def work(examples: int, settings: Baseline) -> int:
    """The examples that `examine` passes forward: all of them, those of the gradient, and the
    second half of these for each step.
    """
    used = min(settings.gradient_examples, examples)
    return examples + used + len(PROMISED) * (used // 2)


def check(subject: subjects.Subject) -> None:
    """Whether the model can read its family's windows.

    Raises:
        UserError: they hold tokens that it does not know, or are too long for it.
    """
    highest, length = int(subject.tokens_NxL.max()), subject.tokens_NxL.shape[1] - 1
    known = subject.model.get_input_embeddings().get_parameter("weight").shape[0]
    longest = getattr(subject.model.config.get_text_config(), "max_position_embeddings", length)
    key = f"families.{subject.family}"
    if highest >= known:
        raise UserError(
            f"{subject.name}: knows {known} tokens, and its windows hold number {highest}; {key}.tokenizer is another model's"
        )
    if length > longest:
        raise UserError(
            f"{subject.name}: reads {longest} tokens at most, and windows have {length} before the label; lower {key}.length"
        )


def gradient(parameter: nn.Parameter, mask: Tensor | None) -> Tensor:
    """0 where a weight is held."""
    found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return found if mask is None else found * mask.to(found.device)


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product, summed in float64."""
    return sum(
        float(x.flatten().double() @ y.flatten().double()) for x, y in zip(a, b, strict=True)
    )


@torch.no_grad()
def descent(
    subject: subjects.Subject,
    parameters: Sequence[nn.Parameter],
    direction: Sequence[Tensor],
    index_B: Tensor,
    losses_N: NDArray[np.float32],
    batch_size: int,
    advance: Advance,
) -> tuple[float, float]:
    """Greatest mean fall (nats) of the loss of examples `index_B` along −`direction`, the gradient
    of others, and its standard error.

    A noise-free step of each length in `PROMISED`: what the fall would be were the loss linear. At
    a minimum no step lowers the loss.
    """
    origins = [parameter.detach().clone() for parameter in parameters]
    found = []
    for promised in PROMISED:
        step = promised / inner(direction, direction)
        for parameter, origin, slope in zip(parameters, origins, direction, strict=True):
            parameter.copy_(origin.float() - step * slope.float())
        after = torch.cat([subject(index).cpu() for index in index_B.split(batch_size)]).numpy()
        fall_B = losses_N[index_B.numpy()].astype(np.float64) - after
        found.append((float(fall_B.mean()), float(fall_B.std(ddof=1) / np.sqrt(len(fall_B)))))
        advance(len(fall_B))
    for parameter, origin in zip(parameters, origins, strict=True):
        parameter.copy_(origin)
    return max(found)
