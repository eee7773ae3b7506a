"""tools/prove_resume: trains a configuration for some steps without and with interruptions, and compares them bit by bit.

Legs beside the undisturbed run: stopped by a notice and resumed; a process killed and the job restarted by itself; and, where the
layout divides, resumed on half the processes, which must see the same samples in the same order.
"""

import argparse
import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.processes import job_processes
from launcher.processes_per_node import load_run_config
from launcher.programs import python_path
from launcher.supervisor_record import read_supervisor
from robustbert.config import ConfigError, RunConfig, load_config
from robustbert.interruption import ends_by_signals
from robustbert.run_directory import RunDirectory

_EXAMPLE = """example:
  tools/prove_resume configs/quickstart.yaml --output /scratch/proof
  tools/prove_resume my.yaml --steps 200 parallel.tensor=2 cluster.processes_per_node=4

The exit code is 0 where everything is equal, 1 where something differs, 2 where the configuration cannot be used. The runs stay in
the output folder. Steps are logged one by one, checkpoints are as frequent as the interruptions need; the rest is the configuration's.
On CUDA give train.deterministic=true: without it no two runs are bitwise the same.
"""
_COMPARED = ("loss", "lr", "grad_norm", "loss_scale", "tokens", "skipped_steps", "corpus_samples")
_SAME_SAMPLES_TOLERANCE = 1e-4  # relative, of the loss: sums are rounded differently on another number of processes


@dataclass(frozen=True)
class Verdict:
    """One comparison with the undisturbed run."""

    leg: str
    is_good: bool
    text: str


def main(arguments: list[str] | None = None, launcher_module: str = "launcher") -> int:
    """Run the legs, print the verdict. launcher_module: what is run as the launcher."""
    options = _parser().parse_intermixed_args(arguments)
    with ends_by_signals("tools/prove_resume"):
        try:
            return Proof(options, launcher_module).run()
        except (ValueError, OSError) as error:
            print(f"tools/prove_resume: error: {error}", file=sys.stderr)
            return 2


class Proof:
    """The runs of one proof, in a folder that did not exist before."""

    def __init__(self, options: argparse.Namespace, launcher_module: str):
        self.options = options
        self.launcher_module = launcher_module
        self.config = load_run_config(options.config, options.overrides)
        self.folder = Path(options.output or f"runs/prove_resume-{self.config.run.name}").absolute()
        if self.folder.exists():
            raise ConfigError(f"{self.folder} exists; nothing is overwritten, choose another --output")
        self.stop_at = options.steps // 3

    def run(self) -> int:
        """The exit code."""
        whole = self.submit("undisturbed", [])
        self.expect(whole, {0})
        reuse = _reuse_data(self.config, whole.run)
        verdicts = []
        stopped = self.submit("stopped", reuse, interrupt=_stop)
        self.expect(stopped, {75})
        step = _newest_event(stopped.run, "preempted")["step"]
        self.expect(self.resume(stopped.run, "stopped", []), {0})
        verdicts.append(compare_exactly("stopped and resumed", step, whole.run, stopped.run))
        if self.config.cluster.scheduler == "local":
            killed = self.submit("killed", reuse, interrupt=_kill_one)
            self.expect(killed, {0})
            step = _newest_event(killed.run, "restarted")["step"]
            verdicts.append(compare_exactly("killed and restarted", step, whole.run, killed.run))
        if fewer := self.half_the_processes():
            halved = self.submit("halved", reuse, interrupt=_stop)
            self.expect(halved, {75})
            step = _newest_event(halved.run, "preempted")["step"]
            self.expect(self.resume(halved.run, "halved", fewer), {0})
            verdicts.append(compare_samples("resumed on half the processes", step, whole.run, halved.run))
        return self.report(verdicts)

    def submit(self, name: str, overrides: list[str], interrupt: Callable | None = None) -> "Leg":
        """A run of the proof's length, interrupted once it has got to step `stop_at`."""
        steps = self.options.steps
        own = [
            *(f"run.dir={self.folder}", f"run.name={name}", f"train.steps={steps}", "train.log_interval=1"),
            f"optim.warmup_steps={min(self.config.optim.warmup_steps, steps // 4)}",
            *(f"checkpoint.interval={max(1, steps // 10)}", "checkpoint.keep_last=100", "checkpoint.keep_every=null"),
            f"train.eval_interval={steps}",
        ]
        words = ["submit", self.options.config, *self.options.overrides, *own, *overrides]
        return self.start(name, RunDirectory(self.folder / name), words, interrupt)

    def resume(self, run: RunDirectory, name: str, overrides: list[str]) -> "Leg":
        return self.start(name, run, ["resume", str(run.path), *overrides], None)

    def start(self, name: str, run: RunDirectory, words: list[str], interrupt: Callable | None) -> "Leg":
        print(f"--- {name}: launcher {shlex.join(words)}", flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", self.launcher_module, *words],
            env=os.environ | {"PYTHONPATH": python_path()},
            stdin=subprocess.DEVNULL,
        )
        try:
            if interrupt is not None:
                while process.poll() is None and not any(line["step"] >= self.stop_at for line in run.metrics()):
                    time.sleep(0.01)
                interrupt(process, run)
            return Leg(run, process.wait())
        except BaseException:
            _kill(process)
            raise

    def expect(self, leg: "Leg", codes: set[int]) -> None:
        if leg.exit_code in codes:
            return
        if leg.exit_code == 0:
            raise ConfigError(f"the run was finished before it could be interrupted; give more --steps than {self.options.steps}")
        raise ConfigError(f"the run {leg.run.path} ended with exit code {leg.exit_code}; see its log")

    def half_the_processes(self) -> list[str]:
        """Overrides for half of the processes; empty where no layout has them."""
        cluster, overrides = self.config.cluster, []
        if cluster.nodes == 1 and cluster.processes_per_node % 2 == 0:
            overrides = [f"cluster.processes_per_node={cluster.processes_per_node // 2}"]
        elif cluster.nodes % 2 == 0:
            overrides = [f"cluster.nodes={cluster.nodes // 2}"]
        try:
            return overrides if overrides and load_config(self.options.config, [*self.options.overrides, *overrides]) else []
        except ConfigError:
            return []

    def report(self, verdicts: list[Verdict]) -> int:
        print("\nverdict")
        for verdict in verdicts:
            print(f"  {'equal  ' if verdict.is_good else 'DIFFERS'}  {verdict.leg}: {verdict.text}")
        print(f"  the runs are in {self.folder}")
        return 0 if all(verdict.is_good for verdict in verdicts) else 1


