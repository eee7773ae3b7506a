"""`python -m benchmarks.plan_projection`: the steps that `launcher plan` projects for this machine beside steps of the real training loop.

Also measures the machine's rates, from which the profile's figures come: products, copies, small operators, gloo. Every
process has one thread, as the profile says. Layouts take turns over several rounds. Where others use the machine, too, the
wall time of a step says little; its processor time (of the process that needs most) is what the step takes of a core of its
own, without the waiting for the other process. Rates but gloo's are by processor time as well.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks.records import write_record
from robustbert.config import RunConfig, load_config
from robustbert.data.prepare import prepare_run
from robustbert.device import Device
from robustbert.diagnosis.measures import all_reduce_bytes_per_s
from robustbert.hardware import load_profile
from robustbert.job import Job
from robustbert.plan.estimate import step_parts, step_time
from robustbert.plan.simulation import first_rank_of_stage, simulate_step
from robustbert.progress import Progress
from robustbert.run_directory import RunDirectory
from robustbert.testing.ranks import run_on_ranks

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"
PROFILE = "cpu_2_cores"
WARM_UP = 3  # steps
STEPS = 12
ALONE = ("cluster.processes_per_node=1",)
WIDE = ("model.num_layers=2", "model.hidden_size=512", "model.ffn_hidden_size=2048", "model.num_attention_heads=8")
LAYOUTS: dict[str, tuple[str, ...]] = {
    "quickstart.yaml (data 2)": (),
    "the same, micro-batches of 4": ("train.micro_batch_size=4",),
    "one process": ALONE,
    "tensor 2": ("parallel.tensor=2",),
    "pipeline 2, micro-batches of 8": ("parallel.pipeline=2", "train.micro_batch_size=8"),
    "2 layers of 512, one process": (*ALONE, *WIDE),
    "2 layers of 512, data 2": WIDE,
    "64 tokens a sequence, data 2": ("data.sequence_length=64",),
}


@dataclass
class Layout:
    """A configuration, its projected step, and the seconds of its real ones."""

    name: str
    config: RunConfig
    projected_s: float
    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)


class StepClock(Progress):
    """Notes the time and the process' processor time at the start of every step."""

    def __init__(self):
        super().__init__()
        self.starts: list[tuple[float, float]] = []

    def mark(self, phase: str, step: int | None = None) -> None:
        super().mark(phase, step)
        if phase == "waiting for data":
            self.starts.append((time.perf_counter(), time.process_time()))

    def steps(self) -> list[tuple[float, float]]:
        """(wall, processor) seconds of each step after the first ones."""
        starts = self.starts[WARM_UP:]
        return [(after[0] - before[0], after[1] - before[1]) for before, after in zip(starts, starts[1:])]


def load_layout(name: str, overrides: tuple[str, ...]) -> Layout:
    """quickstart.yaml with these overrides, and what the plan says of it."""
    few = (f"train.steps={WARM_UP + STEPS}", "train.log_interval=1", "optim.warmup_steps=2", "train.eval_interval=1000", "train.eval_sequences=16")
    config = load_config(CONFIG, [*few, "model.vocab_size=4096", *overrides])
    return Layout(name, config, projected_step_s(config))


def projected_step_s(config: RunConfig) -> float:
    """The slowest stage's, as `launcher plan` puts it together."""
    hardware, processes = load_profile(PROFILE), config.cluster.num_processes
    times = []
    for stage in range(config.parallel.pipeline):
        record = simulate_step(config, processes, first_rank_of_stage(config, processes, stage), hardware.kernels)
        parts = step_parts(record, config, processes, hardware)
        times.append(step_time(parts, config.num_micro_batches(processes), config.parallel.pipeline).total_s)
    return max(times)


def train(job: Job, config: RunConfig, path: Path) -> list[tuple[float, float]]:
    """One process of a real run; what StepClock saw of its steps."""
    from robustbert.train.pretrain import pretrain

    clock = StepClock()
    pretrain(config, replace(job, progress=clock), RunDirectory(path))
    return clock.steps()


def measure_steps(layout: Layout, folder: Path, data: Path) -> None:
    """Train the layout in a run directory of its own; all share the prepared data."""
    prepare_run(layout.config.data, data)
    run = Path(tempfile.mkdtemp(dir=folder))
    (run / "data").symlink_to(data)
    of_ranks = run_on_ranks(train, layout.config.cluster.num_processes, layout.config, run, timeout_s=900)
    layout.wall_s += [wall for wall, _ in of_ranks[0]]
    layout.processor_s += [max(processor for _, processor in step) for step in zip(*of_ranks)]


