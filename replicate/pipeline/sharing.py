"""Starts one cluster for all stages of a command, so that not every stage starts its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from replicate.errors import UserError
from replicate.pipeline import parallel, processes


def share(command: Sequence[str], workers: int) -> int:
    """Runs a command whose stages share one cluster.

    The cluster starts when the first stage needs it, and ends with the command.

    Args:
        command: the command and its arguments.
        workers: the number of worker processes.

    Returns:
        The command's exit code.

    Raises:
        UserError: the command cannot be run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sys.warnoptions.append("ignore:resource_tracker")  # its semaphores end with this process
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
            processes.import_dask()
            processes.silence_dask()
            _cluster = parallel.embedded(workers, 1, port)  # lives as long as this variable
        return process.wait()
