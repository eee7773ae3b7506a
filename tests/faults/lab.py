"""A folder with prepared data in which runs of a small model break through the real launcher, and what they leave is compared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from launcher.processes import kill_job
from launcher.programs import python_path
from launcher.supervisor_record import read_supervisor
from robustbert.checkpoint.manifest import committed_checkpoints, verify
from robustbert.run_directory import RunDirectory
from tests.train.small_run import write_text

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 72, num_attention_heads: 4, max_sequence_length: 32}
data: {tokenizer: TOKENIZER, train: [{path: CORPUS}]}
optim: {lr: 1e-2, warmup_steps: 4}
train: {steps: 12, global_batch_size: 8, micro_batch_size: 2, log_interval: 1}
checkpoint: {interval: 2, keep_last: 2}
fault_tolerance: {max_restarts: 3, hang_timeout_s: 60, startup_timeout_s: 90}
cluster: {processes_per_node: 2}
monitoring: {prometheus_port: null}
"""


class FaultLab:
    """Runs `name`s in `folder`; the data is prepared once."""

    launch_module = "tests.faults.launch"

    def __init__(self, folder: Path):
        from robustbert.config import load_config
        from robustbert.data.prepare import prepare_run, prepared_data

        self.folder = folder
        write_text(folder / "text.txt")
        own = "data: {tokenizer: {train: {vocab_size: 300}}, train: [{text: %s}], prepare_workers: 1}" % (folder / "text.txt")
        lines = [own if line.startswith("data:") else line for line in CONFIG.splitlines()]
        (folder / "first.yaml").write_text("\n".join(lines))
        config = load_config(folder / "first.yaml")
        prepare_run(config.data, folder / "data")
        prepared = prepared_data(config.data, folder / "data")
        text = CONFIG.replace("TOKENIZER", str(prepared.tokenizer_dir)).replace("CORPUS", str(prepared.train[0].prefix))
        self.config_file = folder / "small.yaml"
        self.config_file.write_text(text)
        self.started: list[tuple[subprocess.Popen, RunDirectory]] = []

    def submit(
        self, name: str, fault: dict | None = None, *overrides: str, folder: Path | None = None, on: tuple[str, ...] = ()
    ) -> "FaultRun":
        """Start `launcher submit`; the fault is laid into the run's directory (in `folder`) as soon as that exists.

        on: words before the command, which bring it to another host.
        """
        run = RunDirectory((folder or self.folder / "runs") / name)
        return self._start(run, fault, on, "submit", str(self.config_file), f"run.name={name}", *overrides)

    def resume(self, run: RunDirectory, *overrides: str) -> "FaultRun":
        """Start `launcher resume`."""
        return self._start(run, None, (), "resume", str(run.path), *overrides)

    def _start(self, run: RunDirectory, fault: dict | None, on: tuple[str, ...], *arguments: str) -> "FaultRun":
        process = subprocess.Popen(
            [*on, sys.executable, "-m", self.launch_module, *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append((process, run))
        while fault is not None and process.poll() is None and not run.config_file.exists():
            time.sleep(0.01)
        if fault is not None:
            (run.path / "fault.json").write_text(json.dumps(fault))
        return FaultRun(process, run)

    def close(self) -> None:
        """End everything that a test has left."""
        for process, run in self.started:
            record = read_supervisor(run)
            if record and record.runs_here and record.pid != os.getpid():
                os.kill(record.pid, signal.SIGKILL)
            if record:
                kill_job(record.job_mark)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class FaultRun:
    """A run that was started: its output and its record."""

    def __init__(self, process: subprocess.Popen, run: RunDirectory):
        self.process = process
        self.run = run
        self.output = ""

    def finish(self, timeout_s: float = 120) -> int:
        """Wait for the launcher; returns its exit code."""
        try:
            self.output, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {timeout_s} s\n{self.story()}") from None
        return self.process.returncode

    def wait_for(self, *names: str, timeout_s: float = 60) -> dict:
        """The first event with one of these names."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := self.events(*names):
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"no event {names} within {timeout_s} s\n{self.story()}")

    def events(self, *names: str) -> list[dict]:
        return [event for event in self.run.events() if event["event"] in names]

    def story(self) -> str:
        """What happened, for a message of a failed test."""
        logs = [f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in sorted(self.run.logs.glob("*"))]
        return "\n".join([self.output, *map(json.dumps, self.run.events()), *logs])

    def final_weights(self) -> dict:
        """The checksums of the newest checkpoint's shards: weights and moments, bit for bit."""
        newest = committed_checkpoints(self.run.checkpoints)[-1]
        manifest = verify(newest)
        assert manifest.state["step"] == 12, manifest.state
        return {name: record for name, record in manifest.files.items() if name.endswith((".bin", "index.json"))}
