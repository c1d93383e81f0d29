"""Lists the units that params.yaml defines. Compute stages run them; `collect` expects them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from replicate.data import json_io, tensors, windows
from replicate.errors import UserError
from replicate.models.config import TaskConfig
from replicate.pipeline.config import Config
from replicate.pipeline.work.units import BaselineUnit, ChainUnit
from replicate.sampling import SamplerConfig, SamplingConfig

WINDOWS = "windows.safetensors"
PADDED = "original.safetensors"  # the padded windows of the protocol of 2023
MOVED = {"restricted": ("unquantised",), "full": ("all",)}  # the restriction of the chains


def task_config(
    config: Config,
    model: str,
    *,
    file: str = WINDOWS,
    weights: str | None = None,
    restriction: tuple[str, ...] | None = None,
) -> TaskConfig:
    """Returns the task of a model in params.yaml.

    Args:
        config: all parameters.
        model: the name of the model.
        file: the name of the file of windows.
        weights: the format of the weights; None for the family's.
        restriction: the parameters that chains move; None for the family's.
    """
    name = config.family_of(model)
    family = config.families[name]
    folder, text = config.paths.models(name) / model, config.paths.windows(name) / file
    return TaskConfig(
        family=name,
        model=model,
        folder=folder,
        windows=text,
        weights=weights or family.weights,
        compute_dtype=family.compute_dtype,
        restriction=restriction or family.sampling.restriction,
        device=family.device,
        gradient_checkpointing=family.gradient_checkpointing,
        gpus_per_model=family.gpus_per_model,
        together=family.together,
        hashes=(tensors.file_hash(text), tensors.file_hash(folder)),
    )


def baseline_unit(config: Config, task: TaskConfig, stage: str = "baseline") -> BaselineUnit:
    """Returns the unit that computes a task's losses and gradient at w*."""
    family = config.families[task.family]
    return BaselineUnit(
        root=config.paths.cache,
        stage=stage,
        task=replace(task, together=1),
        seed=config.seed,
        batch_size=family.microbatch_size or config.baseline.batch_size,
        gradient_examples=config.baseline.gradient_examples,
        gradient_batch=family.microbatch_size or family.sampling.batch_size,
        examples=len(windows.load(task.windows).tokens_NxL),
    )


def chosen(config: Config, family: str) -> SamplerConfig:
    """Returns the sampler that stage `search` chose for a family.

    Raises:
        UserError: the file of the chosen sampler is missing or damaged.
    """
    file = config.paths.search(family) / "chosen.json"
    try:
        return TypeAdapter(SamplerConfig).validate_python(json_io.read_json(file))
    except ValidationError:
        raise UserError(f"{file}: no sampler settings; run `dvc repro search@{family}`") from None


def sampling(config: Config, family: str, part: object, stretch: float = 1.0) -> SamplingConfig:
    """Returns nβ and the batch size of a family, with the chains and steps of one experiment.

    Args:
        config: all parameters.
        family: the name of the family.
        part: the experiment's block in params.yaml, with burn_in, draws, chains and, unless it is a
            search, shuffles.
        stretch: the factor by which chains are longer than the block says.
    """
    own = config.families[family].sampling
    return SamplingConfig(
        nbeta=own.nbeta,
        batch_size=own.batch_size,
        shuffles=getattr(part, "shuffles", 1),
        chains=part.chains,  # pyright: ignore[reportAttributeAccessIssue]
        burn_in=round(part.burn_in * stretch),  # pyright: ignore[reportAttributeAccessIssue]
        draws=round(part.draws * stretch),  # pyright: ignore[reportAttributeAccessIssue]
        implementation=own.implementation,
        microbatch_size=config.families[family].microbatch_size,
    )


def baseline_file(config: Config, model: str) -> Path:
    """Returns the file of a model's losses at w*.

    Raises:
        UserError: the baseline was computed from other windows than the present ones.
    """
    family = config.family_of(model)
    folder = config.paths.baselines(family) / model
    now = tensors.file_hash(config.paths.windows(family) / WINDOWS)
    then = json_io.read_json(folder / "baseline.json").get("windows", "")
    if then != now:
        raise UserError(
            f"{folder}: was computed from other windows (hash {then[:8]}…, expected {now[:8]}…);"
            f" run `dvc repro baseline@{family}`"
        )
    return folder / "losses.safetensors"


