"""Models whose learning coefficient λ and multiplicity m are known, as targets for the sampler.

Each stands at w* and has unit noise where it has data; each gives λ, m, and, where it is known, the
λ̂ that a perfect sampler would find at a finite nβ and localisation γ (`expected`), which differs
from λ by what the theory calls lower-order terms.

Normal crossing, K(w) = Π wᵢ^(2kᵢ):  λ = min 1/(2kᵢ), m the number of indices that attain it
                                     (Watanabe 2009).
Reduced-rank regression: Aoyagi & Watanabe 2005 (Neural Networks 18).  Deep linear network: Aoyagi
                                                                       2024 (Neural Networks 172).
`copies` independent copies of a model side by side have `copies`·λ, and a multiplicity of copies·(m
− 1) + 1: many samples for the
price of one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from math import prod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from replicate.sampling import Setting


@dataclass(frozen=True)
class Truth:
    llc: float
    multiplicity: int = 1

    def times(self, copies: int) -> Truth:
        return Truth(copies * self.llc, copies * (self.multiplicity - 1) + 1)


def normal_crossing(orders: Sequence[int]) -> Truth:
    """Of Π wᵢ^(2kᵢ), `orders` the kᵢ."""
    return Truth(1 / (2 * max(orders)), list(orders).count(max(orders)))


def reduced_rank(inputs: int, hidden: int, outputs: int, rank: int) -> Truth:
    """Of y = B·A·x + noise, A hidden × inputs, B outputs × hidden, BA of true rank `rank` (Aoyagi &
    Watanabe 2005, its four cases).
    """
    m, h, n, r = inputs, hidden, outputs, rank
    if m + h < n + r:
        return Truth((h * m - h * r + n * r) / 2)
    if n + h < m + r:
        return Truth((h * n - h * r + m * r) / 2)
    if m + n < h + r:
        return Truth(m * n / 2)
    q = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n
    return Truth(q / 8) if (m + h + n + r) % 2 == 0 else Truth((q + 1) / 8, 2)


def deep_linear(widths: Sequence[int], rank: int) -> Truth:
    """Of a product of matrices with `widths` H₀ … H_L and true rank `rank` (Aoyagi 2024)."""
    surplus = sorted(width - rank for width in widths)
    outer = widths[0] + widths[-1]
    for chosen in range(
        2, len(surplus) + 1
    ):  # the set Σ of the theorem is one of the smallest widths
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


@dataclass(frozen=True)
class Model:
    """A target ready to be sampled: its parameters, at w*, and indices of examples (B,) → losses
    (B,).
    """

    parameters: list[nn.Parameter]
    loss: Callable[[Tensor], Tensor]
    examples: int

    def losses(self) -> NDArray[np.float32]:
        """Every example's loss where the parameters stand (N,)."""
        with torch.no_grad():
            return self.loss(torch.arange(self.examples)).float().numpy()


class Target(Protocol):
    @property
    def parameters(self) -> int: ...

    @property
    def truth(self) -> Truth: ...

    @property
    def exact(self) -> bool:
        """Whether `expected` holds to well within 1 %, step size and all."""
        ...

    def model(self, seed: int) -> Model: ...

    def expected(self, setting: Setting, nbeta: float) -> float | None:
        """λ̂ of a perfect estimate with this sampler at this nβ; None where it is not known."""
        ...


