"""Sets up each process of the pipeline: what it prints, and that it ends with its parent.

Ctrl-C and SIGTERM have their default action: a process ends at once. Finished units are not lost,
because each is a complete file in the cache. On Linux a process also ends when its parent ends, for
whatever reason.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from replicate.errors import UserError

PR_SET_PDEATHSIG = 1
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CHECKED: dict[str, Callable[[str], object]] = {
    "HF_ENDPOINT": urlsplit,
    "HF_HUB_DOWNLOAD_TIMEOUT": int,
    "HF_HUB_ETAG_TIMEOUT": int,
}
DASK = {
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.worker.daemon": True,
    "distributed.scheduler.allowed-failures": 1,  # a unit fails if two workers die in it
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": None,
    "distributed.admin.tick.limit": "1h",
    "distributed.comm.timeouts.connect": "60s",
}


class Outlet(io.TextIOWrapper):
    """An output whose reader may end first, as `head` does; what is printed then is dropped."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), self.fileno())


def begin(parent: int | None = None) -> None:
    """Gives Ctrl-C its default action, and on Linux makes this process end with `parent`.

    A character that an output cannot show is printed as "?", and an output that its reader closes
    decides nothing. Figures are drawn without a screen.

    Args:
        parent: the id of the process that this one must end with; None if there is none.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["MPLBACKEND"] = "agg"
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, Outlet):
            lines, encoding = stream.line_buffering, stream.encoding
            stream.flush()
            outlet = Outlet(stream.buffer, encoding, "replace", line_buffering=lines)
            setattr(sys, name, outlet)
        elif stream is None:  # it was closed before this process began
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the line above
        os._exit(1)


def check_environment() -> None:
    """Refuses variables with which the client of the Hugging Face hub cannot even be imported.

    Raises:
        UserError: the message names the variable.
    """
    for name, check in CHECKED.items():
        value = os.environ.get(name, "0")
        try:
            check(value)
        except ValueError:
            raise UserError(f"{name}: {value!r} cannot be used; correct it or unset it") from None


def use_one_thread() -> None:
    """Makes libraries that are imported later compute on one thread."""
    for name in ONE_THREAD:
        os.environ[name] = "1"


def import_dask() -> None:
    """Imports dask with the settings in `DASK`, and without the user's variables and files.

    A bad `DASK_*` variable or file would otherwise stop a stage with a traceback, and a good one
    would change how its work is spread.
    """
    for name in [name for name in os.environ if name.startswith("DASK_")]:
        del os.environ[name]
    home = os.environ.get("HOME")
    os.environ["HOME"] = os.environ["DASK_ROOT_CONFIG"] = os.devnull
    try:
        import dask.config
        import distributed  # noqa: F401 - it adds its defaults to dask's
    finally:
        del os.environ["DASK_ROOT_CONFIG"], os.environ["HOME"]
        if home is not None:
            os.environ["HOME"] = home
    dask.config.refresh(paths=[], env={})
    dask.config.set(DASK)


def silence_dask() -> None:
    """Drops what dask logs, because its client raises the same errors."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
