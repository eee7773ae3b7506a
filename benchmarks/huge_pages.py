#!/usr/bin/env python3
"""Training on CPU with torch's buffers in transparent huge pages (THP_MEM_ALLOC_ENABLE=1) and without.

The launcher starts the same configuration again and again, with and without in turn; each run's figures are medians over its logged
steps but the first, and the processor time of all its processes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.records import write_record  # noqa: E402
from robustbert.config import load_config  # noqa: E402
from robustbert.data.prepare import prepared_data  # noqa: E402
from robustbert.run_directory import RunDirectory  # noqa: E402

_EXAMPLE = """example:
  benchmarks/huge_pages.py configs/quickstart.yaml --rounds 3 --steps 60 --record benchmarks/records/2026-01-31_huge_pages.md
"""


@dataclass(frozen=True)
class Figures:
    """One run: a step's seconds, and the processor seconds of the whole run."""

    step_s: float
    user_s: float
    system_s: float
    memory_bytes: int


def main() -> int:
    """Run the rounds and print the medians; with --record write them down."""
    options = _parser().parse_args()
    seen: dict[str, list[Figures]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        data = _prepared(options, Path(folder))
        for number in range(options.rounds):
            for name in seen if number % 2 == 0 else reversed(seen):
                seen[name].append(_run(options, Path(folder), f"{name}-{number}", data, "1" if name == "with" else "0"))
                print(f"round {number + 1}, {name}: {seen[name][-1]}", flush=True)
    lines = [f"{'huge pages':12}{'step, s':>10}{'least to greatest':>22}{'user, s':>10}{'system, s':>11}{'memory, MiB':>13}"]
    for name, runs in seen.items():
        steps = sorted(run.step_s for run in runs)
        user, system, memory = (statistics.median(getattr(run, key) for run in runs) for key in ("user_s", "system_s", "memory_bytes"))
        spread = f"{steps[0]:.3f} to {steps[-1]:.3f}"
        lines.append(f"{name:12}{statistics.median(steps):>10.3f}{spread:>22}{user:>10.0f}{system:>11.0f}{memory / 2**20:>13.0f}")
    ratios = [off.step_s / on.step_s for off, on in zip(seen["without"], seen["with"])]
    lines.append(f"speed with / without, by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {statistics.median(ratios):.2f}")
    print("\n".join(lines))
    if options.record:
        command = "benchmarks/huge_pages.py " + " ".join(sys.argv[1:])
        write_record(options.record, "Huge pages in training on CPU", command, "", ("torch", "megatron-core"), lines)
    return 0


def _prepared(options: argparse.Namespace, folder: Path) -> list[str]:
    """The overrides that name the data of a run of one step, so that no other run has to prepare its own."""
    _run(options, folder, "preparing", ["train.steps=1"], "0")
    run = RunDirectory(folder / "preparing")
    prepared = prepared_data(load_config(run.config_file).data, run.data)
    corpora = ",".join(f"{{path: {corpus.prefix}}}" for corpus in prepared.train)
    return [f"data.train=[{corpora}]", f"data.tokenizer={prepared.tokenizer_dir}", "data.valid_fraction=0", f"train.steps={options.steps}"]


def _run(options: argparse.Namespace, folder: Path, name: str, overrides: list[str], huge_pages: str) -> Figures:
    fixed = [f"run.dir={folder}", f"run.name={name}", "train.log_interval=1", "checkpoint.interval=1000000", "optim.warmup_steps=0"]
    words = [sys.executable, "-m", "launcher", "submit", str(options.config.absolute()), *fixed, *overrides]
    environment = os.environ | {"THP_MEM_ALLOC_ENABLE": huge_pages}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # with the processes that it has waited for
    if os.waitstatus_to_exitcode(status):
        sys.exit(said)
    steps = [record["step_time_s"] for record in RunDirectory(folder / name).metrics()]
    return Figures(statistics.median(steps[1:] or steps), usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/huge_pages.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="the configuration to train")
    add("--rounds", type=int, default=3, metavar="N", help="(3)")
    add("--steps", type=int, default=60, metavar="N", help="steps a run (60)")
    add("--record", type=Path, metavar="FILE", help="write the table down with the machine, the commit and the versions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
