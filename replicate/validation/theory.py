"""Computes λ by closed forms, and λ̂ at a finite nβ and localisation γ.

At a finite nβ, λ̂ differs from λ by the lower-order terms of the theory. Sources of λ and of its
multiplicity m:

    normal crossing, K(w) = Π wᵢ^(2kᵢ)   Watanabe 2009: λ = min 1/(2kᵢ), attained by m of the kᵢ
    deep linear network                  Aoyagi 2024 (Neural Networks 172)
    the same with one hidden layer,      Aoyagi & Watanabe 2005 (Neural Networks 18)
    a reduced-rank regression
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from replicate.sampling import SamplerConfig


@dataclass(frozen=True)
class Truth:
    """Holds λ and its multiplicity m."""

    llc: float
    multiplicity: int = 1

    def times(self, copies: int) -> Truth:
        """Returns λ and m of independent copies of a model side by side."""
        return Truth(copies * self.llc, copies * (self.multiplicity - 1) + 1)


def normal_crossing(orders: Sequence[int]) -> Truth:
    """Returns λ and m of Π wᵢ^(2kᵢ), where `orders` are the kᵢ."""
    return Truth(1 / (2 * max(orders)), list(orders).count(max(orders)))


def deep_linear(widths: Sequence[int], rank: int) -> Truth:
    """Returns λ and m of a product of matrices with `widths` H₀ … H_L and true rank `rank`.

    Raises:
        ValueError: no such network exists, for example because a width is below `rank`.
    """
    surplus = sorted(width - rank for width in widths)
    outer = widths[0] + widths[-1]
    for chosen in range(2, len(surplus) + 1):  # the theorem's set Σ holds the smallest widths
        inside, ell = surplus[:chosen], chosen - 1
        total, beyond = sum(inside), surplus[chosen] if chosen < len(surplus) else float("inf")
        if total >= ell * inside[-1] and total < ell * beyond:
            a = total - (-(-total // ell) - 1) * ell
            pairs = sum(x * y for x, y in combinations(inside, 2))
            llc = (
                (rank * outer - rank**2) / 2
                + a * (ell - a) / (4 * ell)
                - (ell - 1) / (4 * ell) * total**2
                + pairs / 2
            )
            return Truth(llc, a * (ell - a) + 1)
    raise ValueError(f"no such network: widths {list(widths)}, rank {rank}")


def gaussian(sampler: SamplerConfig, nbeta: float, curvatures_d: NDArray[np.float64]) -> float:
    """Returns λ̂ of ½·Σ hᵢwᵢ² under a sampler, including the effect of its step size ε.

    SGLD: var wᵢ = 1/(aᵢ(1 − εaᵢ/4)), aᵢ = nβ·hᵢ + γ.

    SGNHT: devinterp's update is p ← (1 − ξ)(p − ε·nβ·hᵢwᵢ) + √(2εA)·N(0, 1). With a constant
    friction ξ, this is an AR(2) process in wᵢ: var wᵢ = 2εA(2 − ξ)/(ξ·bᵢ(4 − 2ξ − bᵢ)) with bᵢ =
    (1 − ξ)·ε·nβ·hᵢ. Then var pᵢ = 2·bᵢ·var wᵢ/(2 − ξ), and ξ is stationary if the mean of var pᵢ
    over all weights is ε.

    Leimkuhler–Matthews: as SGLD with ε → 0, exactly.

    RMSprop: as SGLD with ε → 0. The effect of ε is left out, because it depends on the metric.
    """
    eps, stiffness_d = sampler.lr, nbeta * curvatures_d
    if sampler.sampler == "sgnht":
        diffusion = sampler.diffusion or 0.0

        def kinetic_d(xi: float) -> NDArray[np.float64]:
            return 4 * diffusion / (xi * (4 - 2 * xi - (1 - xi) * eps * stiffness_d))  # var pᵢ/ε

        found = optimize.root_scalar(lambda xi: kinetic_d(xi).mean() - 1, bracket=(1e-9, 0.9))
        xi = float(np.ravel(found.root)[0])
        return float(np.sum(kinetic_d(xi) * (2 - xi) / (4 * (1 - xi))))
    if sampler.sampler in ("leimkuhler", "rmsprop"):
        eps = 0.0
    total_d = stiffness_d + sampler.localization
    return float(0.5 * np.sum(stiffness_d / (total_d * (1 - eps * total_d / 4))))


def crossing(sampler: SamplerConfig, nbeta: float, orders: Sequence[int]) -> float:
    """Returns λ̂ of K = Π wᵢ^(2kᵢ) under SGLD, by quadrature over ln|w|.

    λ̂ is E[tK] at t = nβ, which equals −d ln Z/d ln t. With w ~ N(0, 1/γ), Z(t) = E[exp(−tK)] has
    the Mellin transform Γ(s)·Π E|wᵢ|^(−2kᵢs). Its poles at s = (½ + j)/kᵢ give the terms of Z:
    first t^−λ·(ln t)^(m − 1), then lower powers of the logarithm, then lower powers of t. Three
    examples: two weights with k = 1 have Z ∝ eˣ·K₀(x)/√t with x = γ²/8t, and λ̂ = ½ − 1/(ln t + a)
    up to O(1/t); three weights with k = 1 have λ̂ = ½ − 2X/(X² + π²) with X = ln t + a; two weights
    with k = 1 and k = 2 have λ̂ = ¼ − c·t^(−1/4).

    The step size ε is included to first order: with p ∝ e^(−V), SGLD draws from p·(1 +
    (ε/2)·(|∇V|²/4 − ΔV/2)) up to O(ε²). This is the modified measure of the Euler–Maruyama scheme.
    On a quadratic it gives the variance 1/(a(1 − εa/4)) to that order.

    Raises:
        ValueError: γ is 0 and there is more than one weight.
    """
    gamma, size = sampler.localization, len(orders)
    if gamma == 0 and size > 1:
        raise ValueError("a product of weights has no posterior without localisation")
    widest = 9 / np.sqrt(gamma) if gamma else (80 / nbeta) ** (1 / (2 * orders[0]))
    axis = np.log(widest) + np.linspace(-18, 0, 900 // size**2)
    weights = [np.exp(grid) for grid in np.meshgrid(*[axis] * size, indexing="ij", sparse=True)]
    pairs = list(zip(weights, orders, strict=True))
    loss = nbeta * prod((w ** (2 * k) for w, k in pairs), start=np.ones(()))
    density = prod(weights, start=np.exp(-loss - gamma / 2 * sum(w**2 for w in weights)))
    step = np.ones(())
    for w, k in pairs:
        slope = loss * 2 * k / w + gamma * w
        curvature = loss * 2 * k * (2 * k - 1) / w**2 + gamma
        step = step + sampler.lr / 2 * (slope**2 / 4 - curvature / 2)
    density = density * step
    return float((density * loss).sum() / density.sum())


def two_layers(
    nbeta: float, gamma: float, widths: tuple[int, ...], rank: int, scale: float
) -> float:
    """Returns λ̂ of a reduced-rank regression, without the effect of the step size.

    `widths` are M inputs, the hidden layer and N outputs. λ̂ is exact if the true rank is 0, and
    otherwise exact up to second order in γ/nβ. The true part is independent of the other weights.
    It has `rank`·(M + N − `rank`) regular directions: `rank`² of curvature 2·scale², the others of
    curvature scale². The other weights are a regression of true rank 0, whose widths are smaller by
    `rank`, with Z(t) = ∫exp(−t‖BA‖²/2 − γ(‖A‖² + ‖B‖²)/2). Integrating over B makes Z(t) an average
    of Π(t·xᵢ + γ)^(−(N − `rank`)/2) over the eigenvalues xᵢ of AAᵀ, a Wishart matrix.
    """
    inputs, hidden, outputs = (width - rank for width in widths)
    curvature = nbeta * scale**2
    regular = (
        rank**2 * curvature / (2 * curvature + gamma)
        + rank * (inputs + outputs) * curvature / (curvature + gamma) / 2
    )
    if not hidden:
        return regular
    step = 1e-3
    below, above = (
        wishart(nbeta / gamma**2 * np.exp(shift), inputs, hidden, outputs)
        for shift in (-step, step)
    )
    return regular + (below - above) / (2 * step)


def wishart(t: float, inputs: int, hidden: int, outputs: int, points: int = 4000) -> float:
    """Returns ln E[Π(1 + t·xᵢ)^(−outputs/2)] up to a constant, for a Wishart matrix with γ = 1.

    By de Bruijn's formula (1955), ∫ Π w(xᵢ)·|Δ(x)| dx over the eigenvalues is the Pfaffian of aᵢⱼ =
    ∬ sgn(y − x)·pᵢ(x)·pⱼ(y)·w(x)·w(y), for any polynomials pᵢ of degree i. If their number is odd,
    the matrix has a border, ∫pᵢw. Orthogonal polynomials keep it well-conditioned up to t of about
    1000.
    """
    size, other = sorted((inputs, hidden))
    log_x = np.linspace(-30, np.log(4 * other + 60), points)
    x = np.exp(log_x)
    log_weight = -x / 2 - outputs / 2 * np.log1p(t * x) + (other - size + 1) / 2 * log_x
    root = np.exp((log_weight - log_weight.max()) / 2)
    basis, triangle = np.linalg.qr(np.vander(x / x[-1], size, increasing=True) * root[:, None])
    density = basis * root[:, None]
    half = (np.cumsum(density, axis=0) - density / 2).T @ density
    matrix = half - half.T
    if size % 2:
        border = density.sum(axis=0)[:, None]
        matrix = np.block([[matrix, border], [-border.T, np.zeros((1, 1))]])
    return float(
        np.linalg.slogdet(matrix)[1] / 2
        + np.log(np.abs(np.diag(triangle))).sum()
        + size * log_weight.max()
    )
