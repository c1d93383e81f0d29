"""Stage `quantisation`: compares what weight formats do to w* and to λ̂.

It samples models of a study's quantised family in several formats, with the same batches and noise.
"""

from __future__ import annotations

from itertools import chain

from replicate.data import json_io, tensors, traces
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import Engine
from replicate.pipeline.work import plans, units


def run(config: Config, study: str, only: str | None = None) -> None:
    """Writes a trace, the losses (N,) at w* and a report on w* for each model and format."""
    family, formats = config.studies[study].quantised, config.plan(study).formats
    out = config.paths.quantisation(family)
    out.mkdir(parents=True, exist_ok=True)
    models = plans.only(dict.fromkeys(model for model, _, _ in formats), only)
    formats = [kind for kind in formats if kind[0] in models]
    baselines = [plans.format_baseline(config, *kind) for kind in formats]
    with Engine(config.machine, config.families[family].gpus_per_model) as engine:
        engine.run(baselines, f"quantisation {study}: w*")
        pairs = zip(formats, baselines, strict=True)
        chains = [plans.formats(config, study, kind, unit.file) for kind, unit in pairs]
        engine.run(chain.from_iterable(chains), f"quantisation {study}: chains")
    for (model, moved, weights), baseline, mine in zip(formats, baselines, chains, strict=True):
        arrays, notes = baseline.read()
        folder = out / model / f"{moved}-{weights}"
        traces.save(units.trace(mine), folder / "trace")
        tensors.save(folder / "losses.safetensors", {"losses": arrays["losses"]})
        json_io.write_json(folder / "minimum.json", notes["report"])
    print(f"{study}: {len(formats)} formats of {', '.join(models) or 'no model'}")
