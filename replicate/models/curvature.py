"""Measures the curvature and the gradient of any model's loss in one call."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from replicate.errors import ArgumentError
from replicate.models import module
from replicate.models.module import Examples, LossFn, TextLoss
from replicate.progress import progress
from replicate.sampling.curvature import Curvature, measure, work
from replicate.seeds import derive, whole

LEAST = {"windows": 4, "probes": 2, "products": 1, "batch_size": 1}


def curvature(
    model: nn.Module,
    data: Examples,
    *,
    loss: TextLoss = "tokens",
    loss_fn: LossFn | None = None,
    windows: int = 1024,
    probes: int = 4,
    products: int = 20,
    batch_size: int = 32,
    seed: int = 0,
    show_progress: bool = True,
) -> Curvature:
    """Measures the Hessian H and the gradient g of the loss at the current weights w* of a model.

    They tell λ̂ of the quadratic that touches the loss at w*, for any nβ and γ, without a chain.
    Only the parameters that require a gradient count. The model is measured in eval mode and in its
    own dtype, and is as it was before afterwards. On their device, `products` vectors of the size
    of these parameters are held in float32.

    Args:
        model: as for `sample`.
        data: as for `sample`, with at least 4 examples.
        loss: as for `sample`.
        loss_fn: as for `sample`; it must have a second derivative.
        windows: the number of examples, drawn at random; all if there are fewer.
        probes: the number of random vectors over which traces are averaged, at least 2.
        products: the number of products with H for each vector. With all examples there are
            `products` × (`probes` + 2) of them, and `products` × `probes` with a quarter.
        batch_size: the number of examples in a backward pass; a smaller one needs less memory.
        seed: the same seed gives the same result on the same machine.
        show_progress: whether a progress bar is shown.

    Returns:
        A `Curvature`, which has the trace of H, its lowest and highest curvature, ‖g‖², and λ̂ of
        the quadratic in two parts.

    Raises:
        ArgumentError: an argument is not valid, or the loss is not finite or not curved.

    Example:
        found = curvature(model, tokens)
        print(found)
        found.harmonic(nbeta=30, localization=1e4)
    """
    counts = {"windows": windows, "probes": probes, "products": products, "batch_size": batch_size}
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ArgumentError(f"{name} = {value!r}: must be a whole number")
        if value < LEAST[name]:
            raise ArgumentError(f"{name} = {value}: must not be below {LEAST[name]}; raise it")
    seed = whole(seed)
    parts, loss_fn, _ = module.examples(model, data, loss, loss_fn)
    if len(parts[0]) < LEAST["windows"]:
        raise ArgumentError(f"data: {len(parts[0])} examples; give at least {LEAST['windows']}")
    order = np.random.default_rng(derive(seed, "windows")).permutation(len(parts[0]))[:windows]
    chosen = [part[torch.from_numpy(order).to(part.device)] for part in parts]
    examples = len(order)
    total = examples + work(examples, probes, products, examples)
    with module.untouched(model), progress("curvature", total, show_progress) as advance:
        task = module.task(model, chosen, loss_fn)
        module.losses(task, examples, batch_size, advance)
        return measure(
            task,
            torch.arange(examples),
            batch_size=batch_size,
            probes=probes,
            products=products,
            seed=seed,
            advance=advance,
        )
