"""Spreads units of work over processes, on this machine or on a running cluster, by dask.

A unit, such as a chain, a search trial or a training, runs only if its file is not in the cache.
It writes that file and returns no data. So if a process dies, only its own unit is lost, and
results do not depend on the number of processes.

More than two missing units start a cluster of worker processes, one for each core or GPU, each with
one thread. At most two run in this process. With `sharing`, all stages of a command use one
cluster. With `machine.scheduler`, units go to a scheduler that runs elsewhere; its workers
(`python -m replicate worker ADDRESS`) run in the same folder.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import re
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Literal, Self

from replicate.errors import UserError, refusal
from replicate.pipeline import environment, processes
from replicate.pipeline.cache import code_hash, contents
from replicate.progress import Advance, progress, silent

if TYPE_CHECKING:
    from replicate.pipeline.config.schema import Machine
    from replicate.pipeline.work.units import CachedUnit

STARTED: dict[str, str] = {}  # stage → hash of its code (`contents`) when the workers started
PATIENCE = 300  # seconds to wait for the first worker
ANSWER = 30  # seconds to wait for a scheduler
COUNT_EVERY = 1  # seconds between two looks at the number of workers
# the environment variable that holds a shared cluster's address, the file to touch, and its folder
SHARED = "REPLICATE_SCHEDULER"
FEW = 2  # the most units that are computed in this process


class Engine:
    """Runs units. Its worker processes stay alive from one call to the next."""

    def __init__(self, machine: Machine, gpus_per_model: int = 1) -> None:
        self.scheduler = machine.scheduler or (shared() if gpus_per_model == 1 else None)
        self.gpus_per_model = gpus_per_model
        self.workers = count(machine.workers, gpus_per_model)
        self.client: Any = None
        self._cluster: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.client, self._cluster):
            if each is not None:
                each.close(timeout=10)

    def run(self, units: Iterable[CachedUnit], title: str) -> None:
        """Computes the units whose files the cache lacks.

        Raises:
            UserError: a unit raises it, no worker answers at `machine.scheduler`, a worker runs
                other code or in another folder, the scheduler ended, or two workers died while they
                computed the same unit.
        """
        missing = [unit for unit in units if not unit.done()]
        if not missing:
            return
        alone = self.scheduler is None and self.client is None
        alone = alone and (len(missing) <= FEW or self.workers == 1)
        client = None if alone else self._connected()
        with progress(title, sum(unit.steps for unit in missing)) as advance:
            if client is None:
                run_here(missing, advance)
            else:
                run_spread(client, missing, advance)

    def _connected(self) -> Any:
        if self.client is None:
            processes.import_dask()
            from distributed import Client

            processes.silence_dask()
            address = self.scheduler
            if address is None:
                self._cluster = embedded(self.workers, self.gpus_per_model)
                address = self._cluster.scheduler_address
            check_address(address)
            try:
                self.client = Client(address, timeout=ANSWER, set_as_default=False)
                self.client.wait_for_workers(1, timeout=PATIENCE)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"machine.scheduler: no workers at {address} ({error}); start"
                    f" `dask scheduler` there and `python -m replicate worker {address}`"
                ) from None
        return self.client


def run_units(
    units: Iterable[CachedUnit], machine: Machine, title: str, gpus_per_model: int = 1
) -> None:
    """Computes the units whose files the cache lacks, on processes of their own (see `Engine`)."""
    with Engine(machine, gpus_per_model) as engine:
        engine.run(units, title)


def run_here(units: Sequence[CachedUnit], advance: Advance) -> None:
    """Computes units in this process, on one thread as in a worker, so that sums round alike."""
    import torch

    from replicate.models.cpu_kernels import fast_cpu

    torch.set_num_threads(1)
    with fast_cpu():
        for unit in units:
            unit.run(advance)


def run_spread(client: Any, units: Sequence[CachedUnit], advance: Advance) -> None:
    """Computes units in the worker processes of a dask client.

    A worker gets its next unit only when it has finished one. If units waited at a worker that
    dies, dask would count the death as a failure of each of them.

    Raises:
        UserError: a unit raises it, a worker runs other code or in another folder, the scheduler
            ended, or two workers died in one unit.
    """
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError

    waiting = deque(units)
    running: dict[Any, CachedUnit] = {}
    ended, workers, counted = as_completed([], loop=client.loop), 0, -math.inf
    with marked(units[0].root) as mark:
        while waiting or running:
            if time.monotonic() > counted + COUNT_EVERY:  # it asks the scheduler
                workers, counted = sum(client.nthreads().values()), time.monotonic()
            while waiting and len(running) < max(1, workers):
                unit = waiting.popleft()
                given = unit.stage, pickle.dumps(unit), code_hash(unit.stage), mark
                future = client.submit(execute, *given, pure=False)
                running[future] = unit
                ended.add(future)
            future = next(ended)
            unit = running.pop(future)
            try:
                future.result()
            except KilledWorker:
                raise UserError(
                    f"{unit.name}: it ended two worker processes, perhaps for want of memory; lower"
                    " machine.workers, or the family's microbatch_size in params.yaml. Finished"
                    " units stay in the cache"
                ) from None
            except FutureCancelledError:
                raise UserError(
                    f"{unit.name}: the scheduler ended; start it and its workers again, and run the"
                    " same command again: what is finished is kept"
                ) from None
            advance(unit.steps, unit.name)


@contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Makes a file in a folder, by which a worker sees that it has this folder too."""
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder, prefix=".mark-") as file:
        yield folder / Path(file.name).name  # relative, as the folder is


