"""Measures the gradient of the loss at w* without bias.

The squared norm of a sample's mean gradient is mostly the noise of its examples. The product of the
gradients of two different blocks of examples has no such bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from replicate.errors import ArgumentError
from replicate.progress import Advance
from replicate.sampling import lanczos
from replicate.sampling.lanczos import Quadrature
from replicate.sampling.task import Task

BLOCKS = 8  # of examples, whose gradients are compared
EXAMPLES = 4096  # of which the gradient is measured, if there are as many


@dataclass(frozen=True)
class Gradient:
    """Holds what is known about the gradient g of the expected loss at w*.

    Attributes:
        squared: ‖g‖² in nats², without bias: the mean of g_j·g_k over two different blocks of
            examples. The noise of few examples can make it negative.
        error: its standard error, by the jackknife over blocks.
        sample_squared: ‖ĝ‖² of the mean gradient ĝ of all examples, whose noise adds to it.
        quadrature: of two vectors: ĝ, and the difference of two halves' gradients, which is noise.
        examples: the number of examples.
    """

    squared: float
    error: float
    sample_squared: float
    quadrature: Quadrature
    examples: int


def gradient(
    task: Task,
    index_N: Tensor,
    gradient_M: Tensor,
    *,
    batch_size: int,
    products: int,
    advance: Advance,
) -> Gradient:
    """Measures the gradient of the loss at w*; the arguments are those of `curvature.measure`.

    Raises:
        ArgumentError: fewer than four examples, or as `lanczos.hessian_product`.
    """
    if len(gradient_M) < 4:
        raise ArgumentError(f"{len(gradient_M)} examples: the gradient's error needs 4; give more")
    K = min(BLOCKS, len(gradient_M))
    blocks_KxD = lanczos.block_gradients(task, gradient_M, K, batch_size, advance)
    gram_KxK = (blocks_KxD @ blocks_KxD.t()).double()
    others_K = gram_KxK.sum(1) - gram_KxK.diagonal()
    without_K = (others_K.sum() - 2 * others_K) / ((K - 1) * (K - 2))
    sample_D = blocks_KxD.mean(0)
    noise_D = blocks_KxD[: K // 2].mean(0) - blocks_KxD[K // 2 :].mean(0)
    del blocks_KxD
    rules = [
        lanczos.rule(task, vector_D, index_N, batch_size, products, advance)
        for vector_D in (sample_D, noise_D)
    ]
    return Gradient(
        squared=float(others_K.sum() / (K * (K - 1))),
        error=math.sqrt((K - 1) * float(without_K.var(correction=0))),
        sample_squared=float(gram_KxK.mean()),
        quadrature=Quadrature.joined(rules, products),
        examples=len(gradient_M),
    )
