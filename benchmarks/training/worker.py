"""A process that trains by one program, a step whenever it is told to: python -m benchmarks.training.worker FOLDER PROGRAM OVERRIDE...

FOLDER/config.yaml is the configuration, FOLDER/data its prepared data. Reads lines: "step" is answered by the step's seconds, minor
page faults, processor seconds of the kernel and loss; the end of the input by the peak of the resident memory. Answers are JSON lines.
"""

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from benchmarks.training.programs import opened
from robustbert.config import load_config
from robustbert.data.batches import build_train_batches
from robustbert.data.prepare import prepared_data
from robustbert.run_directory import RunDirectory

_NUM_BATCHES = 8


def main() -> None:
    """Serve until the input ends."""
    warnings.filterwarnings("ignore")
    folder, program, *overrides = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints does not stand between the answers
    config = load_config(Path(folder) / "config.yaml", overrides)
    made = build_train_batches(prepared_data(config.data, Path(folder) / "data"), config.data, config.train, config.run.seed, 0, 1)
    batches = [batch for step in range(_NUM_BATCHES) for batch in made.micro_batches(step)]
    made.close()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        run = RunDirectory(Path(scratch))
        run.path.joinpath("data").symlink_to(Path(folder) / "data")
        step = stack.enter_context(opened(program, config, run, batches))
        facts = {"tokens": sum(batch.num_real_tokens for batch in batches) / _NUM_BATCHES}
        facts["masked"] = sum(int((batch.targets_M >= 0).sum()) for batch in batches) / _NUM_BATCHES
        _answer(answers, facts)
        for _ in sys.stdin:
            before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            loss = step()
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
            faults, system_s = after.ru_minflt - before.ru_minflt, after.ru_stime - before.ru_stime
            _answer(answers, {"seconds": seconds, "faults": faults, "system_s": system_s, "loss": loss})
        _answer(answers, {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def _answer(file, values: dict) -> None:
    file.write(json.dumps(values) + "\n")
    file.flush()


if __name__ == "__main__":
    main()
