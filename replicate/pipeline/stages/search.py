"""Stage `search`: tries samplers on one model of a family, and chooses one for all its models.

It first tries the grids of the write-up, then the proposals of TPE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain

import xarray as xr

from replicate.data import json_io, traces
from replicate.errors import UserError
from replicate.pipeline.config import Config
from replicate.pipeline.parallel import Engine
from replicate.pipeline.work import plans
from replicate.pipeline.work.units import trace
from replicate.sampling import SamplerConfig
from replicate.search import importance, trials
from replicate.search.trials import Outcome, Rule, Trial

LARGEST = 0.5  # from this expected relative error of λ̂ on, a warning is printed
RULES: tuple[Rule, ...] = ("stability", "efficiency", "accuracy")


class Evaluation:
    """Evaluates samplers on the family's search model.

    The chains of one sampler are one unit. All samplers use the same batches and noise.
    """

    def __init__(self, config: Config, family: str, engine: Engine) -> None:
        given = config.families[family].search
        task, plan = plans.task_config(config, given.model), plans.sampling(config, family, given)
        losses = plans.baseline_file(config, task)
        units = plans.chains(config, "search", task, SamplerConfig("sgld", 1.0), plan, losses)
        pieces = tuple(chain.from_iterable(unit.pieces for unit in units))
        self.template = replace(units[0], pieces=pieces, search=True)
        self.title, self.engine, limits = f"search {family}", engine, config.diagnostics
        text = json_io.read_json(config.paths.windows(family) / "statistics.json")
        self.limits = {"rhat_below": limits.rhat, "drift_above": limits.drift}
        self.limits |= {"local": limits.local, "guess": math.log(text["vocabulary"])}
        self.traces: list[xr.Dataset] = []

    def __call__(self, samplers: Sequence[SamplerConfig]) -> list[Outcome]:
        trial = [replace(self.template, sampler=sampler) for sampler in samplers]
        self.engine.run(trial, self.title)
        found = [trace([unit]) for unit in trial]
        self.traces += found
        return [self.outcome(each) for each in found]

    def outcome(self, trace: xr.Dataset) -> Outcome:
        """Returns the outcome of a trial from its trace."""
        nbeta, loss = trace.attrs["sampling"]["nbeta"], trace.attrs["baseline"]["loss"]
        return trials.outcome(trace, nbeta, loss, **self.limits)


def run(config: Config, family: str) -> None:
    """Writes all trials, their traces, the hyperparameters' importances, and the chosen sampler.

    Raises:
        UserError: the family's rule can choose no trial. Chains diverged, did not leave w*, are not
            local or, for *efficiency*, not healthy; or no trial has the family's posterior.
    """
    given, own = config.families[family].search, config.families[family].sampling
    pull = {name: getattr(own, name) for name in ("localization", "weight_decay", "bounding_box")}
    posteriors = {name: trials.posterior(name, **pull) for name in ("sgld", "rmsprop", "sgnht")}
    grid = trials.settings("sgld", given.sgld.model_dump())
    grid += trials.settings("sgnht", given.sgnht.model_dump()) if given.sgnht else []
    ranges = given.tpe.model_dump() if given.tpe else {}
    with Engine(config.machine, config.families[family].gpus_per_model) as engine:
        evaluate = Evaluation(config, family, engine)
        attempts = [Trial("grid", *pair) for pair in zip(grid, evaluate(grid), strict=True)]
        for name, posterior in posteriors.items():
            if ranges.get(name):
                size = {"trials": ranges["trials"], "batch": ranges["batch"], "seed": config.seed}
                attempts += trials.propose(posterior, ranges[name], evaluate, **size)
    choices: dict[Rule, int | None] = {
        rule: trials.choose(rule, attempts, posteriors[own.sampler]) for rule in RULES
    }
    best = choices[given.rule]
    if best is None:
        where, wanted = f"families.{family}.search", posteriors[own.sampler]
        mine = [
            each.outcome.fault or "chains are not healthy: draw more"
            for each in attempts
            if given.rule == "stability" or trials.same_posterior(each.sampler, wanted)
        ]
        told = "; ".join(dict.fromkeys(mine)) or "none is at the family's posterior: add one"
        raise UserError(f"{where}: no {own.sampler} setting that {given.rule} can choose; {told}")
    out, setting = config.paths.search(family), attempts[best].sampler
    found = xr.concat(evaluate.traces, "trial", combine_attrs="drop_conflicts")
    traces.save(found, out / "traces.zarr")
    size = {"chains": given.chains, "steps": evaluate.template.sampling.steps}
    written = [row | size | {"chosen": i == best} for i, row in enumerate(rows(attempts, choices))]
    json_io.write_json(out / "trials.json", written)
    shares = importance.explain(attempts, config.seed)
    json_io.write_json(out / "importances.json", [asdict(row) for row in shares])
    json_io.write_json(out / "chosen.json", asdict(setting))
    outcome = attempts[best].outcome
    print(
        f"{family}: chose {setting.sampler}, lr {setting.lr:.3g}, by {given.rule};"
        f" λ̂ {outcome.mean:.4g} ± {outcome.standard_deviation:.2g} across chains"
    )
    error = trials.expected_error(outcome, trials.step_biases(attempts)[best])
    if not error < LARGEST:
        print(
            f"warning: λ̂ may depend on the step size (expected error {error:.0%}); add other lr to"
            f" families.{family}.search"
        )
    if not outcome.healthy:
        print(
            f"warning: its chains are not healthy (R-hat {outcome.rhat:.3g}, drift p"
            f" {outcome.drift_p:.2g}); see families.{family}.search"
        )


def rows(
    attempts: Sequence[Trial], choices: Mapping[Rule, int | None]
) -> Iterator[dict[str, object]]:
    """Yields the fields of each trial's `Trial` record that follow from the trials alone.

    Args:
        attempts: all trials.
        choices: the index of the trial that each rule chooses; None if it can choose none.
    """
    for i, (attempt, bias) in enumerate(zip(attempts, trials.step_biases(attempts), strict=True)):
        outcome = attempt.outcome
        row = asdict(attempt.sampler) | asdict(outcome)
        for name in ("fault", "noise", "penalty", "noise_level", "stationary"):
            del row[name]
        yield row | {
            "stability": outcome.stability,
            "healthy": outcome.healthy,
            "step_bias": bias,
            "expected_error": math.hypot(bias, outcome.noise),
            "proposed_by": attempt.proposed_by,
            "chosen_by": [rule for rule, index in choices.items() if i == index],
        }
