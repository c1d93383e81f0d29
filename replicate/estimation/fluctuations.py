"""Estimates what the scatter of losses over the posterior tells, beside λ̂ from their mean.

`variance`  (nβ)²·Var[L(w)]. On a plateau nβ·(L(w) − L(w*)) has a gamma distribution of shape λ and
            scale 1, so that this equals λ̂ there, and it needs no loss at w*.
`singular`  ν = (β/2)·V with the functional variance V = Σᵢ Var[ln p(xᵢ|w)] over all examples
            (Watanabe 2010, arXiv 1004.2316). It is d/2 = λ for a regular model that is true, and
            differs from λ for a singular one.

With T labels in an example, whose mean loss is ℓᵢ, and n labels in all, β is nβ/n, V is
n·T·meanᵢ Var[ℓᵢ(w)], and so ν = ½·nβ·T·meanᵢ Var[ℓᵢ(w)].
"""

from __future__ import annotations

import xarray as xr

from replicate.estimation import posterior


def variance(trace: xr.Dataset, nbeta: float) -> xr.DataArray:
    """Returns the contributions to (nβ)²·Var[L(w)] of the draws with halves (shuffle, chain, draw).

    A contribution is the product of the two halves of a minibatch, each less its mean, so that the
    noise of minibatches cancels; `posterior` says what is added because examples are drawn without
    replacement. The loss of a half at w* only takes noise away.

    Args:
        trace: what `sampling.sample` returned, with `sampling` and `task` as attributes.
        nbeta: nβ of the chains.

    Returns:
        The contributions, NaN for a chain that diverged; no draws if no minibatch has halves.
    """
    draws = trace.where(~trace.diverged).sel(draw=slice(0, None))
    halves = nbeta * (draws.half_loss - draws.half_init_loss)
    away = (halves - halves.mean(("shuffle", "chain", "draw"))).dropna("draw", how="all")
    count = max(int(away.isel(half=0).count()), 2)
    product, noise = away.prod("half", skipna=False), away.isel(half=0) - away.isel(half=1)
    return (product + posterior.overlap(trace) * noise**2) * count / (count - 1)


def singular(trace: xr.Dataset, nbeta: float, labels: float) -> xr.DataArray:
    """Returns the contributions to the singular fluctuation ν (shuffle, chain, draw).

    Args:
        trace: with `example_loss` (shuffle, chain, kept, example), the losses of some examples at
            the draws that were kept (nats).
        nbeta: nβ of the chains.
        labels: T, the number of labels in an example.

    Returns:
        The contribution of each draw that was kept. Their error leaves out the choice of examples.
    """
    kept = trace.example_loss.where(~trace.diverged)
    away = kept - kept.mean(("shuffle", "chain", "kept"))
    count = max(int(away.isel(example=0).count()), 2)
    scale = nbeta * labels / 2 * count / (count - 1)
    return scale * (away**2).mean("example", skipna=False).rename(kept="draw")


def functional_variance(fluctuation: float, nbeta: float, n: int) -> float:
    """Returns V = 2·ν·n/nβ of all examples, for the singular fluctuation ν and n labels."""
    return 2 * fluctuation * n / nbeta
