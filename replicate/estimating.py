"""Estimates λ̂ of any model in one call, and λ̂ as a curve over γ.

Example:
    from replicate import llc

    estimate = llc(model, tokens)
    print(estimate)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast, overload

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import nn

from replicate import api, arguments
from replicate.automatic import Search, Settings
from replicate.errors import ArgumentError
from replicate.estimation.curve import Curve, Point
from replicate.estimation.estimate import Estimate
from replicate.models import module
from replicate.models.module import Examples, LossFn, TextLoss
from replicate.progress import progress
from replicate.sampling import curvature as curvatures
from replicate.sampling.gradient import EXAMPLES
from replicate.sampling.walkers import Walkers
from replicate.seeds import derive, whole

HESSIAN = {"examples": 256, "probes": 2, "products": 12}  # of the curvature that settings need


@overload
def llc(model: nn.Module, data: Examples, **settings: Any) -> Estimate: ...
@overload
def llc(model: Iterable[nn.Module], data: Examples, **settings: Any) -> list[Estimate]: ...
def llc(
    model: nn.Module | Iterable[nn.Module],
    data: Examples,
    *,
    nbeta: float | None = None,
    localization: float | None = None,
    lr: float | None = None,
    precision: float = 0.05,
    budget: int = 20_000,
    evaluated: int | None = None,
    **settings: Any,
) -> Estimate | list[Estimate]:
    """Estimates the local learning coefficient λ̂ of a model at its present weights.

    λ̂ is nβ·(E[L(w)] − L(w*)), where the mean is over the posterior around w* (Lau et al. 2023,
    arXiv 2308.12108). Chains of a sampler draw from this posterior. With `nbeta`, `localization`
    and `lr`, chains of fixed length are run, as by `sample`. What is left out is chosen from the
    model (`replicate.automatic` says how), and the chains are as long as `precision` needs.

    Args:
        model: as for `sample`; or several, such as checkpoints of one training, one after the
            other.
        data: as for `sample`.
        nbeta: nβ; None for n/ln n, or less where the gradient at w* asks for it.
        localization: γ; None for the smallest at which the posterior is local.
        lr: the step size ε; None for the largest with little bias.
        precision: the half width of the 95 % interval at which automatic chains end, relative to λ̂.
        budget: the number of gradients of minibatches at which automatic chains end. The default
            takes minutes for a small model; on a busy CPU `torch.set_num_threads(1)` helps.
        evaluated: the number of examples whose losses are computed about twice in a relaxation
            time, for the singular fluctuation; the chains are automatic then.
        **settings: as for `sample`; automatic chains take no `sampler`, `burn_in`, `draws`, knobs.

    Returns:
        An `Estimate`, which has λ̂, its error, diagnostics of the chains, what it measures, advice,
        the trace and a plot; a list of them if `model` is several.

    Raises:
        ArgumentError: an argument is not valid, the loss at w* is not finite, or the budget is too
            small for ten relaxation times.
    """
    if not isinstance(model, nn.Module | str) and isinstance(model, Iterable):
        given = {"nbeta": nbeta, "localization": localization, "lr": lr, "evaluated": evaluated}
        given |= {"precision": precision, "budget": budget}
        return [llc(each, data, **given, **settings) for each in model]
    model = cast(nn.Module, model)
    if not (nbeta is None or localization is None or lr is None or evaluated is not None):
        return Estimate(
            api.sample(model, data, nbeta=nbeta, localization=localization, lr=lr, **settings)
        )
    given = {"nbeta": nbeta, "localization": localization, "lr": lr, "evaluated": evaluated}
    arguments.require(**{name: value for name, value in given.items() if value is not None})
    arguments.require(precision=precision, budget=budget)
    return to_precision(
        model, data, nbeta, localization, lr, False, precision, budget, evaluated, **settings
    )


def to_precision(
    model: nn.Module,
    data: Examples,
    nbeta: float | None,
    localization: float | None,
    lr: float | None,
    controlled: bool,
    precision: float,
    budget: int,
    evaluated: int | None = None,
    **settings: Any,
) -> Estimate:
    """Estimates λ̂ with automatic chains, whatever is given.

    Args:
        controlled: whether a given `lr` is that of chains whose minibatches have less noise
            (`replicate.sampling.control`); where `lr` is None, this is chosen with it.

    The other arguments, the result and the errors are those of `llc`.
    """
    with _searching(model, data, budget, evaluated=evaluated, **settings) as (search, attributes):
        chosen = search.settings(nbeta, localization, lr, controlled)
        trace, notes = search.precise(chosen, precision, fixed_step=lr is not None)
        attributes["baseline"] |= search.at_minimum(chosen.nbeta, chosen.localization)
        notes += search.away(trace, chosen)
        attributes |= {"choices": chosen.reasons + notes, "gradients": search.spent}
    return Estimate(trace.assign_attrs(attributes))


def curve(
    model: nn.Module,
    data: Examples,
    *,
    nbeta: ArrayLike | None = None,
    localization: ArrayLike | None = None,
    alpha: ArrayLike | None = None,
    draws: int = 200,
    budget: int = 20_000,
    **settings: Any,
) -> Curve:
    """Estimates λ̂ along γ, with warm chains that pass down the ladder, for each nβ.

    Where λ̂ has no plateau, it is an effective dimension at the resolution α = γ/nβ, and this curve
    is the result. Points at nβ = n/ln n are marked, n the number of labels: there WBIC estimates
    the free energy (Watanabe 2013, arXiv 1208.6338).

    Args:
        model: as for `sample`.
        data: as for `sample`.
        nbeta: nβ, or several; None for n/ln n, or less where the gradient at w* asks for it.
        localization: γ, or several, the same for each nβ.
        alpha: α = γ/nβ instead, or several, to compare several nβ at the same α. Without both, γ
            falls from where the loss hardly rises by steps of √10 while the chains stay near w*.
        draws: the least number of draws of each chain at each γ, after a burn-in of its own; there
            are at least ten relaxation times of λ̂.
        budget: the number of gradients of minibatches at which a γ that is not given falls no more.
        **settings: the arguments that automatic chains of `llc` take.

    Returns:
        A `Curve`, which has a point for each (nβ, γ) with its regime, and a plot.

    Raises:
        ArgumentError: an argument is not valid, or the loss at w* is not finite.
    """
    if localization is not None and alpha is not None:
        raise ArgumentError("localization, alpha: give one of them")
    for name in ("lr", "precision", "evaluated", "burn_in"):
        if name in settings:
            raise ArgumentError(f"{name}: a curve does not take it; leave it out")
    lists = {"nbeta": nbeta, "localization": localization, "alpha": alpha}
    values = {name: _several(name, each) for name, each in lists.items()}
    arguments.require(draws=draws, budget=budget)
    points: list[Point] = []
    natural = largest = math.nan
    for one in values["nbeta"] or [None]:
        with _searching(model, data, budget, **settings) as (search, attributes):
            natural, largest = search.natural, search.curvature.largest_nbeta()
            b = min(natural, largest) if one is None else one
            gammas = values["localization"] or [b * each for each in values["alpha"]]
            for chosen, trace in _rungs(search, b, gammas, draws):
                known = attributes["baseline"] | search.at_minimum(b, chosen.localization)
                estimate = Estimate(trace.assign_attrs(attributes | {"baseline": known}))
                harmonic = known["harmonic"][0], known["harmonic"][1]
                points.append(Point(b, chosen.localization, estimate, harmonic))
    if not points:
        raise ArgumentError("localization: the chains do not stay near w* at any γ; give some")
    return Curve(points, natural, largest)


def _several(name: str, values: ArrayLike | None) -> list[float]:
    if values is None:
        return []
    found = np.atleast_1d(np.asarray(values)).tolist()
    if not found:
        raise ArgumentError(f"{name}: give at least one")
    for each in found:
        arguments.require(**{name: each})
    return found


def _rungs(
    search: Search, nbeta: float, gammas: Sequence[float], draws: int
) -> Iterator[tuple[Settings, xr.Dataset]]:
    """Yields the settings and the trace at each γ, the largest first."""
    if not gammas:
        for chosen, trace in search.ladder(nbeta, None, draws):
            yield chosen, trace
            if search.spent >= search.budget:
                return
    for gamma in sorted(set(gammas), reverse=True):
        chosen = search.settings(nbeta, gamma, None)
        yield chosen, search.rung(chosen, draws)


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
    compiled: bool = False,
    seed: int = 0,
    show_progress: bool = True,
    evaluated: int | None = None,
    **fixed: Any,
) -> Iterator[tuple[Search, dict[str, Any]]]:
    """Measures the model at w* and sets chains up; gives what its trace must be described by."""
    if fixed:
        raise ArgumentError(
            f"{next(iter(fixed))}: only chains of fixed settings take it; give nbeta, localization"
            " and lr to llc"
        )
    arguments.require(shuffles=shuffles, chains=chains)
    arguments.total(shuffles, chains)
    seed = whole(seed)
    parts, loss_fn, guess = module.examples(model, data, loss, loss_fn)
    examples = len(parts[0])
    size = arguments.batch(batch_size, microbatch_size, examples)
    labels = examples * (parts[0].shape[1] - 1 if guess and loss == "tokens" else 1)
    if evaluated is not None and evaluated > examples:
        raise ArgumentError(f"evaluated = {evaluated}: there are {examples} examples; lower it")

    def some(count: int, name: str) -> torch.Tensor:
        order_N = np.random.default_rng(derive(seed, name)).permutation(examples)
        return torch.from_numpy(order_N[:count])

    chosen = some(HESSIAN["examples"], "curvature")
    hessian = {name: HESSIAN[name] for name in ("probes", "products")}
    slope = some(EXAMPLES, "gradient")
    total = curvatures.work(len(chosen), **hessian, gradient=len(slope)) + examples
    with (
        module.untouched(model),
        progress("λ̂", total + min(budget, 10**9) * size, show_progress) as tell,
    ):
        task = module.task(model, parts, loss_fn, compiled)
        losses_N = module.losses(task, examples, size, tell)
        found = curvatures.measure(
            task,
            chosen,
            gradient_M=slope,
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
        attributes |= {"seed": seed, "task": attributes["task"] | {"labels": labels}}
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
            chosen,
            None if evaluated is None else some(evaluated, "evaluated"),
        )
        yield search, attributes
