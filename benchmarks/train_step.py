#!/usr/bin/env python3
"""A training step on this CPU by this project, by Hugging Face, and by fairseq if it is installed, in turns on the same batches.

Every program lives in a process of its own and takes a step when it is its turn, so load of the machine falls on all of them. Figures
are medians over the steps; the batches are masked rows of Python's own prose, dropout is the configuration's.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.records import write_record  # noqa: E402
from benchmarks.training.programs import OURS, PROGRAMS, missing  # noqa: E402
from robustbert.config import RunConfig, dump_config, load_config  # noqa: E402
from robustbert.data.prepare import prepare_run  # noqa: E402
from robustbert.device import PRECISION_DTYPES  # noqa: E402
from robustbert.throughput import training_flops  # noqa: E402

_EXAMPLE = "example:\n  benchmarks/train_step.py --models base --record benchmarks/records/2026-11-27_train_step.md\n"
_COMMON = (
    "data.train=[{text: 'python:stdlib'}]",
    "data.tokenizer={train: {vocab_size: 4096}}",
    "data.valid=[]",
    "data.valid_fraction=0",
    "data.num_workers=0",
    "train.log_interval=1",
    "optim.warmup_steps=10",
    "monitoring.tensorboard=false",
    "cluster.nodes=1",
    "cluster.processes_per_node=1",
)
# By name: the configuration, and what is changed of it. The vocabulary of base is RoBERTa's, the ids are just its lower ones.
MODELS = {
    "base": (
        "base_500k.yaml",
        ("model.vocab_size=50265", "data.sequence_length=512", "train.micro_batch_size=4", "train.global_batch_size=4"),
    ),
    "quickstart": ("quickstart.yaml", ("model.vocab_size=4096", "train.micro_batch_size=16", "train.global_batch_size=16")),
}


class Program:
    """A process of benchmarks/training/worker.py."""

    def __init__(self, name: str, folder: Path, overrides: list[str], threads: int):
        words = [sys.executable, "-m", "benchmarks.training.worker", str(folder), name, *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        self.name, self.steps, self.peak_bytes = name, [], 0
        self.errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        self.facts = self._answer()

    def step(self) -> dict:
        """Let it train one step."""
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Ask for its memory and let it go."""
        self._process.stdin.close()
        self.peak_bytes = self._answer()["peak_bytes"]
        self._process.wait(timeout=60)

    def kill(self) -> None:
        """For what has not ended by itself."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"{self.name} ended: {self.errors.read()[-2000:]}")
        return json.loads(line)


def main() -> int:
    """Time the models and precisions that were asked for; with --record write the table down."""
    options = _parser().parse_args()
    lines = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            for precision in options.precisions:
                lines += [*_compare(options, model, precision, Path(folder)), ""]
                print("\n".join(lines[-12:]), flush=True)
    if options.record:
        command = "benchmarks/train_step.py " + " ".join(sys.argv[1:])
        write_record(options.record, "A training step on CPU", command, f", {options.threads} used", ("torch", "transformers", "megatron-core", "fairseq"), lines)
    return 0


def _compare(options: argparse.Namespace, model: str, precision: str, folder: Path) -> list[str]:
    """The table of one model and precision."""
    base, changes = MODELS[model]
    overrides = [*_COMMON, *changes, f"precision={precision}", *options.overrides]
    config = load_config(ROOT / "configs" / base, overrides)
    (folder / "config.yaml").write_text(dump_config(config))
    prepare_run(config.data, folder / "data")
    lines, names = [], []
    for name in options.programs:
        reason = missing(name, precision)
        lines += [f"{name}: not run, {reason}"] if reason else []
        names += [] if reason else [name]
    with _running(names, folder, overrides, options.threads) as programs:
        for number in range(options.warm_up + options.steps):
            for program in programs if number % 2 == 0 else reversed(programs):
                figures = program.step()
                if number >= options.warm_up:
                    program.steps.append(figures)
            print(f"\r{model}, {precision}: step {number + 1} of {options.warm_up + options.steps}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for program in programs:
            program.end()
    return [*_table(model, config, programs, options), *lines]


@contextlib.contextmanager
def _running(names: list[str], folder: Path, overrides: list[str], threads: int) -> Iterator[list[Program]]:
    programs = []
    try:
        for name in names:
            programs.append(Program(name, folder, overrides, threads))
        yield programs
    finally:
        for program in programs:
            program.kill()


def _table(model: str, config: RunConfig, programs: list[Program], options: argparse.Namespace) -> list[str]:
    shape, rows = config.model, config.train.micro_batch_size
    rate = product_rate(config.precision, shape.hidden_size, shape.ffn_hidden_size, options.threads)
    title = f"{model}, {config.precision}: {rows} x {config.data.sequence_length} tokens, dropout {shape.dropout}/{shape.attention_dropout}"
    title += f", {options.threads} threads, {options.steps} steps; products run at {rate / 1e9:,.0f} GFLOP/s"
    lines = [title, f"{'program':24}{'step, s':>9}{'spread':>14}{'tokens/s':>10}{'ours is':>9}{'of products':>13}{'faults':>10}{'system, s':>11}{'peak, GiB':>11}{'loss':>8}"]
    medians = {program.name: statistics.median(step["seconds"] for step in program.steps) for program in programs}
    for program in programs:
        seconds = sorted(step["seconds"] for step in program.steps)
        middle = {key: statistics.median(step[key] for step in program.steps) for key in ("faults", "system_s")}
        tokens, masked = program.facts["tokens"], program.facts["masked"]
        flops = training_flops(shape, tokens, masked, config.data.sequence_length) / medians[program.name]
        ratio = f"{medians[program.name] / medians[OURS]:.2f} x" if OURS in medians else "-"
        spread = f"{seconds[0]:.2f}-{seconds[-1]:.2f}"
        lines.append(
            f"{program.name:24}{medians[program.name]:>9.3f}{spread:>14}{tokens / medians[program.name]:>10.0f}{ratio:>9}{flops / rate:>13.0%}"
            f"{middle['faults']:>10,.0f}{middle['system_s']:>11.2f}{program.peak_bytes / 2**30:>11.2f}{program.steps[-1]['loss']:>8.3f}"
        )
    return lines


def product_rate(precision: str, hidden: int, ffn: int, threads: int, num_tokens: int = 2048) -> float:
    """Operations a second of this machine's matrix products of a feed-forward's shape: the best of some."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    x, weight = (torch.randn(rows, hidden).to(PRECISION_DTYPES[precision]) for rows in (num_tokens, ffn))
    best = float("inf")
    for _ in range(30):
        started = time.perf_counter()
        x @ weight.T
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return 2 * num_tokens * hidden * ffn / best


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/train_step.py", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=list(MODELS))
    add("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    add("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    add("--steps", type=int, default=8, metavar="N", help="timed steps of each program (8)")
    add("--warm-up", type=int, default=2, metavar="N", help="steps before that (2)")
    add("--threads", type=int, default=os.cpu_count(), metavar="N", help="of each program (all)")
    add("--overrides", nargs="*", default=[], metavar="KEY=VALUE", help="of the configuration, such as model.dropout=0")
    add("--record", type=Path, metavar="FILE", help="write the table down with the machine, the commit and the versions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
