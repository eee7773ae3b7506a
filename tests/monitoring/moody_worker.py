"""The real worker and the real training in a mood: RUN/mood.json says what is wrong from now on, and may change at every step.

{"data_wait_s": 0.2}           every rank waits so long for its data
{"slow": {"2": 0.3}}           rank 2 takes so much longer in its own work
{"step_s": 2.5}                every rank does
{"loss": 5.0}                  so much is added to the loss that is reported
{"loss_once": "nan", "id": 7}  the loss of one step is this
{"disk": "full"}               no checkpoint can be written
"""

import errno
import json
import os
import sys
import time
from pathlib import Path

from launcher.worker import main

_PEAK_FLOPS = 1e12  # as if this CPU's were known, so that MFU is shown


class Mood:
    """The newest content of the file, read when it has changed."""

    def __init__(self, run_path: Path):
        self._file, self._read_at, self._values, self._done = run_path / "mood.json", 0, {}, set()

    def get(self, key: str, default=None):
        if self._file.exists() and (changed_at := self._file.stat().st_mtime_ns) != self._read_at:
            self._values, self._read_at = json.loads(self._file.read_text()), changed_at
        return self._values.get(key, default)

    def is_new(self) -> bool:
        """Whether this mood's id is seen for the first time."""
        number = self.get("id")
        is_new = number not in self._done
        self._done.add(number)
        return is_new


def train(config, job, run):
    """pretrain() in the mood of the moment."""
    from robustbert.checkpoint import saving
    from robustbert.data.batches import TrainBatches
    from robustbert.train import metrics
    from robustbert.train import pretrain as loop

    mood = Mood(run.path)
    original_run, original_write, original_batches = loop.run_micro_batches, saving.write_file, TrainBatches.micro_batches

    def micro_batches(self, step):
        time.sleep(mood.get("data_wait_s", 0))
        return original_batches(self, step)

    def run_micro_batches(model, batches, *args, **kwargs):
        losses = original_run(model, batches, *args, **kwargs)
        time.sleep(mood.get("slow", {}).get(str(job.rank), 0) + mood.get("step_s", 0))
        added = mood.get("loss", 0.0)
        if mood.get("loss_once") and mood.is_new():
            added = float(mood.get("loss_once"))
        losses[0] += added * sum(len(batch.targets_M) for batch in batches)
        return losses

    def write_file(path, chunks):
        if mood.get("disk") == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return original_write(path, chunks)

    TrainBatches.micro_batches = micro_batches
    loop.run_micro_batches, saving.write_file = run_micro_batches, write_file
    metrics.peak_flops = lambda name, precision: _PEAK_FLOPS
    return loop.pretrain(config, job, run)


if __name__ == "__main__":
    main(sys.argv[1:], train)
