"""Finds the bias of λ̂ that the step ε of Leimkuhler–Matthews makes, before a chain runs and from a
pair of chains.

For a quadratic loss with Hessian H, whose minibatches of B examples have gradients with the noise
covariance Σ/B, a chain has in the direction i of an eigenvector of H, with the curvature h and
a = nβ·h + γ, exactly the variance (Leimkuhler & Matthews 2014, doi 10.1098/rspa.2014.0120)

    s = [1 + ε·nβ²·Σᵢᵢ/(4B·(1 − ε·a/4))] / a

so that λ̂ = ½·nβ·Σᵢ hᵢ·sᵢ is too large, to first order in ε, by

    ε·nβ²·tr[Σ·H(H + α)⁻¹]/(8B),      α = γ/nβ

Σ is that of examples drawn with replacement. If all examples are visited before one comes again,
its slow part is smaller.

Far from w* this can differ. So a pair of chains with the steps ε and ε/2 runs on common noise: the
noise of a step ε is the sum of those of two steps ε/2, and its minibatch is that of the first. The
bias of ε is about twice the difference of λ̂, and what the chains share cancels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from replicate.progress import Advance, silent
from replicate.sampling import lanczos
from replicate.sampling.config import SamplerConfig, SamplingConfig
from replicate.sampling.curvature import Curvature
from replicate.sampling.walkers import Walkers
from replicate.seeds import derive

VISITED = 2  # chains at whose weights the curvature is measured
PRODUCTS = 8  # with the Hessian, at each of them


def rate(curvature: Curvature, nbeta: float, localization: float, batch_size: int) -> float:
    """Returns the bias of λ̂ over ε, for the quadratic that touches the loss at w*.

    The noise is known from the difference of the gradients of two halves of the examples, which is
    one random vector with the covariance 4Σ/N. So the number is a rough one.

    Args:
        curvature: the Hessian's spectrum and the gradient at w*.
        nbeta: nβ.
        localization: γ.
        batch_size: B, the number of examples in a minibatch.

    Returns:
        nβ²·tr[Σ·H(H + α)⁻¹]/(8B), without negative curvatures.
    """
    found = curvature.gradient
    variance = found.examples * max(found.sample_squared - found.squared, 0.0)  # tr(Σ)
    _, share = found.quadrature.mean(
        lambda h: np.maximum(h, 0) / (np.maximum(h, 0) + localization / nbeta)
    )
    return nbeta**2 * variance * float(share) / (8 * batch_size)


def difference(
    walkers: Walkers,
    sampler: SamplerConfig,
    sampling: SamplingConfig,
    advance: Advance,
    *,
    controlled: bool = False,
) -> xr.DataArray:
    """Runs chains with ε and with ε/2 on common noise from where the walkers are.

    Args:
        walkers: the chains, which have taken the steps ε afterwards.
        sampler: Leimkuhler–Matthews with the step ε.
        sampling: nβ, the batch size, and the burn-in and draws of the chains with the step ε.
        advance: is told how many more gradients are computed.
        controlled: whether minibatches have less noise (`replicate.sampling.control`).

    Returns:
        λ̂ with ε minus λ̂ with ε/2 of every draw (shuffle, chain, draw), on the same minibatch.
    """
    fine = walkers.branch()
    twice = replace(sampling, burn_in=2 * sampling.burn_in, draws=2 * sampling.draws)
    halved = fine.run(replace(sampler, lr=sampler.lr / 2), twice, advance, controlled=controlled)
    whole = walkers.run(sampler, sampling, advance, coarse=True, controlled=controlled)
    walkers.gradients += fine.gradients
    every = halved.loss.isel(draw=slice(0, None, 2)).assign_coords(draw=whole.draw)
    return sampling.nbeta * (whole.loss - every).sel(draw=slice(0, None))


def highest(walkers: Walkers, index_N: Tensor, batch_size: int) -> float:
    """Returns the highest curvature of the loss (nats) that is found where the walkers are.

    Args:
        walkers: the chains, of which some are looked at.
        index_N: the examples whose mean loss is differentiated.
        batch_size: the number of examples in a backward pass.
    """
    found = []
    for chain in range(min(VISITED, len(walkers.keys))):
        seed = derive(walkers.noise(*walkers.keys[chain]), "curvature", walkers.rounds)
        generator = torch.Generator().manual_seed(seed)
        with walkers.at(chain) as task:
            vectors = [torch.randn(w.shape, generator=generator) for w in task.parameters]
            vector_D = lanczos.flatten(task, vectors)
            values, _ = lanczos.rule(task, vector_D, index_N, batch_size, PRODUCTS, silent)
            found.append(float(values.max(initial=0.0)))
    return max(found)
