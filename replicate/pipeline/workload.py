"""Lists what the stages of a study do with each model, for an estimate of what it costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from replicate.models.config import work as examining
from replicate.pipeline.config import Config, Family
from replicate.pipeline.config.family import Search
from replicate.pipeline.config.sources import ControlModel
from replicate.pipeline.work.plans import MOVED

REVIEWS = 25_000  # assumed size of a corpus that is not sampled


@dataclass(frozen=True)
class Work:
    """What a stage does with one model: steps of chains or of a training, and forward passes.

    Attributes:
        family: the settings of the family in this stage; a training has the sampler `adam`.
        steps: the steps of all chains together, or of the training.
        examples: the number of forward passes of one example that belong to no step.
    """

    stage: str
    model: str
    family: Family
    steps: int = 0
    examples: int = 0


def list_work(config: Config, study: str) -> Iterator[Work]:
    """Yields the work of each stage of a study on each model."""
    own = {n: given.windows if (given := config.sampled(n)) else 0 for n in config.families}
    passes = {n: examining(own[n] or REVIEWS, config.baseline.gradient_examples) for n in own}
    for name in config.studies[study].families:
        family, search = config.families[name], config.families[name].search
        training = {"sampler": "adam", "batch_size": config.training.batch_size}
        trained = _changed(family, "float32", "tokens", restriction=("all",), **training)
        for model, given in family.models.items():
            if isinstance(given, ControlModel):
                yield Work(f"pretrain@{name}", model, trained, given.steps or config.training.steps)
            yield Work(f"baseline@{name}", model, family, examples=passes[name] + own[name])
            yield Work(f"estimate@{name}", model, family, _steps(family.sampling))
            if model in config.of_neighbours(name).families[name].models:
                yield Work(f"neighbours@{name}", model, family, _steps(family.sampling))
        most = "rmsprop" if search.tpe else "sgnht" if search.sgnht else "sgld"
        steps = _trials(search) * search.chains * (search.burn_in + search.draws)
        yield Work(f"search@{name}", search.model, _changed(family, sampler=most), steps)
        steps = _steps(family.transfer) * sum(max(1.0, 1 / f) for f in family.transfer.factors)
        for model in family.transfer.models:
            yield Work(f"transfer@{name}", model, family, round(steps))
        if (curve := family.curve) is not None:
            settings = len(curve.nbeta) * len(curve.localization)
            for model in curve.models:  # without burn-in, which follows from the model
                steps = settings * curve.chains * curve.draws
                yield Work(f"curve@{name}", model, _changed(family, sampler="sgld"), steps)
        yield from _measured(name, family)
        if (original := family.original) is not None:
            changed = {"sampler": "sgld", "batch_size": original.batch_size}
            settings = _changed(family, loss="last", **changed)
            for model in original.models:
                yield Work(f"original@{name}", model, settings, _steps(original))
    steps = _steps(config.studies[study].quantisation)
    for model, moved, weights in config.plan(study).formats:
        name = config.family_of(model)
        family = _changed(config.families[name], weights, restriction=MOVED[moved])
        yield Work(f"quantisation@{study}", model, family, steps, passes[name])


def _measured(name: str, family: Family) -> Iterator[Work]:
    """Yields the work of stage `settings` by model and loss: at most each setting's budget."""
    if (given := family.settings) is None:
        return
    counts: Counter[tuple[str, str]] = Counter()
    for setting in given.at:
        for model in setting.models or family.models:
            steps = (
                getattr(family.models[model], "checkpoints", ()) if setting.checkpoints else (0,)
            )
            counts[model, setting.loss] += len(steps)
    for (model, loss), count in counts.items():
        changed = {"sampler": "leimkuhler", "batch_size": given.batch_size}
        yield Work(
            f"settings@{name}", model, _changed(family, loss=loss, **changed), count * given.budget
        )


def _changed(family: Family, weights: str = "", loss: str = "", **sampling: Any) -> Family:
    changed = {"sampling": family.sampling.model_copy(update=sampling)}
    changed |= {"weights": weights or family.weights, "loss": loss or family.loss}
    return family.model_copy(update=changed)


def _steps(part: Any) -> int:
    return part and part.shuffles * part.chains * (part.burn_in + part.draws)


def _trials(search: Search) -> int:
    grids = [grid.model_dump().values() for grid in (search.sgld, search.sgnht) if grid]
    ranges = 0 if search.tpe is None else search.tpe.trials * (3 if search.tpe.sgnht else 2)
    return ranges + sum(math.prod(map(len, grid)) for grid in grids)
