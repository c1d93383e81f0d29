"""Stage `curve`: estimates λ̂ along γ at each nβ, by chains that pass warm from one γ to the next.

Where λ̂ has no plateau, it is an effective dimension at the resolution α = γ/nβ, and this curve is
the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from replicate.data import tensors, traces
from replicate.models.config import TaskConfig, order
from replicate.pipeline.config import Config
from replicate.pipeline.config.curve import Curvature
from replicate.pipeline.parallel import run_units
from replicate.pipeline.work import plans, units
from replicate.pipeline.work.units import CachedUnit
from replicate.progress import Advance, silent
from replicate.seeds import derive

HESSIAN = Curvature(windows=256, probes=2, products=12)  # where params.yaml has no numbers


@dataclass(frozen=True)
class CurveUnit(CachedUnit):
    """A unit that measures the Hessian of one model, and runs chains down the γ of each nβ.

    Attributes:
        nbeta: several nβ; the trace of a unit is that of the last, at the last γ.
        localization: γ, falling.
        microbatch_size: examples in one backward pass; None for the whole minibatch.
        hessian: the numbers of windows, probes and products that measure the Hessian at w*.
        baseline: the file of the losses at w*, whose hash is `baseline_hash`.
    """

    task: TaskConfig
    nbeta: tuple[float, ...]
    localization: tuple[float, ...]
    chains: int
    draws: int
    batch_size: int
    microbatch_size: int | None
    hessian: tuple[int, int, int]
    seed: int
    baseline: Path
    baseline_hash: str

    @property
    def name(self) -> str:
        return f"curve of {self.task.model}"

    @property
    def steps(self) -> int:
        return len(self.nbeta) * len(self.localization) * self.chains * self.draws

    def settings(self) -> dict[str, Any]:
        numbers = (self.nbeta, self.localization, self.microbatch_size, self.hessian)
        return self.planned() | {"numbers": numbers, "baseline": self.baseline_hash}

    def planned(self) -> dict[str, Any]:
        """Returns the attributes that a trace of this unit must have; the last γ is its own."""
        return {
            "stage": self.stage,
            "family": self.task.family,
            "model": self.task.model,
            "seed": self.seed,
            "ladder": list(self.localization),
            "sampler": {"sampler": "leimkuhler", "localization": self.localization[-1]},
            "sampling": {
                "nbeta": self.nbeta[-1],
                "batch_size": self.batch_size,
                "chains": self.chains,
            },
            "least_draws": self.draws,
            "task": self.task.identity(),
        }

    def run(self, advance: Advance) -> None:
        import torch

        from replicate.automatic import Search
        from replicate.sampling import curvature
        from replicate.sampling.gradient import EXAMPLES
        from replicate.sampling.walkers import Walkers

        task, (windows, probes, products) = units.load(self.task), self.hessian
        family, model = self.task.family, self.task.model
        losses_N = units.read_losses(self.baseline, task.examples)
        order_N = order(self.seed, family, task.examples, "gradient")
        hessian_N = torch.from_numpy(order_N[:windows])
        found = curvature.measure(
            task,
            hessian_N,
            gradient_M=torch.from_numpy(order_N[: max(EXAMPLES, windows)]),
            batch_size=self.microbatch_size or self.batch_size,
            probes=probes,
            products=products,
            seed=derive(self.seed, "curvature"),
            advance=silent,
        )
        arrays, notes = {}, []
        for nbeta in self.nbeta:
            walkers = Walkers(
                task,
                losses_N,
                shuffles=1,
                chains=self.chains,
                order=lambda _: order(self.seed, family, task.examples, "curve"),
                noise=lambda _, chain: derive(self.seed, "noise", "curve", model, chain),
            )
            search = Search(
                walkers=walkers,
                curvature=found,
                loss=float(losses_N.mean(dtype=np.float64)),
                guess=None,
                labels=task.examples,
                batch_size=self.batch_size,
                microbatch_size=self.microbatch_size,
                budget=10**12,
                advance=silent,
                hessian_N=hessian_N[: HESSIAN.windows],
            )
            for gamma in self.localization:
                trace = search.rung(search.settings(nbeta, gamma, None), self.draws)
                advance(self.chains * self.draws)
                trace = trace.drop_vars("seconds", errors="ignore")
                values = {name: each.values for name, each in trace.variables.items()}
                arrays |= {f"{len(notes)}/{name}": each for name, each in values.items()}
                at_minimum = {
                    "trace": list(found.trace),
                    "gradient_squared": list(found.gradient_squared),
                }
                at_minimum |= search.at_minimum(nbeta, gamma)
                dims = {name: each.dims for name, each in trace.variables.items()}
                notes.append({"dims": dims, "attributes": trace.attrs, "minimum": at_minimum})
        self.write(arrays, rungs=notes, task=task.identity())

    def traces(self) -> list[xr.Dataset]:
        """Returns the trace at each nβ and γ, with what is known of w* there as `minimum`."""
        arrays, notes = self.read()
        loss = float(tensors.load(self.baseline)["losses"].mean(dtype=np.float64))
        found = []
        points = [(b, i) for b in self.nbeta for i in range(len(self.localization))]
        for k, ((b, i), rung) in enumerate(zip(points, notes["rungs"], strict=True)):
            variables = {name: (dims, arrays[f"{k}/{name}"]) for name, dims in rung["dims"].items()}
            so_far = replace(self, nbeta=(b,), localization=self.localization[: i + 1])
            about = so_far.planned() | rung["attributes"] | {"task": notes["task"]}
            about |= {key: notes[key] for key in ("code", "machine")}
            about["baseline"] = {"loss": loss, "windows": self.task.hashes[0]}
            about["minimum"] = rung["minimum"]
            found.append(xr.Dataset(variables, attrs=about))
        return found


def plan(config: Config, model: str) -> CurveUnit:
    """Returns the unit of one model."""
    family = config.families[config.family_of(model)]
    task = plans.task_config(config, model)
    losses, given = plans.baseline_file(config, task), family.curve
    assert given is not None, "a family without curve"
    numbers = given.curvature or config.baseline.curvature or HESSIAN
    return CurveUnit(
        root=config.paths.cache,
        stage="curve",
        task=task,
        nbeta=tuple(given.nbeta),
        localization=tuple(sorted(given.localization, reverse=True)),
        chains=given.chains,
        draws=given.draws,
        batch_size=family.sampling.batch_size,
        microbatch_size=family.microbatch_size,
        hessian=tuple(numbers.model_dump().values()),
        seed=config.seed,
        baseline=losses,
        baseline_hash=tensors.fingerprint({"losses": tensors.load(losses)["losses"]}),
    )


def at(config: Config, model: str, nbeta: float, gamma: float) -> Sequence[CurveUnit]:
    """Returns the unit whose last trace is that of a model at nβ and γ, for `collect`."""
    unit = plan(config, model)
    gammas = tuple(x for x in unit.localization if x >= gamma)
    return [replace(unit, nbeta=(nbeta,), localization=gammas)]


def run(config: Config, family: str, only: str | None = None) -> None:
    """Writes a trace for each model, nβ and γ."""
    given, out = config.families[family].curve, config.paths.curve(family)
    if given is None:
        out.mkdir(parents=True, exist_ok=True)
        print(f"{family}: has no `curve` in params.yaml, so nothing is run")
        return
    models = plans.only(given.models, only)
    ladders = [plan(config, name) for name in models]
    run_units(ladders, config.machine, f"curve {family}", config.families[family].gpus_per_model)
    for unit in ladders:
        for trace in unit.traces():
            nbeta, gamma = trace.attrs["sampling"]["nbeta"], trace.attrs["sampler"]["localization"]
            traces.save(trace, out / unit.task.model / f"{nbeta:g}" / f"{gamma:g}")
    print(f"{family}: {len(models)} models at {len(given.nbeta)} × {len(given.localization)}")
