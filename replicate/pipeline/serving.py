"""Runs workers for a scheduler on another machine."""

from __future__ import annotations

import asyncio

from replicate.errors import UserError
from replicate.pipeline import parallel, processes


def serve(address: str, workers: int, gpus_per_model: int, host: str | None) -> None:
    """Runs worker processes of this machine for a scheduler elsewhere, until they are stopped.

    Args:
        address: the address of the scheduler, such as tcp://10.0.0.1:8786.
        workers: the number of processes.
        gpus_per_model: GPUs that each process sees.
        host: the address at which other machines reach this one; None to detect it.

    Raises:
        UserError: no scheduler answers at `address`.
    """
    parallel.check_address(address)
    processes.import_dask()
    from distributed import Nanny
    from distributed.comm.core import connect

    async def find() -> None:
        comm = await connect(address, timeout=parallel.ANSWER)
        await comm.close()

    try:
        asyncio.run(find())
    except (OSError, ValueError) as error:
        raise UserError(
            f"scheduler {address}: nobody answers ({error}); start `dask scheduler` there first"
        ) from None
    parallel.prepare_forks()

    async def run() -> None:
        specs = [parallel.nanny(i, gpus_per_model) for i in range(workers)]
        nannies = [Nanny(address, host=host, **options) for options in specs]
        for each in nannies:
            await each
        print(f"{workers} workers serve {address}; Ctrl-C ends them", flush=True)
        await asyncio.gather(*(each.finished() for each in nannies))

    asyncio.run(run())
