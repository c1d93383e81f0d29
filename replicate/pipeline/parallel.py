"""Work spread over processes by accelerate: one on each GPU, or on each core of a CPU, on one
machine or on several.

A command that finds itself alone starts its own copies on this machine. `accelerate launch
--num_processes … -m replicate …`, or torchrun, starts them on several. Each process does a share
that depends on nothing but its rank, with its own copy of the model, and leaves what it has
finished on disk, which all of them must see: so the result is the same whatever their number, and
what a lost process had finished is kept.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, Literal, TypeVar

from replicate.errors import UserError
from replicate.pipeline.interruption import end_with

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1

    def share(self, pieces: Sequence[T]) -> list[T]:
        """Every `size`-th of the first process's pieces, so that neighbours, which cost alike, are
        on different processes.

        All call it together, and the first one's list is dealt: another that looks later may find
        less that is still to be done.
        """
        agreed = [pieces]
        if self.size > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(agreed)
        return list(agreed[0][self.rank :: self.size])


def count(wanted: int | Literal["auto"], cards: int = 1) -> int:
    """How many processes there should be on this machine: as many as wanted, else one for every
    `cards` GPUs, else for every core.
    """
    if wanted != "auto":
        return wanted
    if any(Path("/dev").glob("nvidia[0-9]*")):
        import torch

        if torch.cuda.is_available():
            return max(1, torch.cuda.device_count() // cards)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(processes: int) -> None:
    """Makes this process the first of `processes`, and starts the others by the same command; they
    end when this one does.

    To be called before anything slow is imported. Nothing is started in a world that another
    launcher made.
    """
    if "WORLD_SIZE" in os.environ:
        if "REPLICATE_PARENT" in os.environ:
            end_with(int(os.environ["REPLICATE_PARENT"]))
        return
    if processes == 1:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(common | {"RANK": "0", "LOCAL_RANK": "0"})
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # or each warns that a machine without network has no name
    command = [sys.executable, *sys.orig_argv[1:]]
    for rank in range(1, processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "REPLICATE_PARENT": str(os.getpid())}
        _children.append(subprocess.Popen(command, env=os.environ | place))


_children: list[subprocess.Popen[bytes]] = []


@contextmanager
def world(what: str) -> Iterator[World]:
    """The processes that `start`, or another launcher, started for this command; when the body
    ends, waits for all of them.

    On a CPU each has one thread, so that its sums, and with them the results, do not depend on how
    many there are.

    Raises:
        UserError: a process was lost.
    """
    import torch

    size, cpu = int(os.environ.get("WORLD_SIZE", "1")), not torch.cuda.is_available()
    if cpu:
        os.environ["OMP_NUM_THREADS"] = "1"  # or accelerate takes all cores for each process
        torch.set_num_threads(1)
    if size == 1:
        yield World()
        return
    from accelerate import PartialState

    try:
        state = PartialState(cpu=cpu)
        if state.num_processes != size:
            raise UserError(
                f"{what}: {size} processes were started and {state.num_processes} found each other; start them again"
            )
        yield World(state.process_index, size)
        try:
            state.wait_for_everyone()
        except RuntimeError:
            raise UserError(
                f"{what}: a process was lost, perhaps for want of memory; what is finished is kept: run it again, or with fewer"
                " (machine.processes)"
            ) from None
        state.destroy_process_group()
    except BaseException:
        for child in _children:
            child.terminate()
        raise
    for child in _children:
        child.wait()


def pool(
    workers: int, initialise: Callable[..., None] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """Workers of one thread each, which end when this process does; each calls
    `initialise(*arguments)` first.
    """
    return ProcessPoolExecutor(workers, CONTEXT, _prepare, (os.getpid(), initialise, arguments))


class Worker(SpawnProcess):
    """Deaf to Ctrl-C, which ends the process that it belongs to."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Context(SpawnContext):
    Process = Worker


CONTEXT = Context()


def _prepare(
    parent: int, initialise: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    import torch

    end_with(parent)
    torch.set_num_threads(1)
    if initialise is not None:
        initialise(*arguments)
