"""Where a step's time goes: parts add up, waiting for a slow rank is not the others' own time, nothing stays replaced."""

import shutil
import statistics
import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import ProcessGroup, Work

from robustbert.config import load_config
from robustbert.device import Device
from robustbert.job import Job
from robustbert.parallel.collective_time import _ON_STREAM, CollectiveTime
from robustbert.progress import Progress
from robustbert.run_directory import RunDirectory
from robustbert.testing import run_on_ranks
from robustbert.train.step_times import StepTimes
from tests.train.small_run import make_run, train

SLOW_S = 0.08  # added to each micro-batch of one rank
STEPS = ("train.steps=7", "train.log_interval=1", "train.eval_interval=100")
STEPS += ("monitoring.collectives_interval=1", "cluster.processes_per_node=2")
LAYOUTS = {"dp2": (), "tp2": ("parallel.tensor=2",), "pp2": ("parallel.pipeline=2",)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("step_times")
    make_run(folder, "prepared", STEPS)
    return folder


def train_with_a_slow_rank(job, config, run, slow_rank):
    """The reports of this rank, without the first steps', and whether torch is as it was before."""
    from robustbert.train import pretrain as loop

    wait, begin = Work.wait, loop._begin_micro_batch

    def begin_late(*arguments):
        time.sleep(SLOW_S)
        begin(*arguments)

    reports, report = [], job.progress.report
    job.progress.report = lambda values: (reports.append(values), report(values))
    if job.rank == slow_rank:
        loop._begin_micro_batch = begin_late
    assert train(job, config, run) == "finished"
    return reports[2:], Work.wait is wait


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slow_rank_shows_as_own_time_and_on_the_others_as_collectives(prepared, layout):
    shutil.copytree(prepared / "prepared", prepared / layout)
    config = load_config(prepared / "prepared.yaml", [f"run.dir={prepared}", f"run.name={layout}", *STEPS, *LAYOUTS[layout]])
    results = run_on_ranks(train_with_a_slow_rank, 2, config, RunDirectory(prepared / layout), 1)
    (fast, is_restored), (slow, _) = results
    assert is_restored and len(fast) == len(slow) == 5
    slept_s = SLOW_S * 8 / (2 * (2 if layout == "dp2" else 1))
    # The least of the steps: on a machine with other work every time may be longer than it should, none is shorter.
    fast_own_s, slow_own_s = (min(report["own_s"] for report in reports) for reports in (fast, slow))
    assert slow_own_s - fast_own_s > 0.6 * slept_s and slow_own_s > slept_s
    assert min(report["parts"]["forward_backward"] for report in slow) > slept_s
    # The fast rank's wait is what the slow one takes longer; a step in which the machine held it up as well has none.
    assert statistics.median(report["parts"]["collectives"] for report in fast) > 0.5 * slept_s
    for report in (*fast, *slow):
        assert report["own_s"] == pytest.approx(sum(report["parts"].values()) - report["parts"]["collectives"])
    assert fast[0]["stage"] == 0 and slow[0]["stage"] == (1 if layout == "pp2" else 0)
    line = RunDirectory(prepared / layout).metrics()[-1]
    assert line["collectives_s"] == fast[-1]["parts"]["collectives"]


class FakeClock:
    """Moves only when told to."""

    now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, start: float, stop: float) -> float:
        return stop - start


@pytest.fixture
def timed():
    """(progress, times, clock): a step of 10 s a mark can be played, two of them waited for others where measured."""
    progress, collectives = Progress(), CollectiveTime(is_cuda=False)
    collectives.clock = clock = FakeClock()
    times = StepTimes(progress, collectives, interval=3)
    yield progress, times, clock
    times.close()


def play(timed, phases: dict[str, float], waited_s: float = 0.0) -> bool:
    """One step; returns whether its collectives were measured."""
    progress, times, clock = timed
    measured = []
    for phase, seconds in phases.items():
        progress.mark(phase)
        if times.collectives.is_measuring and phase == "forward and backward":
            times.collectives.waits.append((clock.now, clock.now + waited_s))
        measured.append(times.collectives.is_measuring)
        clock.now += seconds
    return all(measured)


STEP = {"waiting for data": 1.0, "forward and backward": 10.0, "updating the weights": 3.0, "counting": 0.5}


def test_every_third_step_is_measured_and_its_share_counts_for_the_others(timed):
    progress, times, clock = timed
    clock.now += 7
    times.take()
    assert [play(timed, STEP, waited_s=4.0) for _ in range(6)] == [False, True, False, False, True, False]
    interval = times.take()
    assert interval.parts == pytest.approx(
        {"data_wait": 6, "forward_backward": 36, "collectives": 24, "optimizer": 18, "other": 3}
    )
    assert interval.steps_s == 6 * 14.5
    assert not play(timed, STEP), "the seventh"
    assert times.take().parts["collectives"] == pytest.approx(4.0), "the last known share"


def test_what_takes_place_between_steps_is_not_theirs(timed):
    progress, times, clock = timed
    times.take()
    play(timed, STEP)
    play(timed, {"evaluating": 20.0, "comparing the replicas": 1.0, "saving": 5.0, "counting": 0.25})
    play(timed, {"waiting for data": 1.0, "rolling back": 100.0, "counting": 0.25})
    interval = times.take()
    assert (interval.evaluating_s, interval.checkpointing_s) == (20.0, 6.0)
    assert interval.steps_s == 14.5 + 0.25 + 1.25


def test_nothing_stays_replaced_whatever_happens():
    names = [name for name in _ON_STREAM if hasattr(ProcessGroup, name)]
    assert {"allreduce", "broadcast", "barrier"} < set(names)
    before = [vars(Work)["wait"], *(vars(ProcessGroup)[name] for name in names)]
    for is_cuda in (False, True):
        collectives = CollectiveTime(False)
        collectives._is_cuda = is_cuda
        with pytest.raises(RuntimeError, match="on demand"), collectives.closing():
            collectives.start()
            collectives.start()
            assert vars(Work)["wait"] is not before[0]
            assert (vars(ProcessGroup)["allreduce"] is not before[1 + names.index("allreduce")]) == is_cuda
            raise RuntimeError("on demand")
        assert all(a is b for a, b in zip([vars(Work)["wait"], *(vars(ProcessGroup)[name] for name in names)], before))


def test_collectives_work_while_they_are_timed_as_on_a_gpu_and_afterwards():
    collectives = CollectiveTime(False)
    collectives._is_cuda = True
    device = Device.detect(Job())
    with device.joined(Job(), 60), collectives.closing():
        for _ in range(2):
            collectives.start()
            dist.all_reduce(torch.ones(2))
            assert collectives.waits
            collectives.waits.clear()
            collectives.stop()
            dist.all_reduce(torch.ones(2))
            dist.barrier()
            assert not collectives.waits
