"""Runs the stages: each in its own process with its own limit, checks side by side, measurements alone, within the time given."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from benchmarks.gpu.context import ROOT, Settings
from benchmarks.gpu.stages import PREPARE, Outcome, Stage, limit_of

STAGE_MARK = "ROBUSTBERT_GPU_STAGE"  # in the environment of all of a stage's processes, never read by them
_KILL_TIMEOUT_S = 5.0


@dataclass
class _Running:
    stage: Stage
    process: subprocess.Popen
    mark: str
    started: float
    limit_s: float


class Runner:
    """report: told of every outcome at once."""

    def __init__(self, settings: Settings, seconds: float, workers: int, report: Callable[[Outcome], None]):
        self.settings = settings
        self.workers = workers
        self._ends_at = time.monotonic() + seconds
        self._report = report
        self._running: list[_Running] = []
        self.outcomes: list[Outcome] = []

    def left_s(self) -> float:
        return self._ends_at - time.monotonic()

    def run(self, stages: list[Stage]) -> list[Outcome]:
        """All outcomes, in the order in which the stages ended. Without prepared data the others are skipped."""
        waiting = deque(stages)
        try:
            while waiting or self._running:
                while waiting and self._has_room_for(waiting[0]):
                    self._start(waiting.popleft(), list(waiting))
                self._collect()
                time.sleep(0.05)
        finally:
            for running in self._running:
                self._kill(running)
        return self.outcomes

    def _has_room_for(self, stage: Stage) -> bool:
        if stage.alone:
            return not self._running
        return len(self._running) < self.workers and not any(running.stage.alone for running in self._running)

    def _start(self, stage: Stage, waiting: list[Stage]) -> None:
        left = self.left_s()
        if any(outcome.stage.name == PREPARE and outcome.result != "ok" for outcome in self.outcomes):
            self._end(Outcome(stage, "skipped", "there is no prepared data"))
            return
        if left < stage.least_s:
            self._end(Outcome(stage, "skipped", f"{max(0.0, left):.0f} s left, it needs {stage.least_s:.0f}"))
            return
        limit_s, mark = limit_of(stage, waiting, left), f"{os.getpid()}-{stage.name}"
        for folder in (self.settings.logs, self.settings.results):
            folder.mkdir(parents=True, exist_ok=True)
        (self.settings.results / f"{stage.name}.json").unlink(missing_ok=True)
        with open(self.settings.logs / f"{stage.name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.stage", stage.name, stage.target, str(limit_s), self.settings.as_json()],
                cwd=ROOT,
                env=self._environment(stage, mark),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(_Running(stage, process, mark, time.monotonic(), limit_s))

    def _environment(self, stage: Stage, mark: str) -> dict[str, str]:
        sharing = 1 if stage.alone else self.workers
        path = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
        own = {STAGE_MARK: mark, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
        own["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // sharing))
        own |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if self.settings.rehearse:
            own |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return os.environ | own

    def _collect(self) -> None:
        for running in list(self._running):
            seconds = time.monotonic() - running.started
            if running.process.poll() is None and seconds < running.limit_s:
                continue
            was_killed = running.process.poll() is None
            self._kill(running)  # also what an ended stage has left behind
            self._running.remove(running)
            self._end(self._outcome(running, seconds, was_killed))

    def _outcome(self, running: _Running, seconds: float, was_killed: bool) -> Outcome:
        """What the stage wrote; where it did not get to its end, how it died and the last line of its log."""
        stage, written = running.stage, {}
        file = self.settings.results / f"{stage.name}.json"
        if file.exists():
            written = json.loads(file.read_text())
        values = written.get("values", {})
        if written.get("result", "running") != "running":
            return Outcome(stage, written["result"], written["text"], seconds, values)
        last = last_line(self.settings.logs / f"{stage.name}.log")
        if was_killed:
            return Outcome(stage, "killed", f"not ended after {running.limit_s:.0f} s; last: {last}", seconds, values)
        code = running.process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Outcome(stage, "error", f"died with {how}; last: {last}", seconds, values)

    def _end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._report(outcome)

    def _kill(self, running: _Running) -> None:
        """SIGKILL for the stage's process group, then for every process that carries its mark, until none is left."""
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        while (left := marked_processes(running.mark)) and time.monotonic() < deadline:
            for process in left:
                try:
                    process.kill()
                except psutil.Error:
                    continue
            psutil.wait_procs(left, timeout=0.5)


def marked_processes(mark: str) -> list[psutil.Process]:
    """The running processes of a stage, also those in sessions of their own, as the launcher starts them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(STAGE_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def last_line(log) -> str:
    """The last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][:200] if lines else "nothing was printed"
