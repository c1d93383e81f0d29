"""Stage `search`: tries samplers on one model of a family, and chooses one for all its models.

It first tries the grids of the write-up, then the proposals of TPE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import xarray as xr

from replicate.data import json_io, traces
from replicate.errors import UserError
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import Engine
from replicate.pipeline.work import plans, units
from replicate.pipeline.work.units import ChainUnit
from replicate.sampling import SamplerConfig
from replicate.search import importance, trials
from replicate.search.trials import Outcome, Rule, Trial

RULES: tuple[Rule, ...] = ("stability", "efficiency", "accuracy")


class Evaluation:
    """Evaluates samplers. Each is one unit, and all use the same batches and noise."""

    def __init__(self, config: Config, family: str, engine: Engine) -> None:
        self.config, self.family, self.engine = config, family, engine
        given = config.families[family].search
        task = plans.task_config(config, given.model)
        losses = plans.baseline_file(config, given.model)
        plan = plans.sampling(config, family, given)
        self.baseline = plans.baseline_loss(config, given.model)
        self.template = plans.chains(
            config, "search", task, SamplerConfig("sgld", 1.0), plan, losses
        )
        self.traces: list[xr.Dataset] = []

    def __call__(self, settings: Sequence[SamplerConfig]) -> list[Outcome]:
        trial = [self.unit(setting) for setting in settings]
        self.engine.run(trial, f"search {self.family}")
        found = [units.trace([unit], self.baseline) for unit in trial]
        self.traces += found
        limits = self.config.diagnostics
        return [
            trials.outcome(
                trace,
                trace.attrs["sampling"]["nbeta"],
                self.baseline["loss"],
                rhat_below=limits.rhat,
                drift_above=limits.drift,
            )
            for trace in found
        ]

    def unit(self, setting: SamplerConfig) -> ChainUnit:
        """Returns the one unit that runs all chains of a sampler."""
        pieces = tuple(piece for unit in self.template for piece in unit.pieces)
        return replace(self.template[0], sampler=setting, pieces=pieces, search=True)


def run(config: Config, family: str) -> None:
    """Writes all trials and their traces, the importance of each knob, and the chosen sampler.

    Raises:
        UserError: all chains diverged in every trial that the family's rule can choose.
    """
    given, own = config.families[family].search, config.families[family].sampling
    pull = {name: getattr(own, name) for name in ("localization", "weight_decay", "bounding_box")}
    posteriors = {name: trials.posterior(name, **pull) for name in ("sgld", "rmsprop", "sgnht")}
    grid = trials.settings("sgld", given.sgld.model_dump())
    grid += trials.settings("sgnht", given.sgnht.model_dump()) if given.sgnht else []
    with Engine(config.machine, config.families[family].gpus_per_model) as engine:
        evaluate = Evaluation(config, family, engine)
        attempts = [Trial("grid", *pair) for pair in zip(grid, evaluate(grid), strict=True)]
        if given.tpe is not None:
            for name, posterior in posteriors.items():
                ranges = given.tpe.model_dump()[name]
                if ranges:
                    attempts += trials.propose(
                        posterior,
                        ranges,
                        evaluate,
                        trials=given.tpe.trials,
                        batch=given.tpe.batch,
                        seed=config.seed,
                    )
    choices: dict[Rule, int | None] = {
        rule: trials.choose(rule, attempts, posteriors[own.sampler]) for rule in RULES
    }
    best = choices[given.rule]
    if best is None:
        raise UserError(
            f"families.{family}.search: all chains of the {own.sampler} settings that {given.rule}"
            " can choose diverged; add smaller lr"
        )
    out = config.paths.search(family)
    trace = xr.concat(evaluate.traces, "trial", combine_attrs="drop_conflicts")
    traces.save(trace, out / "traces.zarr")
    steps = evaluate.template[0].sampling.steps
    json_io.write_json(out / "trials.json", rows(attempts, choices, best, given.chains, steps))
    shares = importance.explain(attempts, config.seed)
    json_io.write_json(out / "importances.json", [asdict(row) for row in shares])
    json_io.write_json(out / "chosen.json", asdict(attempts[best].sampler))
    setting, outcome = attempts[best].sampler, attempts[best].outcome
    print(
        f"{family}: chose {setting.sampler}, lr {setting.lr:.3g}, by {given.rule};"
        f" λ̂ {outcome.mean:.4g} ± {outcome.standard_deviation:.2g} across chains"
    )
    if not outcome.healthy:
        print(
            f"warning: its chains are not healthy (R-hat {outcome.rhat:.3g}, drift p"
            f" {outcome.drift_p:.2g}); see families.{family}.search"
        )


def rows(
    attempts: Sequence[Trial],
    choices: Mapping[Rule, int | None],
    best: int,
    chains: int,
    steps: int,
) -> list[dict[str, object]]:
    """Returns the fields of each trial's `Trial` record, except family and model.

    Args:
        attempts: all trials.
        choices: the number of the trial that each rule chooses; None if it can choose none.
        best: the number of the trial that is chosen.
        chains: chains in each trial.
        steps: steps in each chain.
    """
    biases = trials.step_biases(attempts)
    left_out = ("noise", "penalty", "noise_level")
    return [
        {
            key: value
            for key, value in (asdict(attempt.sampler) | asdict(attempt.outcome)).items()
            if key not in left_out
        }
        | {
            "stability": attempt.outcome.stability,
            "healthy": attempt.outcome.healthy,
            "step_bias": bias,
            "expected_error": math.hypot(bias, attempt.outcome.noise),
            "proposed_by": attempt.proposed_by,
            "chains": chains,
            "steps": steps,
            "chosen_by": [rule for rule, index in choices.items() if i == index],
            "chosen": i == best,
        }
        for i, (attempt, bias) in enumerate(zip(attempts, biases, strict=True))
    ]
