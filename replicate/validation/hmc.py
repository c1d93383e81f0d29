"""Samples the localised posterior with Hamiltonian Monte Carlo, the reference for small models.

    H(w, p) = nβ·(L(w) − L(w*)) + (γ/2)·|w − w*|² + |p|²/2

A draw is a fresh momentum p ~ N(0, I), some leapfrog steps, and acceptance with probability
min(1, exp(−ΔH)) (Duane et al. 1987; Neal 2011, arXiv 1206.1901). L is the loss over all examples.
Unlike SGLD it has no bias at any step size, but every gradient takes all examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

JITTER = 0.2  # each trajectory's step is uniform within this share, against periodic orbits


@dataclass(frozen=True)
class Drawn:
    """Holds the draws of one chain.

    Attributes:
        excess: U = nβ·(L(w) − L(w*)) of each draw, (T,); λ̂ is its mean.
        accepted: the share of trajectories that were accepted; 0.6 to 0.9 is healthy.
        gradients: the number of gradients of the whole loss.
    """

    excess: NDArray[np.float64]
    accepted: float
    gradients: int


def run(
    loss: Callable[[Tensor], Tensor],
    anchor: Tensor,
    *,
    nbeta: float,
    localization: float,
    step: float,
    leaps: int,
    draws: int,
    burn_in: int,
    seed: int,
) -> Drawn:
    """Runs a chain from w*.

    Args:
        loss: takes weights (d,) and returns the mean loss of all examples, a scalar.
        anchor: w*, (d,); float64 keeps the acceptance exact.
        nbeta: nβ.
        localization: γ.
        step: the leapfrog step, below 2/√a where a is the largest curvature of H in w.
        leaps: the number of leapfrog steps of a trajectory.
        draws: the number of trajectories after the burn-in.
        burn_in: the number of trajectories before.
        seed: the seed of momenta, steps and acceptance.
    """
    generator = torch.Generator().manual_seed(seed)
    at_anchor = float(loss(anchor))

    def evaluated(w: Tensor) -> tuple[float, Tensor]:
        """Returns U and the gradient of the potential energy."""
        leaf = w.detach().requires_grad_()
        value = loss(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        force = nbeta * slope + localization * (w - anchor)
        return nbeta * (float(value.detach()) - at_anchor), force

    w = anchor.detach().clone()
    excess, force = evaluated(w)
    found, accepted = np.empty(draws), 0
    for draw in range(-burn_in, draws):
        jitter, chance = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        eps = step * (1 + JITTER * (2 * jitter - 1))
        p = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        there, new, push, speed = w, excess, force, p
        for _ in range(leaps):
            speed = speed - eps / 2 * push
            there = there + eps * speed
            new, push = evaluated(there)
            speed = speed - eps / 2 * push

        def pull(at: Tensor) -> float:
            return localization / 2 * float((at - anchor).square().sum())

        before = excess + pull(w) + float(p.square().sum()) / 2
        after = new + pull(there) + float(speed.square().sum()) / 2
        if np.log(chance) < before - after:  # false if `after` is not finite
            w, excess, force = there, new, push
            accepted += draw >= 0
        if draw >= 0:
            found[draw] = excess
    return Drawn(found, accepted / draws, 1 + leaps * (burn_in + draws))
