"""One cluster for all stages that a command runs, which saves each stage its start."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from replicate.errors import UserError
from replicate.pipeline import parallel, processes


def share(command: Sequence[str], workers: int) -> int:
    """Runs a command whose stages share one cluster, which starts with the first stage that asks
    for it and ends with the command.

    Returns:
        The command's exit code.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sys.warnoptions.append("ignore:resource_tracker")  # of semaphores that end with this process
    parent = os.getpid()
    with TemporaryDirectory(prefix="replicate-") as folder:
        wanted = Path(folder) / "wanted"
        told = {parallel.SHARED: f"tcp://127.0.0.1:{port} {wanted} {Path.cwd()}"}
        try:
            process = subprocess.Popen(
                command, env=os.environ | told, preexec_fn=lambda: processes.begin(parent)
            )
        except OSError as error:
            raise UserError(f"{command[0]}: cannot be run ({error.strerror}); correct it") from None
        while process.poll() is None and not wanted.exists():
            time.sleep(0.05)
        if process.poll() is None:
            _cluster = _start(workers, port)  # it lives as long as this name
        return process.wait()


def _start(workers: int, port: int) -> Any:
    parallel.prepare_forks()  # by the main thread: they end with the thread that starts them
    processes.import_dask()
    import dask.config

    dask.config.set(parallel.SETTINGS)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    return parallel.embedded(workers, 1, port)
