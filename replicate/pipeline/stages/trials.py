"""The chains of a search's settings, on this process or on several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
import xarray as xr

from replicate.errors import UserError
from replicate.models import task as subjects
from replicate.pipeline import parallel as processes
from replicate.pipeline.checkpoints import Checkpoints
from replicate.pipeline.config import Params
from replicate.pipeline.stages import chains
from replicate.sampling import Plan, Setting, sample
from replicate.seeds import derive

Execute = Callable[[Sequence[Setting]], Iterable[xr.Dataset]]


@dataclass(frozen=True)
class Job:
    """What every worker works on."""

    params: Params
    family: str
    windows_in: Path
    model_in: Path
    baseline_in: Path
    log: Path

    def store(self, folder: str, *settings: object) -> Checkpoints:
        plan, inputs = (
            self.params.families[self.family].search,
            [self.windows_in, self.model_in, self.baseline_in],
        )
        return chains.store(
            self.params,
            self.family,
            self.log / folder,
            inputs,
            plan.model,
            plan.burn_in,
            plan.draws,
            *settings,
        )

    def runner(self) -> Callable[[Setting], xr.Dataset]:
        """From a setting to its trace; the model is loaded once. All settings have the same batches
        and the same noise.
        """
        family = self.params.families[self.family]
        plan, sampling, micro = family.search, family.sampling, family.microbatch
        subject = subjects.load(self.params, plan.model, self.windows_in, self.model_in)
        losses = subjects.baseline_losses(self.baseline_in, len(subject.tokens_NxL))
        shape = Plan(
            sampling.nbeta,
            sampling.batch_size,
            1,
            plan.chains,
            plan.burn_in,
            plan.draws,
            True,
            sampling.implementation,
            micro,
        )

        def run(setting: Setting) -> xr.Dataset:
            done = self.store("chains", asdict(setting))
            return sample(
                subject.space,
                subject,
                losses,
                setting,
                shape,
                order=lambda _: subject.order("search"),
                noise=lambda _, chain: derive(
                    self.params.seed, "noise", "search", plan.model, chain
                ),
                advance=lambda steps=1, note="": None,
                done=done,
                rest=done.rest,
            )

        return run


_chains: Callable[[], Callable[[Setting], xr.Dataset]]  # of this worker


def start(job: Job, numbers: SimpleQueue[int]) -> None:
    """Makes this process a worker: of one thread, so that its sums are the same however many
    workers there are, and on a GPU of its own where there are enough.
    """
    global _chains
    torch.set_num_threads(1)
    number = numbers.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(
            number % max(1, torch.cuda.device_count() // job.params.families[job.family].cards)
        )
    _chains = cache(job.runner)


def work(setting: Setting) -> xr.Dataset:
    return _chains()(setting)


@contextmanager
def workers(job: Job, count: int) -> Iterator[Execute]:
    """Runs settings on `count` processes, on this one alone if `count` is 1; the traces come in the
    settings' order.
    """
    numbers: SimpleQueue[int] = processes.CONTEXT.SimpleQueue()
    for number in range(count):
        numbers.put(number)
    if count == 1:
        start(job, numbers)
        yield lambda settings: map(work, settings)
        return
    try:
        with processes.pool(count, start, job, numbers) as pool:
            yield lambda settings: pool.map(work, settings)
    except BrokenProcessPool:
        raise UserError(
            f"search {job.family}: a process died, perhaps for want of memory; run it again, or with fewer (machine.processes)"
        ) from None
