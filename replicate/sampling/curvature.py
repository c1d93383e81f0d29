"""Measures the Hessian H and the gradient g of the loss at w*, and λ̂ of the quadratic they make.

For a quadratic loss, λ̂ at inverse temperature nβ and localisation γ is

    ½·tr[H(H + α)⁻¹] − nβ²·gᵀA⁻¹g + ½·nβ³·gᵀA⁻¹HA⁻¹g,      A = nβ·H + γ,  α = γ/nβ

The first term is the *harmonic part*: half the effective dimension at resolution α (MacKay 1992;
Maddox et al. 2020, arXiv 2003.02139). The others are the *gradient part*, which is 0 at a minimum.

The mean of vᵀf(H)v over random v with entries ± 1 is tr f(H) (Ubaru, Chen & Saad 2017, doi
10.1137/16M1104974; Ghorbani et al. 2019, arXiv 1901.10159); `lanczos` computes vᵀf(H)v.

A sample of few examples has too much negative curvature and too small a harmonic part, so n
examples are compared with 4n. With too few products, the harmonic part is too large: K of them
resolve α down to about h_max/K².
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from replicate.errors import ArgumentError
from replicate.progress import Advance
from replicate.sampling import lanczos
from replicate.sampling.gradient import Gradient, gradient
from replicate.sampling.lanczos import Array, Quadrature, check_alpha
from replicate.sampling.task import Task
from replicate.seeds import derive


@dataclass(frozen=True)
class Spectrum(Quadrature):
    """Holds what random vectors tell about the spectrum of H.

    Attributes:
        size: d, the number of weights that move.
        examples: the number of examples whose mean loss has the Hessian H.
    """

    size: int
    examples: int

    @property
    def trace(self) -> tuple[float, float]:
        """tr(H), in nats, and its standard error over the random vectors."""
        return self._estimate(lambda h: h)

    def harmonic(self, alpha: float) -> tuple[float, float]:
        """Returns ½·tr[H(H + α)⁻¹] and its error.

        The error has two parts, which add in squares: the standard error over the random vectors,
        and what `truncation` says.

        Args:
            alpha: α = γ/nβ, in nats.

        Raises:
            ArgumentError: H + α is not positive.
        """
        check_alpha(alpha, self.lowest)
        value, error = self._estimate(lambda h: 0.5 * h / (h + alpha))
        return value, math.hypot(error, self.truncation(alpha) * value)

    def _estimate(self, function: Callable[[Array], Array]) -> tuple[float, float]:
        each_P = self.size * self.mean(function)
        return float(each_P.mean()), float(each_P.std(ddof=1) / math.sqrt(len(each_P)))


@dataclass(frozen=True)
class Curvature:
    """Holds the Hessian's spectrum and the gradient at w*.

    Attributes:
        spectrum: the spectrum of the Hessian of all examples that were measured.
        quarter: the same of the first quarter of these examples, with the same random vectors.
        gradient: the gradient at w*.
    """

    spectrum: Spectrum
    quarter: Spectrum
    gradient: Gradient

    @property
    def trace(self) -> tuple[float, float]:
        """tr(H), in nats, and its standard error over the random vectors."""
        return self.spectrum.trace

    @property
    def lowest(self) -> float:
        """The lowest curvature that was found, in nats; negative if w* is no minimum."""
        return min(self.spectrum.lowest, self.gradient.quadrature.lowest)

    @property
    def highest(self) -> float:
        """The highest curvature that was found, in nats."""
        return max(self.spectrum.highest, self.gradient.quadrature.highest)

    @property
    def gradient_squared(self) -> tuple[float, float]:
        """‖g‖² of the expected loss, in nats², without bias, and its standard error."""
        return self.gradient.squared, self.gradient.error

    def harmonic(self, nbeta: float, localization: float) -> tuple[float, float]:
        """Returns ½·tr[H(H + γ/nβ)⁻¹], which is λ̂ of a quadratic without gradient, and its error.

        The error is that of `Spectrum.harmonic`. It leaves out the choice of examples:
        `quarter.harmonic(γ/nβ)` shows what more of them change.

        Raises:
            ArgumentError: γ/nβ is not above the strongest negative curvature.
        """
        check_alpha(_alpha(nbeta, localization), self.lowest)
        return self.spectrum.harmonic(localization / nbeta)

    def gradient_part(
        self, nbeta: float, localization: float, *, sampled: float = 0.0, clipped: bool = False
    ) -> tuple[float, float]:
        """Returns −nβ²·gᵀA⁻¹g + ½·nβ³·gᵀA⁻¹HA⁻¹g with A = nβ·H + γ, and its standard error.

        This is what the gradient adds to λ̂ of a quadratic. It is computed from the mean gradient of
        the examples, and what the noise of this gradient adds is subtracted.

        Args:
            nbeta: nβ.
            localization: γ.
            sampled: the share of the loss's examples that the gradient was measured from. This
                share of the noise is in the loss that chains sample, and is not subtracted.
            clipped: whether negative curvatures count as 0. Those of few examples are mostly noise.

        Raises:
            ArgumentError: γ/nβ is not above 0, or not above the strongest negative curvature that
                counts.
        """
        check_alpha(_alpha(nbeta, localization), 0.0 if clipped else self.lowest)
        found, lowest = self.gradient, 0.0 if clipped else -math.inf

        def taken(h: Array) -> Array:
            bowl = nbeta * np.maximum(h, lowest)
            return -(nbeta**2) * (bowl / 2 + localization) / (bowl + localization) ** 2

        sample, noise = found.quadrature.mean(taken)
        extra = (1 - sampled) * (found.sample_squared - found.squared)
        part = found.sample_squared * sample - extra * noise
        rest = 0.0 if clipped else found.quadrature.truncation(localization / nbeta)
        error = math.hypot(found.error * sample, rest * part)
        return float(part), math.sqrt(1 - sampled) * error

    def gradient_bound(self, nbeta: float, localization: float) -> float:
        """Returns the most that a gradient can take off λ̂ of a quadratic: nβ²·‖g‖²/γ.

        With negative curvature, it is (1 − η/2)/(1 − η)² times as much, η = |h_min|/α.

        Raises:
            ArgumentError: γ/nβ is not above the strongest negative curvature.
        """
        check_alpha(localization / nbeta, self.lowest)
        share = max(0.0, -self.lowest) * nbeta / localization
        factor = (1 - share / 2) / (1 - share) ** 2
        return factor * nbeta**2 * max(self.gradient.squared, 0.0) / localization

    def curvature(self, nbeta: float, localization: float) -> tuple[float, float]:
        """Returns ½·nβ·tr(H)/γ and its standard error.

        This is λ̂ of a quadratic if γ is far above nβ times every curvature.
        """
        value, error = self.trace
        scale = nbeta / (2 * localization)
        return scale * value, scale * error

    def largest_nbeta(self) -> float:
        """Returns the nβ up to which the gradient part is below a tenth of λ̂: tr(H)/(20·‖g‖²).

        This holds where γ is far above nβ times every curvature. Two standard errors are added to
        ‖g‖², because noise may hide a gradient.
        """
        most = max(self.gradient.squared, 0.0) + 2 * self.gradient.error
        return math.inf if most == 0 else max(self.trace[0], 0.0) / (20 * most)

    def __str__(self) -> str:
        def told(found: Spectrum) -> str:
            value, error = found.trace
            extent = f"curvatures from {found.lowest:.3g} to {found.highest:.3g}"
            return f"tr(H) = {value:.4g} ± {error:.2g}, {extent} ({found.examples:,} examples)"

        lines = [
            told(self.spectrum),
            told(self.quarter),
            f"‖g‖² = {self.gradient.squared:.3g} ± {self.gradient.error:.2g}: it takes less than a"
            f" tenth off λ̂ up to nβ = {self.largest_nbeta():.3g}",
        ]
        K = self.spectrum.values_PxK.shape[1]
        lines.append(f"γ/nβ is resolved above {self.highest / K**2:.2g} ({K} products)")
        if self.lowest < 0:
            lines[-1] += f", and must be above {-self.lowest:.3g} (negative curvature)"
        return "\n".join(lines)


def _alpha(nbeta: float, localization: float) -> float:
    """Returns γ/nβ; refuses (`ArgumentError`) what is no number, and an nβ that is not above 0."""
    for name, given in (("nbeta", nbeta), ("localization", localization)):
        if not isinstance(given, int | float | np.number):
            raise ArgumentError(f"{name} = {given!r}: must be a number")
    if not nbeta > 0:
        raise ArgumentError(f"nbeta = {nbeta:g}: must be above 0")
    return localization / nbeta


def spectrum(
    task: Task,
    index_N: Tensor,
    *,
    batch_size: int,
    probes: int,
    products: int,
    seed: int,
    advance: Advance,
) -> Spectrum:
    """Measures the spectrum of the Hessian of the mean loss at w*.

    Args:
        task: the loss and the parameters at w*; only the weights that move count.
        index_N: the indices of the N examples, all of which are used in each product.
        batch_size: the number of examples in a backward pass.
        probes: P, the number of random vectors, at least 2.
        products: K, the number of products with H for each of them.
        seed: the seed of the random vectors.
        advance: reports each example of each product.

    Raises:
        ArgumentError: fewer than two random vectors, or as `lanczos.hessian_product`.
    """
    if probes < 2:
        raise ArgumentError(f"probes = {probes}: an error needs at least 2; raise it")
    rules = []
    for probe in range(probes):
        generator = torch.Generator().manual_seed(derive(seed, "probe", probe))
        signs = [
            torch.randint(2, w.shape, generator=generator, dtype=torch.int8) * 2 - 1
            for w in task.parameters
        ]
        vector_D = lanczos.flatten(task, signs)
        rules.append(lanczos.rule(task, vector_D, index_N, batch_size, products, advance))
    return Spectrum.joined(rules, products, size=sum(task.sizes), examples=len(index_N))


def work(examples: int, probes: int, products: int, gradient: int = 0) -> int:
    """Returns how many examples `measure` reports at most, one for each pass.

    `gradient` is the number of examples of the gradient; without it, `spectrum` is meant.
    """
    spectra = probes * products * (examples + examples // 4 if gradient else examples)
    return spectra + 2 * products * examples + gradient if gradient else spectra


def measure(
    task: Task,
    index_N: Tensor,
    *,
    gradient_M: Tensor | None = None,
    batch_size: int,
    probes: int,
    products: int,
    seed: int,
    advance: Advance,
) -> Curvature:
    """Measures spectrum and gradient.

    Args:
        gradient_M: the indices of the examples of the gradient, at least 4; None for `index_N`.

    The other arguments are those of `spectrum`.
    """

    def of(index: Tensor) -> Spectrum:
        settings = {"batch_size": batch_size, "probes": probes, "products": products, "seed": seed}
        return spectrum(task, index, **settings, advance=advance)

    slope_M = index_N if gradient_M is None else gradient_M
    slope = gradient(
        task, index_N, slope_M, batch_size=batch_size, products=products, advance=advance
    )
    return Curvature(of(index_N), of(index_N[: len(index_N) // 4]), slope)
