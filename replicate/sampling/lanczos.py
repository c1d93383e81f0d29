"""Multiplies the Hessian H of a task's mean loss by vectors, and finds quadrature rules for it.

From a vector v, k products with H give Ritz values θ and weights τ² that sum to 1, with

    vᵀf(H)v ≈ ‖v‖²·Σ τ²·f(θ)

(Lanczos 1950; Golub & Meurant 2010, Matrices, Moments and Quadrature). This is exact for
polynomials f up to degree 2k − 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from replicate.errors import ArgumentError
from replicate.progress import Advance
from replicate.sampling.task import Task

Array = NDArray[np.float64]
PLAIN = "use plain PyTorch operations in the model and its loss"
NEGLIGIBLE = 1e-6  # a new direction this much smaller than H is rounding


@dataclass(frozen=True)
class Quadrature:
    """Holds the Ritz values and weights of P vectors, with at most K of each.

    Attributes:
        values_PxK: θ in nats, ascending; NaN if fewer than K products were enough.
        weights_PxK: τ², which sum to 1 for each vector; 0 if θ is NaN. All are 0 for a vector 0.
    """

    values_PxK: Array
    weights_PxK: Array

    @classmethod
    def joined(cls, rules: Sequence[tuple[Array, Array]], products: int, **more: int) -> Self:
        """Joins the Ritz values and weights of each vector, of which there may be fewer than K."""
        values, weights = np.full((len(rules), products), np.nan), np.zeros((len(rules), products))
        for p, (values_K, weights_K) in enumerate(rules):
            values[p, : len(values_K)], weights[p, : len(values_K)] = values_K, weights_K
        return cls(values, weights, **more)

    @property
    def lowest(self) -> float:
        """The lowest Ritz value, in nats; the lowest eigenvalue of H is at most this."""
        return float(np.nanmin(self.values_PxK, initial=np.inf))

    @property
    def highest(self) -> float:
        """The highest Ritz value, in nats; the highest eigenvalue of H is at least this."""
        return float(np.nanmax(self.values_PxK, initial=-np.inf))

    @property
    def flattest(self) -> float:
        """The lowest eigenvalue of H, in nats, if it is known and positive, else 0.

        It is known if fewer than K products were enough, for then the Ritz values are eigenvalues.
        """
        known = bool(np.isnan(self.values_PxK[:, -1]).all())
        return max(self.lowest, 0.0) if known and math.isfinite(self.lowest) else 0.0

    def mean(self, function: Callable[[Array], Array]) -> Array:
        """Returns vᵀf(H)v/‖v‖² of each vector, (P,)."""
        return np.nansum(self.weights_PxK * function(self.values_PxK), axis=1)

    def truncation(self, alpha: float) -> float:
        """Returns about how large the error of `mean` of h/(h + α) is, relative to the mean.

        It is 2·exp(−4K/√κ), κ = (h_max + α)/(h_min + α), as K steps of conjugate gradients leave of
        the squared error in the energy norm; 0 if fewer than K products were enough.
        """
        if np.isnan(self.values_PxK[:, -1]).all():
            return 0.0
        condition = (self.highest + alpha) / (min(self.lowest, 0.0) + alpha)
        return 2 * math.exp(-4 * self.values_PxK.shape[1] / math.sqrt(condition))


def check_alpha(alpha: float, lowest: float) -> None:
    """Checks that H + α is positive, as otherwise no Gaussian has this curvature.

    Raises:
        ArgumentError: α is not above 0, or not above −`lowest`.
    """
    if not 0 < alpha < math.inf:
        raise ArgumentError(f"γ/nβ = {alpha:g}: must be above 0; change localization or nbeta")
    if alpha <= -lowest:
        raise ArgumentError(
            f"γ/nβ = {alpha:.3g}: the loss has curvature {lowest:.3g} in some direction, so the"
            " quadratic has no posterior; raise localization, lower nbeta, or measure more windows"
        )


def rule(
    task: Task, vector_D: Tensor, index_N: Tensor, batch_size: int, products: int, advance: Advance
) -> tuple[Array, Array]:
    """Returns the Ritz values and weights (K,) that `products` products with H give from a vector.

    There are fewer if H maps what the vector touches onto itself, and none for a vector 0. Each new
    direction is made orthogonal to all before it, so that no Ritz value comes twice. This needs
    memory for `products` vectors.

    Raises:
        ArgumentError: as `hessian_product`.
    """
    length = float(vector_D.norm())
    if length == 0:
        return np.empty(0), np.empty(0)
    steps = min(products, sum(task.sizes))
    basis_KxD = vector_D.new_empty(steps, len(vector_D))
    basis_KxD[0] = vector_D / length
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(steps):
        known_KxD = basis_KxD[: step + 1]
        product_D = hessian_product(task, basis_KxD[step], index_N, batch_size, advance)
        diagonal.append(float(product_D @ basis_KxD[step]))
        for _ in range(2):
            product_D -= (known_KxD @ product_D) @ known_KxD
        norm = float(product_D.norm())
        if step + 1 == steps or norm <= NEGLIGIBLE * max(map(abs, (*diagonal, *beside))):
            break
        beside.append(norm)
        basis_KxD[step + 1] = product_D / norm
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return values, vectors[0] ** 2


def hessian_product(
    task: Task, vector_D: Tensor, index_N: Tensor, batch_size: int, advance: Advance
) -> Tensor:
    """Returns H·v (D,) for the mean loss over the examples, in the dtype of v.

    The derivatives are computed in the dtype of the model, so that products of a bfloat16 model
    have errors of about 1 % of the highest curvature. Attention is computed by plain products,
    because PyTorch's fused kernels have no second derivative.

    Args:
        task: the loss and the parameters at w*. Entries of H at weights that must not move are 0.
        vector_D: v, with one entry for each weight of `task.parameters`, as `flatten` returns it.
        index_N: the indices of the examples.
        batch_size: the number of examples in a backward pass.
        advance: reports the examples that are done.

    Raises:
        ArgumentError: the loss cannot be differentiated twice, or the product is not finite.
    """
    parts = vector_D.split([w.numel() for w in task.parameters])
    pairs = zip(parts, task.parameters, strict=True)
    directions = [v.view_as(w).to(w.device, w.dtype) for v, w in pairs]
    total_D = torch.zeros_like(vector_D)
    for index_B in index_N.split(batch_size):
        with sdpa_kernel(SDPBackend.MATH):
            loss = task.loss(index_B).sum() / len(index_N)
            products = _second(loss, task.parameters, directions)
        total_D += flatten(task, products, vector_D.dtype)
        advance(len(index_B))
    return total_D


def _second(
    loss: Tensor, parameters: Sequence[Tensor], directions: Sequence[Tensor]
) -> Sequence[Tensor]:
    slopes = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    pairs = [(g, v) for g, v in zip(slopes, directions, strict=True) if g.requires_grad]
    if not pairs:  # the loss is linear in the weights
        return [torch.zeros_like(w) for w in parameters]
    curved, along = zip(*pairs, strict=True)
    if not _twice(curved):
        raise ArgumentError(f"the loss can be differentiated only once; {PLAIN}")
    try:
        return torch.autograd.grad(curved, parameters, along, materialize_grads=True)
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise ArgumentError(f"the loss has no second derivative: {error}; {PLAIN}") from error


def _twice(slopes: Sequence[Tensor]) -> bool:
    """Tells whether no operation is marked as differentiable only once.

    PyTorch would take the derivative of such an operation's gradient for 0, and say nothing.
    """
    seen, left = set(), [slope.grad_fn for slope in slopes]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            if node.name() == "torch::autograd::Error":
                return False
            seen.add(node)
            left += [following for following, _ in node.next_functions]
    return True


def block_gradients(
    task: Task, index_N: Tensor, blocks: int, batch_size: int, advance: Advance
) -> Tensor:
    """Returns the gradients (K, D) of the mean loss of K blocks of equally many examples.

    A rest of fewer than K examples is left out.
    """
    size = len(index_N) // blocks
    rows = []
    for block in index_N[: size * blocks].split(size):
        row = torch.zeros((), device=task.parameters[0].device)
        for index_B in block.split(batch_size):
            loss = task.loss(index_B).sum() / size
            slopes = torch.autograd.grad(loss, task.parameters, materialize_grads=True)
            row = row + flatten(task, slopes)
            advance(len(index_B))
        rows.append(row)
    return torch.stack(rows)


def flatten(task: Task, tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Returns tensors of the parameters' shapes as one vector (D,), with 0 where a mask is 0.

    It lies on the device of the first parameter, in float64 if a parameter has this dtype, else in
    float32, unless `dtype` is given.

    Raises:
        ArgumentError: an entry is not finite.
    """
    home = task.parameters[0].device
    if dtype is None:
        wide = any(w.dtype == torch.float64 for w in task.parameters)
        dtype = torch.float64 if wide else torch.float32
    pairs = zip(tensors, task.masks, strict=True)
    masked = (v if mask is None else v * mask.to(v.device) for v, mask in pairs)
    found_D = torch.cat([v.to_dense().flatten().to(home, dtype) for v in masked])
    if not found_D.isfinite().all():
        raise ArgumentError("the loss at w* has a derivative that is not finite; check the model")
    return found_D