def execute(stage: str, packed: bytes, code: str, mark: Path) -> None:
    """Computes a unit in a worker process, if the worker has the client's code and folder.

    Args:
        stage: the unit's stage.
        packed: the unit, pickled; a worker of other code might not be able to read it.
        code: the hash of the client's code.
        mark: a file that the client has made in the cache.

    Raises:
        UserError: the worker started with other code, the code was changed after it started, the
            worker is in another folder, or the machine lacks memory or disk.
    """
    worker = f"the worker in {Path.cwd()} on {socket.gethostname()}"
    started = STARTED.get(stage)
    if started is None or contents(stage) != started or code_hash(stage) != code:
        raise UserError(
            f"{worker} runs other code than this command; start it again with the code of this"
            " commit"
        )
    if not mark.exists():
        raise UserError(
            f"{worker} does not see this command's cache and data; start it in the project's"
            " folder, which all machines share"
        )
    unit: CachedUnit = pickle.loads(packed)  # noqa: S301 - dask sends pickles itself
    try:
        if not unit.done():
            run_here([unit], silent)
    except Exception as error:
        told = refusal(error)
        if told is None:
            raise
        raise UserError(f"{unit.name}, on {socket.gethostname()}: {told}") from None


def count(workers: int | Literal["auto"], gpus_per_model: int = 1) -> int:
    """Returns the number of worker processes: `workers`, or if that is auto, one for each
    `gpus_per_model` GPUs, or without a GPU one for each core.
    """
    if workers != "auto":
        return workers
    if not version("torch").endswith("+cpu"):  # this is known without importing torch
        import torch

        if torch.cuda.is_available():
            return max(1, torch.cuda.device_count() // gpus_per_model)
    return environment.cores()


def nanny(number: int, gpus_per_model: int) -> dict[str, Any]:
    """Returns the options of a dask nanny, which starts and watches worker process `number`.

    A worker sees only its own GPUs.
    """
    import torch

    environment: dict[str, str] = dict.fromkeys(processes.ONE_THREAD, "1")
    if torch.cuda.is_available():
        total = torch.cuda.device_count()
        given = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(total)))
        first = number * gpus_per_model % total
        own = given.split(",")[first : first + gpus_per_model]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return {"nthreads": 1, "memory_limit": 0, "dashboard": False, "env": environment}


def prepare_forks() -> None:
    """Starts the process that workers are forked from, before dask has threads of its own."""
    from multiprocessing import forkserver

    processes.use_one_thread()
    multiprocessing.set_forkserver_preload(["replicate.pipeline.forkserver"])
    forkserver.ensure_running()


def embedded(workers: int, gpus_per_model: int, port: int = 0) -> Any:
    """Starts a cluster of worker processes that ends with this process."""
    prepare_forks()
    from distributed import Nanny, Scheduler, SpecCluster

    specs = {i: {"cls": Nanny, "options": nanny(i, gpus_per_model)} for i in range(workers)}
    options = {"dashboard": False, "host": "127.0.0.1", "port": port}
    return SpecCluster(specs, {"cls": Scheduler, "options": options}, silence_logs=False)


def shared() -> str | None:
    """Returns the address of the cluster that the stages of a command share, if there is one.

    The workers run in one folder, so a stage in another folder gets None. The first call of this
    function makes `sharing` start the cluster: it touches the file that `sharing` waits for.
    """
    address, wanted, folder = os.environ.get(SHARED, "  ").split(" ", 2)
    if not address or folder != str(Path.cwd()):
        return None
    Path(wanted).touch()
    return address


ADDRESS = re.compile(r"((tcp|tls|wss?|ucx)://)?([^\s/:]+|\[[0-9a-fA-F:]+\]):\d{1,5}")


def check_address(address: str) -> None:
    """Checks that an address can be that of a dask scheduler.

    Raises:
        UserError: it cannot.
    """
    if not ADDRESS.fullmatch(address):
        wanted = "write tcp://HOST:PORT, as `dask scheduler` prints it"
        raise UserError(f"scheduler {address!r}: is no address; {wanted}")
