"""A launcher in a folder of its own, whose every process is ended after the test."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launcher.processes import kill_job
from launcher.supervisor_record import read_supervisor
from robustbert.run_directory import RunDirectory

HERE = Path(__file__).parent
CONFIG = """\
run: {name: small}
model: {num_layers: 2, hidden_size: 16, ffn_hidden_size: 32, num_attention_heads: 2, max_sequence_length: 32}
data:
  tokenizer: {train: {vocab_size: 300}}
  train: [{text: text.txt}]
  valid_fraction: 0.1
optim: {warmup_steps: 2}
train: {steps: 10, global_batch_size: 4, micro_batch_size: 2}
checkpoint: {interval: 5}
fault_tolerance: {max_restarts: 1}
cluster: {processes_per_node: 2}
monitoring: {prometheus_port: null}
"""


class LauncherFolder:
    """A working folder with small.yaml and a text, in which the launcher is run with fake programs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._started: list[subprocess.Popen] = []
        (folder / "small.yaml").write_text(CONFIG)
        (folder / "text.txt").write_text("A line of text, and one more sentence.\n" * 400)

    def run_directory(self, name: str = "small") -> RunDirectory:
        return RunDirectory(self.folder / "runs" / name)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """Start `launcher ARGUMENTS` in a process group of its own; its output is read by `finish`."""
        process = subprocess.Popen(
            [sys.executable, str(HERE / "fake_launcher.py"), *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": f"{HERE.parent.parent}{os.pathsep}{HERE}", "CUDA_VISIBLE_DEVICES": ""} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def finish(self, process: subprocess.Popen, timeout_s: float = 90) -> subprocess.CompletedProcess:
        """Wait for the command; everything is killed where it takes longer."""
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill_all()
            output, errors = process.communicate()
            raise AssertionError(f"took longer than {timeout_s} s\n{output}\n{errors}\n{self.logs()}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def launcher(self, *arguments: str, timeout_s: float = 90, **environment: str) -> subprocess.CompletedProcess:
        return self.finish(self.start(*arguments, **environment), timeout_s)

    def wait_for(self, condition, timeout_s: float = 60):
        """Wait until condition() is true and return its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited {timeout_s} s in vain\n{self.logs()}"
            time.sleep(0.05)
        return value

    def wait_for_event(self, event: str, name: str = "small") -> dict:
        run = self.run_directory(name)
        return self.wait_for(lambda: next((e for e in run.events() if e["event"] == event), None))

    def wait_for_step(self, name: str = "small") -> None:
        self.wait_for(lambda: self.run_directory(name).metrics())

    def event_names(self, name: str = "small") -> list[str]:
        return [event["event"] for event in self.run_directory(name).events()]

    def processes(self) -> list[psutil.Process]:
        """Running processes whose command line or working folder is this folder's."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def logs(self) -> str:
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-2000:]}" for path in self.folder.rglob("*.log"))

    def kill_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for file in self.folder.rglob("supervisor.json"):
            record = read_supervisor(RunDirectory(file.parent))
            if record and record.runs_here and record.pid != os.getpid():
                os.kill(record.pid, signal.SIGKILL)
            if record:
                kill_job(record.job_mark)
        for process in self.processes():
            process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.cwd().startswith(str(self.folder)) or str(self.folder) in " ".join(process.cmdline())
        except psutil.Error:
            return False


@pytest.fixture
def launching(tmp_path):
    folder = LauncherFolder(tmp_path)
    yield folder
    folder.kill_all()
