"""`python -m benchmarks.monitoring {step,scale}`: what monitoring costs a step, and whether Prometheus copes with 1,024 ranks.

step: two processes on gloo train a small model; blocks of steps with everything measured and reported alternate with
blocks without. Compared is the processor time of the training thread, which other programs of the machine hardly change.
scale: the exporters of 1,024 simulated ranks on 128 nodes, fed once a second over the real channels, scraped by a real Prometheus.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.monitoring_scale import SimulatedJob, watch_with_prometheus
from benchmarks.records import write_record

BLOCK = 10  # steps; the default of train.log_interval and of monitoring.collectives_interval


class NoMetrics:
    """In the place of Metrics: nothing is measured."""

    def record(self, *_) -> None:
        pass


class TimedRecord:
    """Metrics that notes what each step's record costs."""

    def __init__(self, metrics, seconds: list[float]):
        self._metrics, self._seconds = metrics, seconds

    def record(self, *arguments) -> None:
        started_at = time.thread_time()
        self._metrics.record(*arguments)
        self._seconds.append(time.thread_time() - started_at)


def train_in_blocks(job, config, run) -> dict:
    """Of one rank, medians over the blocks: the training thread's seconds a step with and without monitoring; a beat's."""
    from launcher.heartbeats import Heartbeats
    from launcher.pulse import ADDRESS_VARIABLE, TOKEN_VARIABLE, Pulse
    from robustbert.progress import Progress
    from robustbert.train import pretrain as loop

    seconds = {True: [], False: []}
    clock_s, beat_s, record_s = [], [], []
    original, counter = loop.train_step, itertools.count()

    def train_step(config, mesh, model, optimizer, batches, state, metrics, progress):
        number = next(counter)
        is_on = number // BLOCK % 2 == 0
        if number % BLOCK == 0:
            train_step.started = time.thread_time(), time.perf_counter()
        watched = (TimedRecord(metrics, record_s), progress) if is_on else (NoMetrics(), Progress())
        if number % (2 * BLOCK) == 0 and number:
            metrics.start_interval()
        trouble = original(config, mesh, model, optimizer, batches, state, *watched)
        if number % BLOCK == BLOCK - 1 and number > 2 * BLOCK:
            thread_s, at = train_step.started
            seconds[is_on].append((time.thread_time() - thread_s) / BLOCK)
            clock_s.append((time.perf_counter() - at) / BLOCK)
        return trouble

    with Heartbeats("benchmark") as heartbeats:
        environment = {ADDRESS_VARIABLE: f"127.0.0.1:{heartbeats.port}", TOKEN_VARIABLE: "benchmark"}
        pulse = Pulse(job.rank, job.progress, environment, on_lost=lambda reason: None)
        beat = pulse._beat

        def timed_beat(connection):
            started_at = time.thread_time()
            beat(connection)
            beat_s.append(time.thread_time() - started_at)

        pulse._beat = timed_beat
        pulse.start()
        loop.train_step = train_step
        try:
            loop.pretrain(config, job, run)
        finally:
            loop.train_step = original
            pulse.say_goodbye()
    pairs = [on / off for on, off in zip(seconds[True], seconds[False])]
    return {
        "on_s": statistics.median(seconds[True]),
        "off_s": statistics.median(seconds[False]),
        "ratios": pairs,
        "clock_s": statistics.median(clock_s),
        "beat_s": statistics.median(beat_s),
        "record_s": statistics.median(seconds for seconds in record_s if seconds > statistics.mean(record_s)),  # of the logged steps
    }