@dataclass(frozen=True)
class Leg:
    """A run, and how the launcher ended."""

    run: RunDirectory
    exit_code: int


def compare_exactly(leg: str, step: int, whole: RunDirectory, other: RunDirectory) -> Verdict:
    """Every logged number of every step, and the last checkpoint: weights, moments, loss scale, counts."""
    mine, theirs = _by_step(whole), _by_step(other)
    for number in sorted(mine.keys() | theirs.keys()):
        for key in _COMPARED:
            a, b = mine.get(number, {}).get(key), theirs.get(number, {}).get(key)
            if a != b and not (a != a and b != b):
                return Verdict(leg, False, f"{key} of step {number} is {b}, undisturbed {a} (interrupted at step {step})")
    manifests = [json.loads((_newest(run) / "MANIFEST.json").read_text()) for run in (whole, other)]
    for part in ("state", "files"):
        a, b = (manifest[part] for manifest in manifests)
        different = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
        if different:
            return Verdict(leg, False, f"the last checkpoint's {part} differ: {', '.join(different[:5])}")
    num_bytes = sum(record["bytes"] for record in manifests[0]["files"].values())
    return Verdict(
        leg, True, f"from step {step} on, {len(mine)} steps and the last checkpoint ({num_bytes:,} bytes) are bitwise the same"
    )


def compare_samples(leg: str, step: int, whole: RunDirectory, other: RunDirectory) -> Verdict:
    """The tokens of every step, and its loss up to rounding."""
    mine, theirs = _by_step(whole), _by_step(other)
    largest = 0.0
    for number in sorted(mine.keys() | theirs.keys()):
        a, b = mine.get(number), theirs.get(number)
        if a is None or b is None or a["tokens"] != b["tokens"]:
            return Verdict(leg, False, f"step {number} has other samples")
        largest = max(largest, abs(a["loss"] - b["loss"]) / abs(a["loss"]))
    is_good = largest <= _SAME_SAMPLES_TOLERANCE
    return Verdict(
        leg, is_good, f"from step {step} on; the losses differ by {largest:.1e} (relative, {_SAME_SAMPLES_TOLERANCE:g} allowed)"
    )


def _reuse_data(config: RunConfig, run: RunDirectory) -> list[str]:
    """Overrides by which another run takes what this one has prepared."""
    from robustbert.data.prepare import prepared_data

    prepared = prepared_data(config.data, run.data)

    def entries(corpora) -> str:
        weights = [{} if corpus.weight is None else {"weight": corpus.weight} for corpus in corpora]
        return json.dumps([{"path": str(corpus.prefix)} | weight for corpus, weight in zip(corpora, weights)])

    overrides = [f"data.tokenizer={prepared.tokenizer_dir}", f"data.train={entries(prepared.train)}", "data.valid_fraction=0.0"]
    return [*overrides, f"data.valid={entries(prepared.valid)}"]


def _stop(process: subprocess.Popen, run: RunDirectory) -> None:
    """The notice of a scheduler."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)


def _kill(process: subprocess.Popen) -> None:
    """Ctrl-C twice: the run is killed without a checkpoint. SIGTERM before, which is silent while the interpreter starts."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.3)


def _kill_one(process: subprocess.Popen, run: RunDirectory) -> None:
    """kill -9 of one training process."""
    record = read_supervisor(run)
    workers = [found for found in job_processes(record.job_mark) if str(run.path) in found.cmdline()] if record else []
    workers = [worker for worker in workers if Path(worker.cmdline()[0]).name.startswith("python")]
    if workers:
        random.Random(len(workers)).choice(workers).kill()


def _by_step(run: RunDirectory) -> dict[int, dict]:
    """The logged steps; the corpora's names depend on who prepared them, their order does not."""
    return {line["step"]: line | {"corpus_samples": list(line["corpus_samples"].values())} for line in run.metrics()}


def _newest_event(run: RunDirectory, name: str) -> dict:
    found = [event for event in run.events() if event["event"] == name]
    if not found:
        raise ConfigError(f"the run {run.path} was finished before it could be interrupted; give more --steps")
    return found[-1]


def _newest(run: RunDirectory) -> Path:
    from robustbert.checkpoint.manifest import committed_checkpoints

    return committed_checkpoints(run.checkpoints)[-1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/prove_resume",
        description="Prove that an interrupted run of a configuration is the uninterrupted one: runs it both ways and compares.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="the run's YAML file")
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="replaces a value of the file")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="length of the runs (default: 60)")
    parser.add_argument("--output", metavar="FOLDER", help="where the runs go (default: runs/prove_resume-NAME)")
    return parser
