"""Samples any model in one call, and computes its baseline; calibrates on models of known λ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from replicate import arguments
from replicate.data import tensors
from replicate.errors import ArgumentError
from replicate.models import generation, module
from replicate.models.module import Examples, LossFn, TextLoss
from replicate.progress import progress, silent
from replicate.sampling import SamplingConfig, Task, engine
from replicate.sampling.samplers import Sampler
from replicate.sampling.samplers.sgld import SGLD
from replicate.seeds import derive, whole
from replicate.validation import calibration, cases


def sample(
    model: nn.Module,
    data: Examples,
    *,
    nbeta: float,
    localization: float,
    lr: float,
    loss: TextLoss = "tokens",
    loss_fn: LossFn | None = None,
    sampler: type[Sampler] | str = SGLD,
    shuffles: int = 1,
    chains: int = 4,
    burn_in: int = 200,
    draws: int = 200,
    batch_size: int | None = None,
    microbatch_size: int | None = None,
    compiled: bool = False,
    seed: int = 0,
    show_progress: bool = True,
    **knobs: float,
) -> xr.Dataset:
    """Runs `shuffles` × `chains` chains of a sampler around the current weights w* of a model.

    Only the parameters that require a gradient move. Afterwards they are at w* again, and the model
    is as it was before. The model is sampled in eval mode, in its own dtype.

    Args:
        model: takes tokens (B, L) and returns logits (B, L, V) or an object that has them as
            `logits`; with `loss_fn`, any module.
        data: tokens (N, L); with `loss_fn`, one or more tensors of N examples each.
        nbeta: nβ, the inverse temperature times the number of examples.
        localization: γ, the pull towards w*.
        lr: the step size ε.
        loss: `tokens` for the mean loss of all tokens but the first, `last` for the loss of the
            last token; unused with `loss_fn`.
        loss_fn: takes the model and a batch of each tensor of `data`, and returns the loss of each
            example (B,).
        sampler: the class `SGLD`, `SGNHT`, `RMSpropSGLD` or `LeimkuhlerMatthews`, or its name.
        shuffles: number of random orders of the examples.
        chains: number of chains in each shuffle.
        burn_in: steps of a chain before the first draw.
        draws: steps of a chain after the burn-in, which estimates use.
        batch_size: examples in a step's minibatch; by default 32, or all if there are fewer.
        microbatch_size: examples in one backward pass; None for the whole minibatch.
        compiled: whether torch compiles the forward and backward pass of the steps, which needs gcc
            for a GPU, g++ for a CPU, and up to a minute. A GPU then repeats each step as one CUDA
            graph, so the loss must depend on tensors alone. On a CPU it hardly pays.
        seed: the same seed gives the same trace on the same machine.
        show_progress: whether a progress bar is shown.
        **knobs: other hyperparameters; `SamplerConfig` describes them. SGLD and RMSpropSGLD take
            `weight_decay`, `bounding_box` and `noise_level`; LeimkuhlerMatthews takes
            `stationary` instead of `noise_level`. SGNHT takes `diffusion` (0.01 by
            default), `noise_diffusion` and `bounding_box`; its `localization` must be 0.

    Returns:
        A dataset with `loss`, `init_loss` and `seconds` (shuffle, chain, draw), and `diverged`
        (shuffle, chain). `init_loss` is the loss of the same minibatch at w*. Losses are in nats,
        or in the unit of `loss_fn`. The steps of the burn-in have negative numbers as `draw`. The
        attributes record the model, the data, the sampler and the seed.

    Raises:
        ArgumentError: an argument is not valid, or the loss at w* is not finite.
    """
    arguments.require(shuffles=shuffles, chains=chains, draws=draws, lr=lr, nbeta=nbeta)
    arguments.require(least=0, burn_in=burn_in, localization=localization)
    arguments.total(shuffles, chains, burn_in + draws)
    seed = whole(seed)
    config = arguments.config(sampler, lr, localization, knobs)
    parts, loss_fn, guess = module.examples(model, data, loss, loss_fn)
    examples = len(parts[0])
    size = arguments.batch(batch_size, microbatch_size, examples)
    if config.sampler == "rmsprop" and not burn_in:
        raise ArgumentError("burn_in = 0: RMSpropSGLD adapts during the burn-in; raise it")
    counts = {"batch_size": size, "shuffles": shuffles, "chains": chains}
    counts |= {"burn_in": burn_in, "draws": draws}
    whole_numbers: dict[str, Any] = {name: int(count) for name, count in counts.items()}
    sampling = SamplingConfig(float(nbeta), **whole_numbers, microbatch_size=microbatch_size)
    total = examples + shuffles * chains * sampling.steps * size
    with (
        module.untouched(model),
        progress("λ̂", total, show_progress) as advance,
    ):
        task = module.task(model, parts, loss_fn, compiled)
        losses_N = module.losses(task, examples, size, advance)
        trace = engine.sample(
            task,
            config,
            sampling,
            losses_N,
            order=lambda s: np.random.default_rng(derive(seed, "order", s)).permutation(examples),
            noise=lambda s, c: derive(seed, "noise", s, c),
            advance=lambda steps=1, note="": advance(steps * size, note),
        )
    return trace.assign_attrs(
        described(model, parts, loss if guess else loss_fn, guess, losses_N, task),
        seed=seed,
        sampler=asdict(config),
        sampling=asdict(sampling),
    )


def described(
    model: nn.Module,
    parts: module.Data,
    loss: TextLoss | LossFn,
    guess: float | None,
    losses_N: NDArray[np.float32],
    task: Task,
) -> dict[str, Any]:
    """Returns the attributes of a trace that say what was sampled."""
    plain = (p.float() if p.dtype == torch.bfloat16 else p for p in parts)  # NumPy has no bfloat16
    arrays = {str(i): part.detach().cpu().numpy() for i, part in enumerate(plain)}
    found = {
        "model": getattr(model, "name_or_path", "") or type(model).__name__,
        "task": {
            "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", "loss_fn"),
            "parameters": module.count(model),
            "sampled_parameters": sum(task.sizes),
            "examples": len(parts[0]),
            "data": tensors.fingerprint(arrays),
        },
        "baseline": {"loss": float(losses_N.mean(dtype=np.float64))},
    }
    return found | ({"guess": guess} if guess else {})


def baseline(
    model: nn.Module,
    data: Examples,
    *,
    loss: TextLoss = "tokens",
    loss_fn: LossFn | None = None,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """Returns the loss of each example (N,) at the current weights, in nats.

    The arguments are those of `sample`; `batch_size` is the number of examples in a forward pass.

    Raises:
        ArgumentError: the data do not fit the model, or a loss is not finite.
    """
    arguments.require(batch_size=batch_size)
    parts, loss_fn, _ = module.examples(model, data, loss, loss_fn)
    with module.untouched(model):
        return module.losses(module.task(model, parts, loss_fn), len(parts[0]), batch_size, silent)


def sample_text(
    model: nn.Module,
    windows: int,
    length: int,
    *,
    seed: int = 0,
    batch_size: int = 64,
    start: generation.Start = None,
    show_progress: bool = True,
) -> NDArray[np.int64]:
    """Samples text from a language model itself, at whose weights w* is an exact minimum.

    On text of another origin, w* need not be a minimum of the loss, and λ̂ can be negative. Each
    token here is drawn from the model's full distribution (temperature 1) given the tokens before
    it. The expected loss of such a token is least at w*, for any distribution of the first token,
    because the loss does not count the first token. So `start` is free: it changes which contexts
    occur, and nothing else. A window does not end at an end-of-text token, for the same reason. The
    generation settings of a Hugging Face model, such as `top_p`, are not used. The model is as it
    was before.

    Args:
        model: takes tokens (B, L) and returns logits (B, L, V) or an object that has them as
            `logits`.
        windows: N, the number of windows.
        length: L, the number of tokens in a window, with the first.
        seed: the same seed gives the same windows on the same CPU with the same batch size. Another
            batch size, or a GPU, can change a token, and so those after it, only where rounding
            decides between two tokens. More windows begin with the same ones.
        batch_size: windows in a forward pass.
        start: the first token, or the probability of each token (V,) to be the first; None for the
            model's bos token, or for a uniform draw if its vocabulary has no such token.
        show_progress: whether a progress bar is shown.

    Returns:
        The tokens (N, L), which `llc`, `sample` and `baseline` take.

    Raises:
        ArgumentError: an argument is not valid, or the model cannot read L − 1 tokens, or returns
            no logits or some that are not finite.

    Example:
        estimate = llc(model, sample_text(model, 1000, 200), nbeta=30, localization=300, lr=1e-4)
    """
    arguments.require(windows=windows, batch_size=batch_size)
    arguments.require(least=2, length=length)
    seed = whole(seed)
    with progress("sampled text", windows, show_progress) as advance:
        return generation.sample_text(
            model,
            windows,
            length,
            seed=seed,
            batch_size=batch_size,
            start=start,
            advance=advance,
        )


def calibrate(
    targets: Sequence[str] | Literal["all"] = "all",
    *,
    shuffles: int = 4,
    chains: int = 4,
    seed: int = 0,
    show_progress: bool = True,
) -> list[calibration.Calibrated]:
    """Estimates λ̂ of models whose λ is known, with the same samplers and estimator as `llc`.

    Args:
        targets: names of cases in `replicate.validation.cases.TARGETS`, or `all`.
        shuffles: number of random orders of each target's examples.
        chains: number of chains in each shuffle.
        seed: the seed of data, batches and noise.
        show_progress: whether a progress bar is shown.

    Returns:
        λ̂ of each target and its known λ, in the order of `TARGETS`.

    Raises:
        UserError: an argument is not valid, or a chain diverged.
    """
    arguments.require(shuffles=shuffles, chains=chains)
    arguments.total(shuffles, chains)
    seed = whole(seed)
    if not isinstance(targets, str | Sequence) or not targets:
        raise ArgumentError(f"targets = {targets!r}: must be a list of names, or all")
    named = cases.targets(
        "all" if targets == "all" else [targets] if isinstance(targets, str) else targets
    )
    total = sum(len(case.runs) for case in named)
    found = []
    with progress("calibration", total, show_progress) as advance:
        for case in named:
            outcomes = []
            for rung in range(len(case.runs)):
                job = cases.Job(case.name, rung)
                outcomes.append(calibration.measure(job, seed, shuffles, chains, silent))
                advance(1, case.name)
            found.append(calibration.calibrated(case, outcomes, shuffles))
    return found
