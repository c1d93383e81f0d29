"""Stage `baseline`: computes the loss of every example at w*, for each model of a family."""

from __future__ import annotations

from replicate.data import json_io, tensors
from replicate.models.config import LOSSES
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans, texts


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes each model's losses (N,) at w* in nats, and a report on loss and gradient there.

    If the family's corpus is sampled, each model's text is sampled from it and written first.
    """
    models = plans.only(config.families[family].models, only)
    if config.sampled(family) is not None:
        texts.write(config, family, models)
    units = [plans.baseline_unit(config, plans.task_config(config, name)) for name in models]
    run_units(units, config.machine, f"baseline {family}", config.families[family].gpus_per_model)
    for unit in units:
        arrays, notes = unit.read()
        folder, found = config.paths.baselines(family) / unit.task.model, notes["report"]
        folder.mkdir(parents=True, exist_ok=True)
        tensors.save(folder / "losses.safetensors", {"losses": arrays["losses"]})
        json_io.write_json(folder / "baseline.json", found | {"task": unit.task.identity()})
        print(
            f"{unit.task.model}: loss of {LOSSES[unit.task.loss]} {found['loss']:.4f}"
            f" ± {found['standard_error']:.4f}, gradient norm {found['gradient_norm']:.4f}"
        )