def cost_of_parts(num_waits: int) -> dict[str, float]:
    """Seconds of each thing that a step does for monitoring, one by one, without training around it."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import Work

    from robustbert.parallel.collective_time import CollectiveTime
    from robustbert.progress import Progress
    from robustbert.train.step_times import StepTimes

    phases = ("waiting for data", "forward and backward", "forward and backward", "updating the weights", "counting")

    def a_step(progress):
        for phase in phases:
            progress.mark(phase)

    def median_s(function, repeats: int = 2001) -> float:
        times = []
        for _ in range(repeats):
            started_at = time.thread_time_ns()
            function()
            times.append(time.thread_time_ns() - started_at)
        return statistics.median(times) / 1e9

    silent, progress = Progress(), Progress()
    times = StepTimes(progress, CollectiveTime(is_cuda=False), BLOCK)
    marks_s = median_s(lambda: a_step(progress)) - median_s(lambda: a_step(silent))
    times.close()
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    work = dist.barrier(async_op=True)
    work.wait()
    plain_s = median_s(lambda: Work.wait(work))
    collectives = CollectiveTime(is_cuda=False)
    with collectives.closing():
        collectives.start()
        wait_s = median_s(lambda: Work.wait(work)) - plain_s
    dist.destroy_process_group()
    return {"marks_s": marks_s, "waits_s": num_waits * wait_s / BLOCK}


def step(options: argparse.Namespace) -> list[str]:
    """The cost of a step, as lines of a record."""
    from robustbert.testing import run_on_ranks
    from tests.train.small_run import make_run

    num_steps = BLOCK * options.blocks
    sizes = "num_layers=2 hidden_size=128 ffn_hidden_size=512 num_attention_heads=4 max_sequence_length=64".split()
    overrides = [f"model.{size}" for size in sizes]
    overrides += [f"train.{o}" for o in (f"steps={num_steps}", f"log_interval={BLOCK}", "eval_interval=1000000")]
    overrides += ["train.global_batch_size=8", "train.micro_batch_size=2", "checkpoint.interval=1000000", "optim.lr=1e-4"]
    overrides += ["fault_tolerance.spike_factor=0", "cluster.processes_per_node=2", "data.valid_fraction=0"]
    with tempfile.TemporaryDirectory() as folder:
        config, run = make_run(Path(folder), "cost", tuple(overrides))
        ranks = run_on_ranks(train_in_blocks, 2, config, run, timeout_s=3600)
    lines = [f"2 processes, {num_steps} steps in blocks of {BLOCK}, alternately with and without monitoring; medians"]
    for number, rank in enumerate(ranks):
        lines.append(
            f"rank {number}: processor time of a step {1000 * rank['on_s']:.2f} ms with, {1000 * rank['off_s']:.2f} ms without; "
            f"ratio of neighbouring blocks {statistics.median(rank['ratios']):.4f} "
            f"(quartiles {' to '.join(f'{q:.4f}' for q in statistics.quantiles(rank['ratios'], n=4)[::2])}); "
            f"a step by the clock {1000 * rank['clock_s']:.0f} ms, a beat a second {1e6 * rank['beat_s']:.0f} us"
        )
    parts = cost_of_parts(num_waits=100)
    record_s = statistics.mean(rank["record_s"] for rank in ranks)
    total_s = parts["marks_s"] + parts["waits_s"] + record_s / BLOCK
    off_s = statistics.mean(rank["off_s"] for rank in ranks)
    beat_share = statistics.mean(rank["beat_s"] for rank in ranks)
    lines += [
        f"one by one: marks {1e6 * parts['marks_s']:.1f} us a step; 100 collectives in one of {BLOCK} steps {1e6 * parts['waits_s']:.1f} us a step; a "
        f"logged step's line and report {1e6 * record_s:.0f} us, every {BLOCK} steps",
        f"together {1e6 * total_s:.1f} us a step, {total_s / off_s:.3%} of this small one; the beats {beat_share:.3%} of the time",
    ]
    return lines


def scale(options: argparse.Namespace) -> list[str]:
    """Prometheus and the exporters of a large job, as lines of a record."""
    with tempfile.TemporaryDirectory() as folder:
        with SimulatedJob(Path(folder), options.ranks, options.ranks_per_node) as job:
            stop = threading.Event()
            feeder = threading.Thread(target=job.feed_until, args=(stop,), daemon=True)
            feeder.start()
            result = watch_with_prometheus(job, Path(folder), options.interval_s, options.scrapes)
            stop.set()
            feeder.join()
    return [
        f"{options.ranks} ranks on {options.ranks // options.ranks_per_node} nodes, scraped every {options.interval_s:g} s, {options.scrapes} times",
        *result.as_lines(),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.monitoring",
        description=__doc__.partition("\n")[0],
        epilog="example:\n  OMP_NUM_THREADS=1 python -m benchmarks.monitoring step --blocks 80\n  python -m benchmarks.monitoring scale",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("step", "scale"))
    parser.add_argument("--blocks", type=int, default=80, metavar="N", help=f"of {BLOCK} steps (default: 80)")
    parser.add_argument("--ranks", type=int, default=1024, metavar="N", help="(default: 1024)")
    parser.add_argument("--ranks-per-node", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--interval-s", type=float, default=15, metavar="S", help="between two scrapes (default: 15)")
    parser.add_argument("--scrapes", type=int, default=5, metavar="N", help="of each target (default: 5)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures down")
    options = parser.parse_args()
    lines = step(options) if options.what == "step" else scale(options)
    lines.append(f"load of the machine at the end, this included: {os.getloadavg()[0]:.0f}")
    print("\n".join(lines))
    if options.record:
        command, libraries = f"python -m benchmarks.monitoring {options.what}", ("torch", "prometheus-client")
        write_record(options.record, f"The cost of monitoring: {options.what}", command, "", libraries, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