def gaussian(setting: Setting, nbeta: float, curvatures_d: NDArray[np.float64]) -> float:
    """λ̂ of ½·Σ hᵢwᵢ² under the very sampler, step size included.

    SGLD: var wᵢ = 1/(aᵢ(1 − εaᵢ/4)), aᵢ = nβ·hᵢ + γ.  SGNHT as devinterp has it, p ← (1 − ξ)(p −
                                                       ε·nβ·hᵢwᵢ) + √(2εA)·N(0, 1), with its
    thermostat at rest at ξ, is an AR(2) process in wᵢ: var wᵢ = 2εA(2 − ξ)/(ξ·bᵢ(4 − 2ξ − bᵢ)), bᵢ
    = (1 − ξ)·ε·nβ·hᵢ, and ξ is where
    the mean of var pᵢ = 2·bᵢ·var wᵢ/(2 − ξ) is ε.  RMSprop: as SGLD with ε → 0, its metric being
                                                    its own.
    """
    eps, stiffness_d = setting.lr, nbeta * curvatures_d
    if setting.sampler == "sgnht":
        diffusion = setting.diffusion or 0.0

        def kinetic_d(xi: float) -> NDArray[np.float64]:
            return 4 * diffusion / (xi * (4 - 2 * xi - (1 - xi) * eps * stiffness_d))  # var pᵢ/ε

        xi = float(
            np.ravel(
                optimize.root_scalar(lambda xi: kinetic_d(xi).mean() - 1, bracket=(1e-9, 0.9)).root
            )[0]
        )
        return float(np.sum(kinetic_d(xi) * (2 - xi) / (4 * (1 - xi))))
    if setting.sampler == "rmsprop":
        eps = 0.0
    total_d = stiffness_d + setting.localization
    return float(0.5 * np.sum(stiffness_d / (total_d * (1 - eps * total_d / 4))))


@dataclass(frozen=True)
class Quadratic:
    """K = ½·Σ hᵢwᵢ², the h spread evenly in logarithm from 1 to 1/condition."""

    parameters: int
    condition: float = 1.0
    exact: bool = field(default=True, init=False)

    @property
    def truth(self) -> Truth:
        return Truth(self.parameters / 2)

    def curvatures(self) -> NDArray[np.float64]:
        return np.geomspace(1, 1 / self.condition, self.parameters)

    def model(self, seed: int) -> Model:
        weight, curvature = (
            nn.Parameter(torch.zeros(self.parameters)),
            torch.from_numpy(self.curvatures()).float(),
        )
        return Model(
            [weight], lambda index_B: (0.5 * (curvature * weight**2).sum()).expand(len(index_B)), 1
        )

    def expected(self, setting: Setting, nbeta: float) -> float:
        return gaussian(setting, nbeta, self.curvatures())


