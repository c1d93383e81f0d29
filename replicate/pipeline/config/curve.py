"""Defines the block `curve` of a family, λ̂ along γ and nβ, and how a Hessian is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from replicate.pipeline.config.values import Distinct, Draws, Names, Positive, Several, Strict

Settings = Annotated[tuple[Positive, ...], Field(min_length=1), Distinct]


class Curvature(Strict):
    """How the Hessian at w* is measured (see `replicate.sampling.curvature.spectrum`).

    Attributes:
        windows: windows that are used in each product, at least 4; all if there are fewer.
        probes: random vectors over which traces are averaged, at least 2.
        products: products with the Hessian for each of them.
    """

    windows: Annotated[int, Field(ge=4, le=10**9)]
    probes: Several
    products: Annotated[int, Field(ge=1, le=1000)]


class Curve(Strict):
    """λ̂ of each of `models` at each nβ and each γ, by chains that pass warm down the γ of each nβ.

    The step and the burn-in at each setting follow from the Hessian at w*, and from that where the
    chains are. `models: all` means all of the family.

    Attributes:
        nbeta: several nβ.
        localization: several γ.
        chains: the number of chains.
        draws: the least draws of a chain at each setting; ten relaxation times of λ̂ if those are
            more.
        curvature: how the Hessian is measured; None for `baseline.curvature`, or less.
    """

    models: Names
    nbeta: Settings
    localization: Settings
    chains: Several
    draws: Draws
    curvature: Curvature | None = None
