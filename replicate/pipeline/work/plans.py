"""Lists the units that params.yaml defines. Compute stages run them; `collect` expects them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from replicate.data import json_io, tensors, windows
from replicate.errors import UserError
from replicate.models.config import TaskConfig
from replicate.pipeline.config import Config
from replicate.pipeline.config.family import Chains
from replicate.pipeline.work.units import BaselineUnit, ChainUnit
from replicate.sampling import SamplerConfig, SamplingConfig

WINDOWS = "windows.safetensors"
PADDED = "original.safetensors"  # the padded windows of the protocol of 2023
COMPUTED = (
    "compute_dtype",
    "device",
    "gradient_checkpointing",
    "gpus_per_model",
    "together",
    "left_unquantised",
)
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
        restriction=restriction or family.sampling.restriction,
        hashes=(tensors.file_hash(text), tensors.file_hash(folder)),
        **{key: getattr(family, key) for key in COMPUTED},
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


def sampling(config: Config, family: str, part: Chains, stretch: float = 1.0) -> SamplingConfig:
    """Returns nβ and the batch size of a family, with the chains and steps of one experiment.

    Args:
        config: all parameters.
        family: the name of the family.
        part: the experiment's block in params.yaml; a search has one shuffle.
        stretch: the factor by which chains are longer than the block says.
    """
    own = config.families[family].sampling
    return SamplingConfig(
        nbeta=own.nbeta,
        batch_size=own.batch_size,
        shuffles=getattr(part, "shuffles", 1),
        chains=part.chains,
        burn_in=round(part.burn_in * stretch),
        draws=round(part.draws * stretch),
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
    batch_size = config.families[task.family].microbatch_size or config.baseline.batch_size
    loss_N = None if losses is None else tensors.load(losses)["losses"]
    pieces, size = [tuple(each) for each in plan.pieces()], task.together if plan.restart else 1
    unit = ChainUnit(
        root=config.paths.cache,
        stage=stage,
        task=task,
        sampler=sampler,
        sampling=plan,
        pieces=(),
        seed=config.seed,
        batch_size=batch_size,
        baseline=losses,
        baseline_hash="" if loss_N is None else tensors.fingerprint({"losses": loss_N}),
    )
    starts = range(0, len(pieces), size)
    return [replace(unit, pieces=tuple(pieces[i : i + size])) for i in starts]


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
    given = config.families[name].original
    texts = len(windows.load(config.paths.windows(name) / PADDED).tokens_NxL)
    batches = max(texts // given.batch_size, 2)
    sampler = SamplerConfig(
        "sgld", given.lr, localization=given.localization, bounding_box=given.bounding_box
    )
    plan = replace(
        sampling(config, name, given),
        nbeta=batches / math.log(batches),
        batch_size=given.batch_size,
        restart=given.restart,
    )
    return chains(config, "original", task_config(config, model, file=PADDED), sampler, plan, None)


def format_baseline(config: Config, model: str, moved: str, weights: str) -> BaselineUnit:
    """Returns the unit that computes the losses at w* in a weight format."""
    task = task_config(config, model, weights=weights, restriction=MOVED[moved])
    return baseline_unit(config, task, "quantisation")


def formats(
    config: Config, study: str, kind: tuple[str, str, str], losses: Path | None
) -> list[ChainUnit]:
    """Returns the chains of one model in one weight format.

    Args:
        config: all parameters.
        study: the name of the study.
        kind: the model, a key of `MOVED`, and the weight format.
        losses: the file of the losses at w* in this format; None if the units only describe the
            chains and are not run.
    """
    model, moved, weights = kind
    task = task_config(config, model, weights=weights, restriction=MOVED[moved])
    part = config.studies[study].quantisation
    assert part is not None, "a study without weight formats"
    plan, sampler = sampling(config, task.family, part), chosen(config, task.family)
    return chains(config, "quantisation", task, sampler, plan, losses)


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