def residual(
    rng: np.random.Generator, examples: int, inputs: int, outputs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inputs (N, inputs) with XᵀX/N = I, and unit noise (N, outputs) with XᵀE = 0.

    So w* is the minimum of the empirical loss too, as it is for a trained model, and K is exact;
    else λ̂ would be lower by nβ/N.
    """
    directions_NxI = np.linalg.qr(rng.standard_normal((examples, inputs)))[0]
    noise_NxO = rng.standard_normal((examples, outputs))
    noise_NxO -= directions_NxI @ (directions_NxI.T @ noise_NxO)
    return (np.sqrt(examples) * directions_NxI).astype(np.float32), noise_NxO.astype(np.float32)


@dataclass(frozen=True)
class LinearRegression:
    """y = w·x + noise, half squared error: regular, λ = d/2. The inputs' variances are spread as
    the curvatures of `Quadratic`.
    """

    parameters: int
    examples: int
    condition: float = 1.0
    exact: bool = field(default=True, init=False)

    @property
    def truth(self) -> Truth:
        return Truth(self.parameters / 2)

    def model(self, seed: int) -> Model:
        rng = np.random.default_rng(seed)
        inputs, noise = map(torch.from_numpy, residual(rng, self.examples, self.parameters, 1))
        inputs *= torch.from_numpy(
            np.sqrt(Quadratic(self.parameters, self.condition).curvatures())
        ).float()
        weight = nn.Parameter(torch.from_numpy(rng.standard_normal(self.parameters)).float())
        labels = inputs @ weight.detach() + noise[:, 0]
        return Model(
            [weight],
            lambda index_B: 0.5 * (inputs[index_B] @ weight - labels[index_B]) ** 2,
            self.examples,
        )

    def expected(self, setting: Setting, nbeta: float) -> float:
        """The noise of the minibatches left out."""
        return Quadratic(self.parameters, self.condition).expected(setting, nbeta)


@dataclass(frozen=True)
class NormalCrossing:
    """K = Σ_copies Π wᵢ^(2kᵢ), in double precision."""

    orders: tuple[int, ...]
    copies: int
    exact: bool = field(default=True, init=False)

    @property
    def parameters(self) -> int:
        return len(self.orders) * self.copies

    @property
    def truth(self) -> Truth:
        return normal_crossing(self.orders).times(self.copies)

    def model(self, seed: int) -> Model:
        weights = nn.Parameter(torch.zeros(len(self.orders), self.copies, dtype=torch.float64))

        def loss(index_B: Tensor) -> Tensor:
            factors = [
                weight ** (2 * order) for weight, order in zip(weights, self.orders, strict=True)
            ]
            return prod(factors[1:], start=factors[0]).sum().expand(len(index_B))

        return Model([weights], loss, 1)

    def expected(self, setting: Setting, nbeta: float) -> float:
        """E[tK] at t = nβ by quadrature over ln|w|, to first order in the step size ε.

        As a function of t it is −d ln Z/d ln t. With w ~ N(0, 1/γ), Z(t) = E[exp(−tK)] has the
        Mellin transform Γ(s)·Π E|wᵢ|^(−2kᵢs), whose poles, at s = (½ + j)/kᵢ, are its terms:
        t^−λ·(ln t)^(m − 1) first, then lower powers of the logarithm, then of t. So two weights of
        k = 1 have Z ∝ eˣ·K₀(x)/√t with x = γ²/8t, and ½ − 1/(ln t + a) up to O(1/t); three ½ −
        2X/(X² + π²), X = ln t + a; and k = 1, 2 have ¼ − c·t^(−1/4). With p ∝ e^(−V) SGLD draws
        from p·(1 + (ε/2)·(|∇V|²/4 − ΔV/2)) up to O(ε²) (the modified measure of the Euler-Maruyama
        scheme; on a quadratic it gives 1/(a(1 − εa/4)) to that order).
        """
        gamma, size = setting.localization, len(self.orders)
        if gamma == 0 and size > 1:
            raise ValueError("a product of weights has no posterior without localisation")
        widest = 9 / np.sqrt(gamma) if gamma else (80 / nbeta) ** (1 / (2 * self.orders[0]))
        axis = np.log(widest) + np.linspace(-18, 0, 900 // size**2)
        weights = [np.exp(grid) for grid in np.meshgrid(*[axis] * size, indexing="ij", sparse=True)]
        loss = nbeta * prod(
            (w ** (2 * k) for w, k in zip(weights, self.orders, strict=True)), start=np.ones(())
        )
        density = prod(weights, start=np.exp(-loss - gamma / 2 * sum(w**2 for w in weights)))
        step = np.ones(())
        for w, k in zip(weights, self.orders, strict=True):
            slope, curvature = (
                loss * 2 * k / w + gamma * w,
                loss * 2 * k * (2 * k - 1) / w**2 + gamma,
            )
            step = step + setting.lr / 2 * (slope**2 / 4 - curvature / 2)
        density = density * step
        return self.copies * float((density * loss).sum() / density.sum())


@dataclass(frozen=True)
class DeepLinear:
    """y = x·W₁⋯W_L + noise, half squared error, W₁⋯W_L of true rank `rank`; two layers are a
    reduced-rank regression.

    w* is the deepest singular point: every layer is `scale` on its first `rank` diagonal places and
    zero elsewhere. The inputs are isotropic, so that this is any w* up to rotation. The copies
    share the inputs.
    """

    widths: tuple[int, ...]
    rank: int
    examples: int
    copies: int = 1
    scale: float = 1.0
    exact: bool = field(default=False, init=False)  # the step size is left out

    @property
    def parameters(self) -> int:
        return self.copies * sum(rows * columns for rows, columns in pairwise(self.widths))

    @property
    def truth(self) -> Truth:
        return deep_linear(self.widths, self.rank).times(self.copies)

    def model(self, seed: int) -> Model:
        outputs = self.widths[-1] * self.copies
        inputs, noise = map(
            torch.from_numpy,
            residual(np.random.default_rng(seed), self.examples, self.widths[0], outputs),
        )
        layers = [nn.Parameter(torch.zeros(self.copies, *shape)) for shape in pairwise(self.widths)]
        with torch.no_grad():
            for layer in layers:
                layer[:, range(self.rank), range(self.rank)] = self.scale

        def product() -> Tensor:
            matrix = layers[0]
            for layer in layers[1:]:
                matrix = matrix @ layer
            return matrix.transpose(0, 1).reshape(self.widths[0], outputs)

        labels = inputs @ product().detach() + noise
        return Model(
            layers,
            lambda index_B: 0.5 * ((inputs[index_B] @ product() - labels[index_B]) ** 2).sum(1),
            self.examples,
        )

    def expected(self, setting: Setting, nbeta: float) -> float | None:
        """Of one hidden layer, step size apart; exact where the true rank is 0, else up to second
        order in γ/nβ.

        The true part decouples: `rank`·(M + N − rank) regular directions, of curvature 2·scale²
        (rank² of them) or scale². What is left is a regression of true rank 0, whose Z(t) =
        ∫exp(−t‖BA‖²/2 − γ(‖A‖² + ‖B‖²)/2) is, B integrated out, an average of Π(t·xᵢ + γ)^(−N/2)
        over the eigenvalues x of AAᵀ, a Wishart matrix.
        """
        if len(self.widths) != 3:
            return None
        return self.copies * two_layers(
            nbeta, setting.localization, self.widths, self.rank, self.scale
        )


def two_layers(
    nbeta: float, gamma: float, widths: tuple[int, ...], rank: int, scale: float
) -> float:
    """What `DeepLinear.expected` says, of one copy."""
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
    """ln E[Π(1 + t·xᵢ)^(−outputs/2)] over the eigenvalues of a Wishart matrix, up to a constant (γ
    = 1).

    By de Bruijn's formula (1955): ∫ Π w(xᵢ)·|Δ(x)| dx is the Pfaffian of aᵢⱼ = ∬ sgn(y −
    x)·pᵢ(x)·pⱼ(y)·w(x)·w(y), for any polynomials pᵢ of degree i, bordered by ∫pᵢw where their
    number is odd. Orthogonal ones keep it well-conditioned up to t of about 1000.
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


