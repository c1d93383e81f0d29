"""What the process that worker processes are forked from does, once: it is imported there alone.

It holds the slow imports, so that a worker starts in a fraction of a second. Every worker forked
from it first ties itself to it.
"""

import logging
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
from replicate.pipeline.stages import calibrate, pretrain  # noqa: E402, F401

torch.set_num_threads(1)
parallel.STARTED.update({stage: cache.contents(stage) for stage in cache.UNITS})
for _name in list(logging.root.manager.loggerDict):  # dask's: the client says what goes wrong
    if _name.startswith("distributed"):
        logging.getLogger(_name).setLevel(logging.CRITICAL)