def baseline_loss(config: Config, model: str) -> dict[str, Any]:
    """Returns a model's mean loss (nats) at w* over all examples, and the hash of the windows."""
    file = baseline_file(config, model)
    losses_N = tensors.load(file)["losses"]
    found = json_io.read_json(file.parent / "baseline.json")
    return {"loss": float(losses_N.mean(dtype=np.float64)), "windows": found["windows"]}


def chains(
    config: Config,
    stage: str,
    task: TaskConfig,
    sampler: SamplerConfig,
    plan: SamplingConfig,
    losses: Path | None,
) -> list[ChainUnit]:
    """Returns the units that run the chains of one model with one sampler.

    Chains that are computed side by side are one unit. `losses` is the file of the losses at w*; if
    it is None, the units compute those that they need.
    """
    family = config.families[task.family]
    loss = None if losses is None else tensors.load(losses)
    pieces, size = [tuple(each) for each in plan.pieces()], task.together if plan.restart else 1
    groups = [tuple(pieces[i : i + size]) for i in range(0, len(pieces), size)]
    return [
        ChainUnit(
            root=config.paths.cache,
            stage=stage,
            task=task,
            sampler=sampler,
            sampling=plan,
            pieces=group,
            seed=config.seed,
            batch_size=family.microbatch_size or config.baseline.batch_size,
            baseline=losses,
            baseline_hash="" if loss is None else tensors.fingerprint({"losses": loss["losses"]}),
        )
        for group in groups
    ]


def estimate(config: Config, model: str) -> list[ChainUnit]:
    """Returns the chains of one model with the sampler that its family's search chose."""
    family = config.family_of(model)
    plan = sampling(config, family, config.families[family].sampling)
    losses = baseline_file(config, model)
    task = task_config(config, model)
    return chains(config, "estimate", task, chosen(config, family), plan, losses)


def transfer(config: Config, model: str, factor: float) -> list[ChainUnit]:
    """Returns the chains of one model at the chosen step size times a factor."""
    family = config.family_of(model)
    stretch = max(1.0, 1 / factor)  # half the step size needs twice the steps to go as far
    plan = sampling(config, family, config.families[family].transfer, stretch)
    found = chosen(config, family)
    sampler = replace(found, lr=found.lr * factor)
    losses = baseline_file(config, model)
    return chains(config, "transfer", task_config(config, model), sampler, plan, losses)


def original(config: Config, model: str) -> list[ChainUnit]:
    """Returns the chains of one model by the protocol of November 2023."""
    name = config.family_of(model)
    family, given = config.families[name], config.families[name].original
    texts = len(windows.load(config.paths.windows(name) / PADDED).tokens_NxL)
    batches = max(texts // given.batch_size, 2)
    sampler = SamplerConfig(
        "sgld", given.lr, localization=given.localization, bounding_box=given.bounding_box
    )
    plan = SamplingConfig(
        nbeta=batches / math.log(batches),
        batch_size=given.batch_size,
        shuffles=given.shuffles,
        chains=given.chains,
        burn_in=given.burn_in,
        draws=given.draws,
        restart=given.restart,
        implementation=family.sampling.implementation,
        microbatch_size=family.microbatch_size,
    )
    return chains(config, "original", task_config(config, model, file=PADDED), sampler, plan, None)


def format_task(config: Config, model: str, moved: str, weights: str) -> TaskConfig:
    """Returns the task of one model in one weight format; `moved` is a key of `MOVED`."""
    return task_config(config, model, weights=weights, restriction=MOVED[moved])


def formats(
    config: Config, study: str, task: TaskConfig, described: bool = False
) -> list[ChainUnit]:
    """Returns the chains of one model in one weight format.

    Args:
        config: all parameters.
        study: the name of the study.
        task: the model in its weight format.
        described: whether the units only describe the chains and are not run. If so, the cache may
            lack the baseline of the format.
    """
    losses = None if described else baseline_unit(config, task, "quantisation").file
    plan = sampling(config, task.family, config.studies[study].quantisation)
    return chains(config, "quantisation", task, chosen(config, task.family), plan, losses)


def only(names: Iterable[str], one: str | None) -> list[str]:
    """Returns all names, or only the one that `--only` gives.

    Raises:
        UserError: that one is not among the names.
    """
    found = list(names)
    if one is None:
        return found
    if one not in found:
        raise UserError(f"--only {one}: is not of this family; give one of {', '.join(found)}")
    return [one]
