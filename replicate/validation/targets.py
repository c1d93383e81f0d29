"""Defines models with known learning coefficient λ and multiplicity m: targets for the sampler.

Each target has these members:

    parameters   the number of parameters
    truth        the known λ and m
    model        builds the model, at w*, with the data of a seed
    expected     the λ̂ that a perfect sampler would find at a finite nβ and localisation; None if it
                 is unknown
    exact        whether the error of `expected` is well below 1 % at the step size that is used

K(w) = L(w) − L(w*) is the excess of the mean loss. The labels of regressions have noise of variance
1. `copies` is the number of independent copies of a model that are sampled side by side; they give
many samples for the cost of one step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from math import prod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from replicate.sampling import SamplerConfig, Task
from replicate.validation import theory
from replicate.validation.theory import Truth


@dataclass(frozen=True, kw_only=True)
class Model(Task):
    """Holds the task of a target and the number of its examples; the parameters are at w*."""

    examples: int

    def losses(self) -> NDArray[np.float32]:
        """Returns the loss of each example at the current parameters (N,)."""
        with torch.no_grad():
            return self.loss(torch.arange(self.examples)).float().numpy()


@dataclass(frozen=True)
class Quadratic:
    """Defines K = ½·Σ hᵢwᵢ², with the hᵢ spaced logarithmically from 1 to 1/condition."""

    parameters: int
    condition: float = 1.0
    exact: ClassVar[bool] = True

    @property
    def truth(self) -> Truth:
        return Truth(self.parameters / 2)

    def curvatures(self) -> NDArray[np.float64]:
        """Returns the curvatures hᵢ (parameters,)."""
        return np.geomspace(1, 1 / self.condition, self.parameters)

    def model(self, seed: int) -> Model:
        weight = nn.Parameter(torch.zeros(self.parameters))
        curvature = torch.from_numpy(self.curvatures()).float()

        def loss(index_B: Tensor) -> Tensor:
            return (0.5 * (curvature * weight**2).sum()).expand(len(index_B))

        return Model(loss=loss, parameters=[weight], examples=1)

    def expected(self, sampler: SamplerConfig, nbeta: float) -> float:
        return theory.gaussian(sampler, nbeta, self.curvatures())


def residual(
    rng: np.random.Generator, examples: int, inputs: int, outputs: int
) -> tuple[Tensor, Tensor]:
    """Draws inputs X (N, inputs) with XᵀX/N = I, and unit noise E (N, outputs) with XᵀE = 0.

    With such data, w* also minimises the empirical loss, as in a trained model, and K is exact.
    Otherwise λ̂ of a regular model would be lower by a fraction nβ/N.
    """
    directions_NxI = np.linalg.qr(rng.standard_normal((examples, inputs)))[0]
    noise_NxO = rng.standard_normal((examples, outputs))
    noise_NxO -= directions_NxI @ (directions_NxI.T @ noise_NxO)
    inputs_NxI = (np.sqrt(examples) * directions_NxI).astype(np.float32)
    return torch.from_numpy(inputs_NxI), torch.from_numpy(noise_NxO.astype(np.float32))


@dataclass(frozen=True)
class LinearRegression(Quadratic):
    """Defines y = w·x + noise with half the squared error as loss: a regular model, λ = d/2.

    K is that of `Quadratic` around w*, because the inputs have its curvatures as variances.
    `expected` ignores the noise of the minibatches.
    """

    examples: int = field(kw_only=True)

    def model(self, seed: int) -> Model:
        rng = np.random.default_rng(seed)
        inputs, noise = residual(rng, self.examples, self.parameters, 1)
        inputs *= torch.from_numpy(np.sqrt(self.curvatures())).float()
        weight = nn.Parameter(torch.from_numpy(rng.standard_normal(self.parameters)).float())
        labels = inputs @ weight.detach() + noise[:, 0]

        def loss(index_B: Tensor) -> Tensor:
            return 0.5 * (inputs[index_B] @ weight - labels[index_B]) ** 2

        return Model(loss=loss, parameters=[weight], examples=self.examples)


@dataclass(frozen=True)
class NormalCrossing:
    """Defines K = Σ_copies Π wᵢ^(2kᵢ), in double precision; `orders` are the kᵢ."""

    orders: tuple[int, ...]
    copies: int
    exact: ClassVar[bool] = True

    @property
    def parameters(self) -> int:
        return len(self.orders) * self.copies

    @property
    def truth(self) -> Truth:
        return theory.normal_crossing(self.orders).times(self.copies)

    def model(self, seed: int) -> Model:
        weights = nn.Parameter(torch.zeros(len(self.orders), self.copies, dtype=torch.float64))

        def loss(index_B: Tensor) -> Tensor:
            powers = [w ** (2 * k) for w, k in zip(weights, self.orders, strict=True)]
            return prod(powers[1:], start=powers[0]).sum().expand(len(index_B))

        return Model(loss=loss, parameters=[weights], examples=1)

    def expected(self, sampler: SamplerConfig, nbeta: float) -> float:
        return self.copies * theory.crossing(sampler, nbeta, self.orders)


@dataclass(frozen=True)
class DeepLinear:
    """Defines y = x·W₁⋯W_L + noise with half the squared error as loss.

    At w*, the product W₁⋯W_L has rank `rank`. Two layers are a reduced-rank regression. w* is the
    most singular point: each layer is `scale` on its first `rank` diagonal elements and 0
    elsewhere. The inputs are isotropic, so a rotation of w* changes nothing. The copies share the
    inputs.
    """

    widths: tuple[int, ...]
    rank: int
    examples: int
    copies: int = 1
    scale: float = 1.0
    exact: ClassVar[bool] = False  # `expected` ignores the step size

    @property
    def parameters(self) -> int:
        return self.copies * sum(rows * columns for rows, columns in pairwise(self.widths))

    @property
    def truth(self) -> Truth:
        return theory.deep_linear(self.widths, self.rank).times(self.copies)

    def model(self, seed: int) -> Model:
        outputs = self.widths[-1] * self.copies
        rng = np.random.default_rng(seed)
        inputs, noise = residual(rng, self.examples, self.widths[0], outputs)
        layers = [nn.Parameter(torch.zeros(self.copies, *shape)) for shape in pairwise(self.widths)]
        with torch.no_grad():
            for layer in layers:
                layer[:, range(self.rank), range(self.rank)] = self.scale

        def product() -> Tensor:
            return reduce(torch.matmul, layers).transpose(0, 1).reshape(self.widths[0], outputs)

        labels = inputs @ product().detach() + noise

        def loss(index_B: Tensor) -> Tensor:
            return 0.5 * ((inputs[index_B] @ product() - labels[index_B]) ** 2).sum(1)

        return Model(loss=loss, parameters=layers, examples=self.examples)

    def expected(self, sampler: SamplerConfig, nbeta: float) -> float | None:
        """Returns λ̂ by `theory.two_layers`; None if there are not two layers."""
        if len(self.widths) != 3:
            return None
        gamma = sampler.localization
        return self.copies * theory.two_layers(nbeta, gamma, self.widths, self.rank, self.scale)


@dataclass(frozen=True)
class Bigram:
    """Defines a bigram language model, whose logits are a product of rank `hidden` at most.

    The loss is K itself: the mean Kullback–Leibler divergence from the true distribution, whose
    logits have rank `rank`. All contexts are equally frequent. Adding the same number to all logits
    of a context changes nothing. So λ is that of a reduced-rank regression with V inputs and V − 1
    outputs, where V is the size of the vocabulary.
    """

    vocabulary: int
    hidden: int
    rank: int
    copies: int
    scale: float
    # `expected` ignores the step size and uses the curvature at a flat distribution
    exact: ClassVar[bool] = False

    @property
    def widths(self) -> tuple[int, int, int]:
        """The widths of the corresponding regression."""
        return self.vocabulary, self.hidden, self.vocabulary - 1

    @property
    def parameters(self) -> int:
        return self.copies * 2 * self.vocabulary * self.hidden

    @property
    def truth(self) -> Truth:
        return theory.deep_linear(self.widths, self.rank).times(self.copies)

    def model(self, seed: int) -> Model:
        rng = np.random.default_rng(seed)
        size, used = self.vocabulary, self.scale * (np.arange(self.hidden) < self.rank)
        contexts = np.linalg.qr(rng.standard_normal((size, size)))[0][:, : self.hidden] * used
        others = np.linalg.qr(np.c_[np.ones(size), rng.standard_normal((size, self.hidden))])[0]
        tokens = others[:, 1:] * used
        factors = [
            nn.Parameter(torch.from_numpy(np.repeat(matrix[None], self.copies, 0)))
            for matrix in (contexts, tokens.T)
        ]
        true = (factors[0] @ factors[1]).detach().log_softmax(-1)

        def loss(index_B: Tensor) -> Tensor:
            model = (factors[0] @ factors[1]).log_softmax(-1)
            return ((true.exp() * (true - model)).sum() / size).expand(len(index_B))

        return Model(loss=loss, parameters=factors, examples=1)

    def expected(self, sampler: SamplerConfig, nbeta: float) -> float:
        """Returns λ̂ of the corresponding regression.

        Near a flat distribution, K is the squared change of the logits, divided by 2·vocabulary².
        """
        t, gamma = nbeta / self.vocabulary**2, sampler.localization
        return self.copies * theory.two_layers(t, gamma, self.widths, self.rank, self.scale)


Target = Quadratic | NormalCrossing | DeepLinear | Bigram
