"""Lists the units that params.yaml defines.

Compute stages run these units. Stage `collect` compares the traces on disk with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from replicate.data import json_io, tensors, windows
from replicate.errors import UserError
from replicate.models.config import TaskConfig
from replicate.pipeline.config import Config
from replicate.pipeline.config.family import Chains
from replicate.pipeline.config.sources import ControlModel
from replicate.pipeline.work.units import BaselineUnit, ChainUnit
from replicate.sampling import SamplerConfig, SamplingConfig
from replicate.sampling.config import SAMPLERS

WINDOWS = "windows.safetensors"
PADDED = "original.safetensors"  # the padded windows of the protocol of 2023
COMPUTED = (  # the keys of a family that its tasks take over unchanged
    "loss",
    "compute_dtype",
    "device",
    "gradient_checkpointing",
    "gpus_per_model",
    "together",
    "left_unquantised",
    "compiled",
)
MAY_BE_ZERO = ("weight_decay", "localization")  # the other numbers of a sampler are positive
LONGEST = 10**9  # the most steps that a chain may have
IDENTITY = ("windows", "model", "weights", "compute_dtype", "loss")  # of losses at w*
MOVED = {"restricted": ("unquantised",), "full": ("all",)}  # word in params.yaml → restriction


def windows_folder(config: Config, model: str) -> Path:
    """Returns the folder of the windows that a model reads: its family's, or its own text."""
    name = config.family_of(model)
    own = config.sampled(name) is not None
    return config.paths.baselines(name) / model if own else config.paths.windows(name)


def task_config(
    config: Config,
    model: str,
    *,
    file: str | None = WINDOWS,
    weights: str | None = None,
    restriction: tuple[str, ...] | None = None,
) -> TaskConfig:
    """Returns the task of a model in params.yaml.

    Args:
        config: all parameters.
        model: the name of the model.
        file: the name of the file of windows; None for a task without windows.
        weights: the format of the weights; None for the family's.
        restriction: the parameters that chains move; None for the family's.

    Raises:
        UserError: the windows or the model's files cannot be read.
    """
    name = config.family_of(model)
    family = config.families[name]
    folder = config.paths.models(name) / model
    where = None if file is None else windows_folder(config, model) / file
    return TaskConfig(
        family=name,
        model=model,
        folder=folder,
        windows=where,
        weights=weights or family.weights,
        restriction=restriction or family.sampling.restriction,
        hashes=(tensors.file_hash(where) if where else "", tensors.file_hash(folder)),
        **{key: getattr(family, key) for key in COMPUTED},
    )


def baseline_unit(config: Config, task: TaskConfig, stage: str = "baseline") -> BaselineUnit:
    """Returns the unit that computes a task's losses and gradient at w*."""
    family, numbers = config.families[task.family], config.baseline.curvature
    here = isinstance(family.models[task.model], ControlModel)
    curved = numbers if here else None
    return BaselineUnit(
        root=config.paths.cache,
        stage=stage,
        task=replace(task, together=1),
        seed=config.seed,
        batch_size=family.microbatch_size or config.baseline.batch_size,
        gradient_examples=config.baseline.gradient_examples,
        gradient_batch=family.microbatch_size or family.sampling.batch_size,
        examples=len(text(windows_folder(config, task.model) / WINDOWS).tokens_NxL),
        curvature=tuple(curved.model_dump().values()) if curved and stage == "baseline" else (),
    )


def text(file: Path) -> windows.Windows:
    """Reads a family's windows.

    Raises:
        UserError: there are fewer than two windows, or they are not rows of two or more token ids.
    """
    found = windows.load(file)
    shape, least = found.tokens_NxL.shape, found.tokens_NxL.min(initial=0)
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 2 or least < 0:
        what = f"holds token {least}" if least < 0 else f"has the shape {shape}"
        remedy = "give the corpus more texts, or lower the family's length"
        raise UserError(f"{file}: {what}, and two windows of two tokens are the least; {remedy}")
    return found


def chosen(config: Config, family: str) -> SamplerConfig:
    """Returns the sampler that stage `search` chose for a family.

    Raises:
        UserError: the file is missing or damaged, or holds a sampler that no search can choose.
    """
    file, again = config.paths.search(family) / "chosen.json", f"run `dvc repro search@{family}`"
    try:
        found = TypeAdapter(SamplerConfig).validate_python(json_io.read_json(file))
    except ValidationError:
        raise UserError(f"{file}: no sampler settings; {again}") from None
    if found.sampler not in SAMPLERS:
        raise UserError(f"{file}: {found.sampler!r} is no sampler; {again}")
    for name, value in asdict(found).items():
        zero = value == 0 and name in MAY_BE_ZERO
        if isinstance(value, float) and not (zero or 0 < value < math.inf):
            raise UserError(f"{file}: {name} is {value:g}, which no search chooses; {again}")
    return found


def sampling(config: Config, family: str, part: Chains, stretch: float = 1.0) -> SamplingConfig:
    """Returns the sampling configuration of one experiment; nβ and batch size are the family's.

    Args:
        config: all parameters.
        family: the name of the family.
        part: the experiment's block in params.yaml; a search has one shuffle.
        stretch: the factor by which the block's burn-in and draws are multiplied.
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


def baseline_file(config: Config, task: TaskConfig) -> Path:
    """Returns the file of a model's losses at w*.

    Raises:
        UserError: the baseline was not run, or was computed from other windows, from another model
            or in other formats than the task has now.
    """
    folder = config.paths.baselines(task.family) / task.model
    now = {"loss": task.loss} | task.identity()
    report = json_io.read_json(folder / "baseline.json")
    noted = report if isinstance(report, dict) else {}
    then = now | {"loss": "last", "windows": noted.get("windows", "")} | noted.get("task", {})
    for key in IDENTITY:
        if then[key] != now[key]:
            raise UserError(
                f"{folder}: was computed from other {key} ({str(then[key])[:12]}, expected"
                f" {str(now[key])[:12]}); run `dvc repro baseline@{task.family}`"
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
    task = task_config(config, model)
    losses = baseline_file(config, task)
    return chains(config, "estimate", task, chosen(config, family), plan, losses)


def transfer(config: Config, model: str, factor: float) -> list[ChainUnit]:
    """Returns the chains of one model at the chosen step size times a factor.

    Raises:
        UserError: the chains of that factor are too long.
    """
    family = config.family_of(model)
    stretch = max(1.0, 1 / factor)  # half the step size needs twice the steps to go as far
    given = config.families[family].transfer
    if (steps := (given.burn_in + given.draws) * stretch) > LONGEST:
        said = f"{factor:g} needs chains of {steps:.3g} steps; write a larger factor"
        raise UserError(f"families.{family}.transfer.factors: {said}")
    plan = sampling(config, family, given, stretch)
    found = chosen(config, family)
    sampler = replace(found, lr=found.lr * factor)
    task = task_config(config, model)
    losses = baseline_file(config, task)
    return chains(config, "transfer", task, sampler, plan, losses)


def original(config: Config, model: str) -> list[ChainUnit]:
    """Returns the chains of one model by the protocol of November 2023."""
    name = config.family_of(model)
    given = config.families[name].original
    assert given is not None, "a family without the protocol of 2023"
    texts = len(text(config.paths.windows(name) / PADDED).tokens_NxL)
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
    task = replace(task_config(config, model, file=PADDED), loss="last")
    return chains(config, "original", task, sampler, plan, None)


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