@dataclass(frozen=True)
class Bigram:
    """A language model of bigrams: logits of the next of `vocabulary` tokens by a factor of
    `hidden` dimensions, true rank `rank`.

    K is the mean divergence from the true distribution, contexts equally frequent. A shift of all
    logits changes nothing, so this is a reduced-rank regression of vocabulary inputs and vocabulary
    − 1 outputs.
    """

    vocabulary: int
    hidden: int
    rank: int
    copies: int
    scale: float
    exact: bool = field(
        default=False, init=False
    )  # the step size is left out, and all but the curvature of a flat distribution

    @property
    def parameters(self) -> int:
        return self.copies * 2 * self.vocabulary * self.hidden

    @property
    def truth(self) -> Truth:
        return reduced_rank(self.vocabulary, self.hidden, self.vocabulary - 1, self.rank).times(
            self.copies
        )

    def model(self, seed: int) -> Model:
        rng = np.random.default_rng(seed)
        size, used = self.vocabulary, self.scale * (np.arange(self.hidden) < self.rank)
        contexts = np.linalg.qr(rng.standard_normal((size, size)))[0][:, : self.hidden] * used
        tokens = (
            np.linalg.qr(np.c_[np.ones(size), rng.standard_normal((size, self.hidden))])[0][:, 1:]
            * used
        )
        factors = [
            nn.Parameter(torch.from_numpy(np.repeat(matrix[None], self.copies, 0)))
            for matrix in (contexts, tokens.T)
        ]
        true = (factors[0] @ factors[1]).detach().log_softmax(-1)

        def loss(index_B: Tensor) -> Tensor:
            model = (factors[0] @ factors[1]).log_softmax(-1)
            return ((true.exp() * (true - model)).sum() / size).expand(len(index_B))

        return Model(factors, loss, 1)

    def expected(self, setting: Setting, nbeta: float) -> float:
        """That of the regression: near a flat distribution K is half the squared change of the
        logits over vocabulary².
        """
        widths = self.vocabulary, self.hidden, self.vocabulary - 1
        return self.copies * two_layers(
            nbeta / self.vocabulary**2, setting.localization, widths, self.rank, self.scale
        )
