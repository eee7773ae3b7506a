"""Writes megatron-core's sharded format from the training process itself.

megatron-core's own writer starts a manager process (spawned: some seconds, and a second copy of every import) and forks
one writer a file out of a process that has threads and may use CUDA. Its files can as well be written by threads here.
"""

import queue
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.state_dict_saver import save_state_dict_async_finalize
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

_FORMAT, _FORMAT_VERSION = "torch_dist", 1
_FILES_PER_PROCESS = 2


class InProcessSaveStrategy(TorchDistSaveShardedStrategy):
    """The format `torch_dist` of megatron-core, two files a process, each flushed to disk by a thread."""

    def __init__(self):
        super().__init__(_FORMAT, _FORMAT_VERSION, thread_count=_FILES_PER_PROCESS)

    def async_save(self, sharded_state_dict, checkpoint_dir) -> AsyncRequest:
        # The plan's step fetches a queue for the results from this module; a plain one does within one process.
        filesystem_async._results_queue = queue.Queue()
        try:
            return super().async_save(sharded_state_dict, checkpoint_dir)
        finally:
            filesystem_async._results_queue = None

    def _get_save_and_finalize_callbacks(self, writer, save_state_dict_ret) -> AsyncRequest:
        return AsyncRequest(
            _write_buckets, [writer], [lambda: save_state_dict_async_finalize(*save_state_dict_ret)]
        )


def _write_buckets(writer) -> None:
    buckets = [
        (name, key, (data, [(item, tensor.cpu()) for item, tensor in tensors]))
        for name, key, (data, tensors) in writer.write_buckets
    ]
    if not buckets:
        return
    with ThreadPoolExecutor(len(buckets)) as threads:
        outcomes = list(threads.map(partial(_write_bucket, writer), range(len(buckets)), buckets))
    failures = [outcome for _, outcome in outcomes if isinstance(outcome, Exception)]
    writer.results_queue.put(failures[0] if failures else dict(outcomes))


def _write_bucket(writer, number: int, bucket):
    results, count = queue.Queue(), queue.Queue()
    count.put(number)
    writer.write_preloaded_data([writer.transforms], number, bucket, results, count, use_fsync=True)
    return results.get()
