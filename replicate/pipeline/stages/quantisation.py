"""Stage `quantisation`: compares what weight formats do to w* and to λ̂.

It samples models of a study's quantised family in several formats, with the same batches and noise.
"""

from __future__ import annotations

from replicate.data import json_io, tensors, traces
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import Engine
from replicate.pipeline.work import plans, units


def run(config: Config, study: str, only: str | None = None) -> None:
    """Writes a trace, the losses (N,) at w* and a report on w* for each model and format.

    Args:
        config: all parameters.
        study: the name of the study.
        only: the name of the one model to compute; None for all.

    Raises:
        UserError: `only` is not among the models.
    """
    family = config.studies[study].quantised
    out = config.paths.quantisation(family)
    out.mkdir(parents=True, exist_ok=True)
    formats = config.plan(study).formats
    models = plans.only(dict.fromkeys(model for model, _, _ in formats), only)
    kinds = {kind: plans.format_task(config, *kind) for kind in formats if kind[0] in models}
    baselines = {
        kind: plans.baseline_unit(config, task, "quantisation") for kind, task in kinds.items()
    }
    with Engine(config.machine, config.families[family].gpus_per_model) as engine:
        engine.run(list(baselines.values()), f"quantisation {study}: w*")
        chains = {kind: plans.formats(config, study, task) for kind, task in kinds.items()}
        every = [unit for mine in chains.values() for unit in mine]
        engine.run(every, f"quantisation {study}: chains")
    for (model, moved, weights), mine in chains.items():
        arrays, notes = baselines[model, moved, weights].read()
        folder = out / model / f"{moved}-{weights}"
        baseline = {
            "loss": float(arrays["losses"].mean(dtype=float)),
            "windows": notes["report"]["windows"],
        }
        traces.save(units.trace(mine, baseline), folder / "trace")
        tensors.save(folder / "losses.safetensors", {"losses": arrays["losses"]})
        json_io.write_json(folder / "minimum.json", notes["report"])
    print(f"{study}: {len(kinds)} formats of {', '.join(models) or 'no model'}")
