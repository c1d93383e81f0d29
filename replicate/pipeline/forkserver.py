"""Prepares the fork server, the process that worker processes are forked from.

Only the fork server imports this module. It imports slow packages once, so that a worker starts in
a fraction of a second. Every worker first arranges to end with the fork server.
"""

import os

from replicate.pipeline import processes

processes.begin(os.getppid())
_PARENT = os.getpid()
os.register_at_fork(after_in_child=lambda: processes.begin(_PARENT))
processes.use_one_thread()
processes.import_dask()

import torch  # noqa: E402
import transformers  # noqa: E402, F401

from replicate.pipeline import cache, parallel  # noqa: E402
from replicate.pipeline.stages import calibrate, coverage, pretrain  # noqa: E402, F401

torch.set_num_threads(1)
parallel.STARTED.update({stage: cache.contents(stage) for stage in cache.UNITS})
processes.silence_dask()
