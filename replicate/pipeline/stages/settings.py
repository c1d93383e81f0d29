"""Stage `settings`: measures λ̂ of a family's models at each setting that params.yaml lists.

Steps and lengths of the chains are chosen as by `replicate.llc`, to the precision that is asked.
The step is chosen, and checked by a pair of chains, for the first training of a size; the other
trainings of this size take it over.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from replicate.data import json_io, tensors, traces
from replicate.errors import UserError
from replicate.estimation.estimate import Estimate
from replicate.models.config import Schedule
from replicate.pipeline import kept
from replicate.pipeline.config import Config
from replicate.pipeline.config.measured import Setting
from replicate.pipeline.config.sources import SingleEpochModel
from replicate.pipeline.parallel import run_units
from replicate.pipeline.setting import SettingUnit
from replicate.pipeline.work import plans

STAGE = "settings"


def units(config: Config, model: str) -> list[SettingUnit]:
    """Returns the units of one model, in the order of params.yaml, each once.

    Settings can be the same for a model: the smallest one has the same γ at a fixed radius.

    Raises:
        UserError: the model's files or the windows cannot be read, or it has no checkpoints.
    """
    family = config.families[config.family_of(model)]
    if family.settings is None:
        return []
    found = []
    for setting in family.settings.at:
        if setting.models is None or model in setting.models:
            steps = _steps(config, model, setting)
            found += [_unit(config, model, setting, step) for step in steps]
    first = first_training(config, model)
    if first != model:
        known = {unit.which: unit for unit in units(config, first)}
        found = [_with_step_of(config, known.get(unit.which), unit) for unit in found]
    once = {unit.which: unit for unit in reversed(found)}
    if alike := next((unit for unit in found if unit != once[unit.which]), None):
        said = f"two settings of {model} are both called {alike.which}; leave one out"
        raise UserError(f"families.{config.family_of(model)}.settings.at: {said}")
    return list(dict.fromkeys(found))


def first_training(config: Config, model: str) -> str:
    """Returns the name of the first training of a model's size; of any other model, its own."""
    models = config.families[config.family_of(model)].models
    given = models[model]
    if not isinstance(given, SingleEpochModel):
        return model
    size = model.removesuffix(f"-{given.seeds[0]}")
    return next(
        name
        for name, each in models.items()
        if isinstance(each, SingleEpochModel) and name == f"{size}-{each.seeds[0]}"
    )


def _with_step_of(config: Config, first: SettingUnit | None, unit: SettingUnit) -> SettingUnit:
    """Returns the unit with the step of the first training's chains, if they are finished."""
    chosen = None in (unit.nbeta, unit.localization)
    if first is None or chosen or unit.rescaled is not None or unit.step is not None:
        return unit
    path = folder(config, first)
    found = traces.load(path) if path.exists() else kept.trace(config, first)
    if found is None:
        return unit
    known = found.attrs
    return replace(unit, lr=known["sampler"]["lr"], controlled=known["controlled"])


def _steps(config: Config, model: str, setting: Setting) -> list[int | None]:
    """Returns the steps of the checkpoints that a setting measures; [None] for w*."""
    if not setting.checkpoints:
        return [None]
    given = config.families[config.family_of(model)].models[model]
    if not isinstance(given, SingleEpochModel) or not given.checkpoints:
        said = "saves no checkpoints of its own; leave `checkpoints: true` out for it"
        raise UserError(f"families.{config.family_of(model)}.settings: {model} {said}")
    return list(given.checkpoints)


def _unit(config: Config, model: str, setting: Setting, step: int | None) -> SettingUnit:
    name = config.family_of(model)
    given = config.families[name].settings
    assert given is not None, "a family without settings"
    task = replace(plans.task_config(config, model), loss=setting.loss, together=1)
    if step is not None:
        at = task.folder / f"step-{step}"
        known = kept.step_hash(config, name, model, step)
        weights = tensors.file_hash(at) if at.exists() else known or "not here"
        task = replace(task, folder=at, hashes=(task.hashes[0], weights))
    gamma = setting.localization
    if setting.radius == "fixed" and gamma is not None:
        gamma = float(f"{gamma * _size(config, name, model):.4g}")
    return SettingUnit(
        root=config.paths.cache,
        stage=STAGE,
        task=task,
        nbeta=setting.nbeta,
        localization=gamma,
        precision=given.precision,
        budget=given.budget,
        chains=given.chains,
        batch_size=given.batch_size,
        microbatch_size=config.families[name].microbatch_size,
        text=setting.text,
        rescaled=setting.rescaled,
        step=step,
        seed=config.seed,
        again=_again(config, model, setting.minimised),
    )


def _again(config: Config, model: str, steps: int | None) -> Schedule | None:
    """Returns how a model is trained again: at a tenth of its rate, which falls to 0."""
    if steps is None:
        return None
    given = config.families[config.family_of(model)].models[model]
    if not isinstance(given, SingleEpochModel):
        raise UserError(f"{model}: minimised is for models that were trained on fresh text")
    known = config.training.model_dump() | {"lr": given.lr / 10, "steps": steps, "check": steps}
    return Schedule(**known)


def _size(config: Config, family: str, model: str) -> float:
    """Returns the number of a model's weights over that of the family's smallest model.

    Raises:
        UserError: a model's number is not known.
    """
    sizes = {}
    for each in config.families[family].models:
        file = config.paths.models(family) / each / "training.json"
        sizes[each] = json_io.read_json(file).get("parameters") if file.is_file() else None
        if not sizes[each]:
            said = f"radius: fixed needs the number of parameters in {file}; write free"
            raise UserError(f"families.{family}.settings: {said}")
    return sizes[model] / min(sizes.values())


def folder(config: Config, unit: SettingUnit) -> Path:
    """Returns the folder of a unit's trace."""
    return config.paths.settings(unit.task.family) / unit.task.model / unit.which


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model and setting, and prints λ̂ with its regime.

    A trace that is kept in git is not computed again.
    """
    names = plans.only(config.families[family].models, only)
    firsts = [name for name in names if first_training(config, name) == name]
    for some in (firsts, [name for name in names if name not in firsts]):
        every = {unit: kept.trace(config, unit) for name in some for unit in units(config, name)}
        missing = [unit for unit, trace in every.items() if trace is None]
        run_units(missing, config.machine, f"settings {family}")
        for unit, stored in every.items():
            trace = unit.trace() if stored is None else stored
            traces.save(trace, folder(config, unit))
            found = Estimate(trace)
            print(
                f"{unit.name}: λ̂ = {found.llc:.4g} ± {found.standard_error:.2g}, "
                f"{found.diagnosis.regime}"
            )
    if config.families[family].settings is None:
        config.paths.settings(family).mkdir(parents=True, exist_ok=True)
        print(f"{family}: has no `settings` in params.yaml, so nothing is run")
