"""The real worker and the real training, with one fault: RUN/fault.json says which, and it happens once in a run.

{"rank": 1, "action": "kill", "point": "before step", "count": 3}: at the third time that rank 1 comes to this point.
{"rank": 0, "action": "kill", "after_s": 4.2}: that long after the process' start.
Actions: kill, stop (SIGSTOP), raise, memory, nan, spike, flip (a bit of the weights), spin (for ever, but alive).
"always": true repeats it in every attempt; "slow_s" makes every step of every rank take that much longer, with "slow_rank"
the forward pass of that rank alone, and with "slow_until" as well only up to this step.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

from launcher.job_env import find_rank
from launcher.worker import main

POINTS = (
    *("before step", "after backward", "after update"),
    *("before write", "amid write", "after write", "before manifest", "before commit", "after commit"),
    *("before removal", "amid removal", "after removal"),
    *("start: opening the data", "start: meeting the other processes", "start: building the model"),
    *("start: loading the checkpoint", "start: evaluating"),
)


FAULT = None


class Fault:
    """Counts how often this process comes to the point of its fault."""

    def __init__(self, run_path: Path, rank: int):
        file = run_path / "fault.json"
        self.plan = json.loads(file.read_text()) if file.exists() else {}
        self.done_file = run_path / "fault_done"
        self.is_mine = self.plan.get("rank") == rank
        self.left = self.plan.get("count", 1)
        if self.is_mine and "after_s" in self.plan and not self.done_file.exists():
            threading.Thread(target=self._later, daemon=True).start()

    def at(self, point: str) -> str | None:
        """Break here if it is time to; the actions that need the caller are returned."""
        if not self.is_mine or self.plan.get("point") != point or (self.done_file.exists() and not self.plan.get("always")):
            return None
        self.left -= 1
        return self._act() if self.left == 0 else None

    def _later(self) -> None:
        time.sleep(self.plan["after_s"])
        self._act()

    def _act(self) -> str:
        self.done_file.write_text(json.dumps({"time": time.time(), "pid": os.getpid()}))
        action = self.plan["action"]
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "raise":
            raise RuntimeError("broken on demand")
        elif action == "memory":
            raise MemoryError("no memory, on demand")
        elif action == "spin":
            while True:
                sum(range(1000))
        return action


def train(config, job, run):
    """pretrain() with the faults built in."""
    import torch

    from robustbert.checkpoint import retention, saving
    from robustbert.train import pretrain as loop

    fault = FAULT or Fault(run.path, job.rank)

    def around(module, name, before=None, after=None):
        original = getattr(module, name)

        def replaced(*args, **kwargs):
            if before:
                fault.at(before)
            result = original(*args, **kwargs)
            if after:
                fault.at(after)
            return result

        setattr(module, name, replaced)

    def train_step(config, mesh, model, optimizer, *rest):
        if "slow_rank" not in fault.plan:
            time.sleep(fault.plan.get("slow_s", 0))
        fault.at("before step")
        trouble = original_step(config, mesh, model, optimizer, *rest)
        if fault.at("after update") == "flip":
            model.complete_weights()  # the others' parts would come on top
            weights = next(model.module.parameters()).detach().view(-1)
            weights.view(torch.int32)[7] ^= 1
        return trouble

    def run_micro_batches(model, *args, **kwargs):
        if fault.plan.get("slow_rank") == job.rank and (job.progress.step or 0) < fault.plan.get("slow_until", math.inf):
            time.sleep(fault.plan["slow_s"])
        losses = original_run(model, *args, **kwargs)
        action = fault.at("after backward")
        if action in ("nan", "spike"):
            with torch.no_grad():
                model.normalise_gradients()
                gradient = next(model.module.parameters()).main_grad
                gradient.mul_(float("nan")) if action == "nan" else gradient.add_(1000.0)
        return losses

    def write_half(path, chunks):
        chunks = list(chunks)
        if fault.is_mine and fault.plan.get("point") == "amid write" and fault.left == 1 and not fault.done_file.exists():
            original_write(path, [chunk[: len(chunk) // 2] for chunk in chunks])
        fault.at("amid write")
        return original_write(path, chunks)

    def remove(folder, **kwargs):
        if Path(folder).name.startswith(".removing_"):
            for file in sorted(Path(folder).iterdir())[:1]:
                file.unlink()
            fault.at("amid removal")
        return original_rmtree(folder, **kwargs)

    class Shutil:
        rmtree = staticmethod(remove)

    original_step, original_run, original_write = loop.train_step, loop.run_micro_batches, saving.write_file
    original_rmtree = retention.shutil.rmtree
    loop.train_step, loop.run_micro_batches, saving.write_file, retention.shutil = train_step, run_micro_batches, write_half, Shutil
    around(saving, "write_file", "before write", "after write")
    around(saving, "write_text_file", "before manifest")
    around(saving, "commit", "before commit", "after commit")
    around(saving, "remove_old", "before removal", "after removal")
    mark = job.progress.mark

    def marked(phase, step=None):
        mark(phase, step)
        if job.progress.step is None:
            fault.at(f"start: {phase}")

    job.progress.mark = marked
    return loop.pretrain(config, job, run)


if __name__ == "__main__":
    FAULT = Fault(Path(sys.argv[1]), find_rank(os.environ).rank)  # its clock runs before training is imported
    main(sys.argv[1:], train)