def machine_rates(job: Job) -> dict[str, float]:
    """What one of two processes at work reaches: operations, bytes and seconds as the profile's keys have them."""
    device = Device.detect(job)
    left, right = torch.randn(2048, 1024), torch.randn(1024, 4096)
    small, source = torch.randn(64), torch.zeros(16 << 20)
    target = torch.empty_like(source)
    with device.joined(job, 120):
        torch.distributed.barrier()
        rates = {
            "matmul_flops.fp32": 2 * 2048 * 1024 * 4096 / _least_s(lambda: left @ right, 10),
            "matmul_flops.bf16": 2 * 2048 * 1024 * 4096 / _least_s(lambda b=(left.bfloat16(), right.bfloat16()): b[0] @ b[1], 10),
            "memory_bytes_per_s": 2 * 4 * source.numel() / _least_s(lambda: target.copy_(source), 10),
            "operator_s": _least_s(lambda: [small.add(1.0) for _ in range(1000)], 10) / 1000,
            "link_bytes_per_s": all_reduce_bytes_per_s(device, 16 << 20),
            "link_latency_s": _least_s(lambda: torch.distributed.all_reduce(torch.zeros(1)), 50, time.perf_counter),
        }
    return rates


def best_rates(rounds: list[list[dict[str, float]]]) -> dict[str, float]:
    """The best of each over rounds of the slower process: least seconds, most a second."""
    names = rounds[0][0]
    slower = {name: [(max if name.endswith("_s") and "per_s" not in name else min)(p[name] for p in both) for both in rounds] for name in names}
    return {name: (min if name.endswith("_s") and "per_s" not in name else max)(values) for name, values in slower.items()}


def as_lines(layouts: list[Layout], rates: dict[str, float]) -> list[str]:
    """The table of a record."""
    profile = load_profile(PROFILE)
    lines = [f"{'seconds of a step, medians':<34} {'projected':>9} {'processor':>9} {'wall':>8} {'projected/processor':>20}"]
    ratios = []
    for layout in layouts:
        processor, wall = statistics.median(layout.processor_s), statistics.median(layout.wall_s)
        ratios.append(layout.projected_s / processor)
        lines.append(f"{layout.name:<34} {layout.projected_s:>9.3f} {processor:>9.3f} {wall:>8.3f} {ratios[-1]:>20.2f}")
    lines += [f"median ratio: {statistics.median(ratios):.2f}", "", f"{'rate':<20} {'measured':>10} {'profile':>10}"]
    for name, value in rates.items():
        section, _, key = name.partition(".")
        known = getattr(profile, section)
        lines.append(f"{name:<20} {value:>10.3g} {(known.of(key) if key else known):>10.3g}")
    return lines


def _least_s(run: Callable[[], object], times: int, clock: Callable[[], float] = time.thread_time) -> float:
    """The least of so many times, by default of this thread's on a processor."""
    found = []
    for _ in range(times):
        started = clock()
        run()
        found.append(clock() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m benchmarks.plan_projection --rounds 3 --record benchmarks/records/2026-11-25_plan_projection.md",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", type=Path, help="a Markdown file to write")
    options = parser.parse_args()
    layouts = [load_layout(name, overrides) for name, overrides in LAYOUTS.items()]
    rounds: list[list[dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            rounds.append(run_on_ranks(machine_rates, 2))
            for layout in layouts:
                measure_steps(layout, Path(folder), Path(folder) / "data")
                seen = f"processor time {statistics.median(layout.processor_s):.3f} s, wall {statistics.median(layout.wall_s):.3f} s"
                print(f"round {number + 1}: {layout.name}: {seen}, projected {layout.projected_s:.3f} s", flush=True)
    lines = as_lines(layouts, best_rates(rounds))
    print("\n".join(lines))
    if options.record:
        command = f"python -m benchmarks.plan_projection --rounds {options.rounds}"
        load = f", shared with other work (load {os.getloadavg()[2]:.0f})" if os.getloadavg()[2] > os.cpu_count() else ""
        write_record(options.record, "Projected and real steps on a CPU", command, f"; one thread a process{load}", ("torch", "megatron-core"), lines)


if __name__ == "__main__":
    main()
