"""One cluster for all stages that a command runs, which saves each stage its start."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from replicate.errors import UserError
from replicate.pipeline import parallel, processes


def share(command: Sequence[str], workers: int) -> int:
    """Runs a command whose stages share one cluster, which starts meanwhile and ends with it.

    Returns:
        The command's exit code.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sys.warnoptions.append("ignore:resource_tracker")  # of semaphores that end with this process
    parallel.prepare_forks()
    environment = os.environ | {parallel.SHARED: f"tcp://127.0.0.1:{port} {Path.cwd()}"}
    parent = os.getpid()
    try:
        process = subprocess.Popen(
            command, env=environment, preexec_fn=lambda: processes.begin(parent)
        )
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be run ({error.strerror}); correct it") from None
    threading.Thread(target=_start_shared, args=(workers, port), daemon=True).start()
    return process.wait()


def _start_shared(workers: int, port: int) -> None:
    processes.import_dask()
    import dask.config

    dask.config.set(parallel.SETTINGS)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    parallel.embedded(workers, 1, port)
