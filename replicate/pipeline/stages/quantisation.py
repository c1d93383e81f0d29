"""What a weight format does to w* and λ̂: the models of a study's quantised family in several
formats, with the same batches and noise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from replicate.data import tensors as arrays
from replicate.data import traces
from replicate.data.json_io import write_json
from replicate.models import baseline as minimum
from replicate.models import task as subjects
from replicate.pipeline import cache as kept
from replicate.pipeline import parallel as processes
from replicate.pipeline.checkpoints import Checkpoints
from replicate.pipeline.config import Params
from replicate.pipeline.stages import chains
from replicate.progress import Advance, progress
from replicate.sampling import Plan, Setting, assemble

MOVED = {"restricted": ("unquantised",), "full": ("all",)}  # what chains move


@dataclass(frozen=True)
class Job:
    """One model in one format; whoever has it examines w* and then runs all its chains."""

    name: str
    moved: str
    weights: str
    done: Checkpoints

    @property
    def minimum(self) -> Path:
        return self.done.folder / "minimum"

    def left(self, plan: Plan) -> list[list[tuple[int, int]]]:
        """The chains still to be run."""
        return plan.missing(self.done.keys())

    def known(self) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
        """What an interrupted run found at w*."""
        found = kept.read(self.minimum)
        return None if found is None else (found["losses"].numpy(), kept.noted(found["report"]))


def run(
    params: Params,
    study: str,
    windows_in: Path,
    models_in: Path,
    search_in: Path,
    out: Path,
    log: Path,
) -> None:
    family, wanted = (
        params.families[params.studies[study].quantised],
        params.studies[study].quantisation,
    )
    if wanted is None:
        out.mkdir(parents=True)
        print(f"{study}: no weight formats to try")
        return
    setting = chains.chosen(search_in)
    plan = chains.plan(family, wanted)
    settings = [asdict(setting), asdict(plan), params.baseline.model_dump()]

    def store(name: str, *what: str) -> Checkpoints:
        quantised = params.studies[study].quantised
        return chains.store(
            params,
            quantised,
            log / "chains",
            [windows_in, models_in / name],
            *settings,
            name,
            *what,
        )

    jobs = [
        Job(name, moved, weights, store(name, moved, weights))
        for name in wanted.models
        for moved, formats in (("restricted", wanted.restricted), ("full", wanted.full))
        for weights in formats
    ]
    with processes.world(f"quantisation {study}") as world:
        mine = world.share([i for i, job in enumerate(jobs) if job.left(plan)])
        with progress(
            f"quantisation {study}",
            sum(len(jobs[i].left(plan)) for i in mine) * plan.steps,
            world.rank,
        ) as advance:
            for i in mine:
                work(params, jobs[i], setting, plan, windows_in, models_in / jobs[i].name, advance)
    if world.rank:
        return
    for job in jobs:
        found = job.known()
        assert found is not None
        folder = out / job.name / f"{job.moved}-{job.weights}"
        traces.save(
            assemble(plan, job.done).assign_attrs(nbeta=plan.nbeta, lr=setting.lr),
            folder / "trace",
            log / "seconds" / job.name / folder.name,
        )
        arrays.save(folder / "losses.safetensors", {"losses": found[0]})
        write_json(folder / "minimum.json", found[1])
    for job in jobs:
        job.done.finish()
    print(f"{study}: {', '.join(wanted.models)} in {len(jobs) // len(wanted.models)} formats each")


def work(
    params: Params,
    job: Job,
    setting: Setting,
    plan: Plan,
    windows_in: Path,
    model_in: Path,
    advance: Advance,
) -> None:
    subject = subjects.load(
        params, job.name, windows_in, model_in, weights=job.weights, restriction=MOVED[job.moved]
    )
    found = job.known()
    if found is None:
        found = minimum.examine(subject, params.baseline, lambda steps=1, note="": None)
        kept.write(
            job.minimum, {"losses": torch.from_numpy(found[0]), "report": kept.note(found[1])}
        )
    chains.run(subject, setting, plan, job.left(plan), found[0], advance, job.done)
