"""Estimates λ̂ of any model in one call, and λ̂ as a curve over γ.

Example:
    from replicate import llc

    estimate = llc(model, tokens)
    print(estimate)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from replicate import api, arguments
from replicate.automatic import Search
from replicate.errors import ArgumentError
from replicate.estimation.curve import Curve, Point
from replicate.estimation.estimate import Estimate
from replicate.models import module
from replicate.models.module import Examples, LossFn, TextLoss
from replicate.progress import progress
from replicate.sampling import curvature as curvatures
from replicate.sampling.walkers import Walkers
from replicate.seeds import derive, whole

HESSIAN = {"examples": 256, "probes": 2, "products": 12}  # of the curvature that settings need


def llc(
    model: nn.Module,
    data: Examples,
    *,
    nbeta: float | None = None,
    localization: float | None = None,
    lr: float | None = None,
    precision: float = 0.05,
    budget: int = 20_000,
    **settings: Any,
) -> Estimate:
    """Estimates the local learning coefficient λ̂ of a model at its present weights.

    λ̂ is nβ·(E[L(w)] − L(w*)), where the mean is over the posterior around w* (Lau et al. 2023,
    arXiv 2308.12108). Chains of a sampler draw from this posterior. With `nbeta`, `localization`
    and `lr`, chains of fixed length are run, as by `sample`. What is left out is chosen from the
    model (`replicate.automatic` says how), and the chains are as long as `precision` needs.

    Args:
        model: as for `sample`.
        data: as for `sample`.
        nbeta: nβ; None for n/ln n, or less where the gradient at w* asks for it.
        localization: γ; None for the smallest at which the posterior is local.
        lr: the step size ε; None for the largest with little bias.
        precision: the half width of the 95 % interval at which automatic chains end, relative to λ̂.
        budget: the number of gradients of minibatches at which automatic chains end.
        **settings: the other arguments of `sample`; automatic chains take `loss`, `loss_fn`,
            `shuffles`, `chains`, `batch_size`, `microbatch_size`, `seed` and `show_progress`.

    Returns:
        An `Estimate`, which has λ̂, its error, diagnostics of the chains, what it measures, advice,
        the trace and a plot.

    Raises:
        ArgumentError: an argument is not valid, the loss at w* is not finite, or the budget is too
            small for ten relaxation times.
    """
    if nbeta is not None and localization is not None and lr is not None:
        return Estimate(
            api.sample(model, data, nbeta=nbeta, localization=localization, lr=lr, **settings)
        )
    given = {"nbeta": nbeta, "localization": localization, "lr": lr}
    arguments.require(**{name: value for name, value in given.items() if value is not None})
    arguments.require(precision=precision, budget=budget)
    with _searching(model, data, budget, **settings) as (search, attributes):
        chosen = search.settings(nbeta, localization, lr)
        trace, notes = search.precise(chosen, precision, fixed_step=lr is not None)
        with suppress(ArgumentError):  # negative curvature: no Gaussian has it
            part = search.curvature.gradient_part(chosen.nbeta, chosen.localization)
            attributes["baseline"]["gradient_part"] = list(part)
    return Estimate(trace.assign_attrs(attributes, choices=chosen.reasons + notes))


def curve(
    model: nn.Module,
    data: Examples,
    *,
    nbeta: ArrayLike,
    localization: ArrayLike,
    draws: int = 200,
    **settings: Any,
) -> Curve:
    """Estimates λ̂ along γ, with warm chains that pass down the ladder, for each nβ.

    Where λ̂ has no plateau, it is an effective dimension at the resolution α = γ/nβ, and this curve
    is the result.

    Args:
        model: as for `sample`.
        data: as for `sample`.
        nbeta: nβ, or several.
        localization: γ, or several.
        draws: the number of draws of each chain at each γ, after a burn-in of its own.
        **settings: the arguments that automatic chains of `llc` take.

    Returns:
        A `Curve`, which has a point for each (nβ, γ) with its regime, and a plot.

    Raises:
        ArgumentError: an argument is not valid, or the loss at w* is not finite.
    """
    nbetas, gammas = (np.atleast_1d(np.asarray(x)).tolist() for x in (nbeta, localization))
    if not nbetas or not gammas:
        raise ArgumentError("nbeta, localization: give at least one of each")
    for one in nbetas:
        arguments.require(nbeta=one)
    for one in gammas:
        arguments.require(localization=one)
    gammas = sorted(set(gammas), reverse=True)
    arguments.require(draws=draws)
    points: list[Point] = []
    for one in nbetas:
        with _searching(model, data, 10**12, **settings) as (search, attributes):
            for gamma in gammas:
                chosen = search.settings(one, gamma, None)
                trace = search.walk(chosen, chosen.relaxation * 5 // 2, draws)
                estimate = Estimate(trace.assign_attrs(attributes))
                try:
                    harmonic = search.curvature.harmonic(one, gamma)
                except ArgumentError:  # negative curvature: no Gaussian has it
                    harmonic = (float("nan"), float("nan"))
                points.append(Point(one, gamma, estimate, harmonic))
    return Curve(points)


@contextmanager
def _searching(
    model: nn.Module,
    data: Examples,
    budget: int,
    *,
    loss: TextLoss = "tokens",
    loss_fn: LossFn | None = None,
    shuffles: int = 1,
    chains: int = 4,
    batch_size: int | None = None,
    microbatch_size: int | None = None,
    seed: int = 0,
    show_progress: bool = True,
    **fixed: Any,
) -> Iterator[tuple[Search, dict[str, Any]]]:
    """Measures the model at w* and sets chains up; gives what its trace must be described by."""
    if fixed:
        raise ArgumentError(
            f"{next(iter(fixed))}: only chains of fixed settings take it; give nbeta, localization"
            " and lr, too"
        )
    arguments.require(shuffles=shuffles, chains=chains)
    arguments.total(shuffles, chains)
    seed = whole(seed)
    parts, loss_fn, guess = module.examples(model, data, loss, loss_fn)
    examples = len(parts[0])
    size = arguments.batch(batch_size, microbatch_size, examples)
    labels = examples * (parts[0].shape[1] - 1 if guess and loss == "tokens" else 1)
    chosen = np.random.default_rng(derive(seed, "curvature")).permutation(examples)
    chosen = chosen[: HESSIAN["examples"]]
    hessian = {name: HESSIAN[name] for name in ("probes", "products")}
    total = curvatures.work(len(chosen), **hessian, gradient=True) + examples
    with (
        module.untouched(model),
        progress("λ̂", total + min(budget, 10**9) * size, show_progress) as tell,
    ):
        task = module.task(model, parts, loss_fn)
        losses_N = module.losses(task, examples, size, tell)
        found = curvatures.measure(
            task,
            torch.from_numpy(chosen),
            batch_size=size,
            **hessian,
            seed=derive(seed, "probes"),
            advance=tell,
        )
        walkers = Walkers(
            task,
            losses_N,
            shuffles,
            chains,
            order=lambda s: np.random.default_rng(derive(seed, "order", s)).permutation(examples),
            noise=lambda s, c: derive(seed, "noise", s, c),
        )
        attributes = api.described(model, parts, loss if guess else loss_fn, guess, losses_N, task)
        attributes["seed"] = seed
        attributes["baseline"] |= {
            "gradient_squared": list(found.gradient_squared),
            "trace": list(found.trace),
            "largest_nbeta": found.largest_nbeta(),
        }
        search = Search(
            walkers,
            found,
            attributes["baseline"]["loss"],
            guess,
            labels,
            size,
            microbatch_size,
            budget,
            lambda steps=1, note="": tell(steps * size, note),
        )
        yield search, attributes
