"""The fastest layout that fits: every valid one is sketched from small models, the best are then simulated in whole.

All costs of a step grow linearly with the layers of a stage, and nearly so with the micro-batch; so four small models of a
layout (one and two layers a stage, two sizes of the micro-batch) tell those of the whole. Only the order rests on that.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from robustbert.config import ConfigError, RunConfig
from robustbert.plan.estimate import StepParts, StepTime, step_parts, step_time
from robustbert.hardware import HardwareProfile
from robustbert.plan.simulation import first_rank_of_stage, simulate_step

_SIZES = (1, 2, 4, 8, 16, 32)
_SKETCHED_ROWS = (2, 8)


@dataclass(frozen=True)
class Candidate:
    """A layout and what it is expected to cost on its first stage, the fullest one."""

    tensor: int
    pipeline: int
    recompute: str
    micro_batch_size: int
    time: StepTime
    memory_bytes: float
    fits: bool

    @property
    def overrides(self) -> list[str]:
        """What to give to `launcher submit` to get it."""
        sequence = f"parallel.sequence={'true' if self.tensor > 1 else 'false'}"
        keys = {"tensor": self.tensor, "pipeline": self.pipeline, "recompute": self.recompute}
        return [*(f"parallel.{k}={v}" for k, v in keys.items()), sequence, f"train.micro_batch_size={self.micro_batch_size}"]


def search_layouts(config: RunConfig, hardware: HardwareProfile, say: Callable[[str], None] = lambda words: None) -> list[Candidate]:
    """All valid layouts of the configuration's processes, those that fit first, fastest first.

    The global batch, the model and the number of processes stay; tensor parallelism stays within a node.
    """
    found = []
    layouts = list(_layouts(config))
    for number, layout in enumerate(layouts, 1):
        say(f"layout {number} of {len(layouts)}: {_in_words(layout)}")
        found.extend(_candidates(layout, hardware))
    return sorted(found, key=lambda candidate: (not candidate.fits, candidate.time.total_s))


def nearest_that_fits(
    config: RunConfig, hardware: HardwareProfile, say: Callable[[str], None] = lambda words: None
) -> Candidate | None:
    """The layout that fits and differs least from the configuration's: the same axes first, then the same recomputation, then the largest micro-batch."""
    rows, parallel = config.train.micro_batch_size, config.parallel
    layouts = list(_layouts(config))
    distance = {
        id(layout): (
            abs(math.log2(layout.parallel.tensor / parallel.tensor)) + abs(math.log2(layout.parallel.pipeline / parallel.pipeline)),
            layout.parallel.recompute != parallel.recompute,
        )
        for layout in layouts
    }
    for layout in sorted(layouts, key=lambda layout: distance[id(layout)]):
        say(f"looking for one that fits: {_in_words(layout)}")
        fitting = [c for c in _candidates(layout, hardware) if c.fits and c.micro_batch_size <= rows]
        for candidate in sorted(fitting, key=lambda candidate: -candidate.micro_batch_size):
            if _fits_in_whole(with_candidate(config, candidate), hardware):
                return candidate
    return None


def _in_words(layout: RunConfig) -> str:
    parallel = layout.parallel
    return f"tensor {parallel.tensor}, pipeline {parallel.pipeline}, recompute {parallel.recompute}"


def _fits_in_whole(config: RunConfig, hardware: HardwareProfile) -> bool:
    processes = config.cluster.num_processes
    records = (
        simulate_step(config, processes, first_rank_of_stage(config, processes, stage), hardware.kernels)
        for stage in range(config.parallel.pipeline)
    )
    return all(hardware.fits(record.position.total_bytes + record.activation_bytes) for record in records)


def with_candidate(config: RunConfig, candidate: Candidate) -> RunConfig:
    """The configuration in the candidate's layout."""
    return _with_layout(config, candidate.tensor, candidate.pipeline, candidate.recompute, candidate.micro_batch_size)


def _layouts(config: RunConfig) -> Iterator[RunConfig]:
    for tensor in _SIZES:
        for pipeline in _SIZES:
            divides = config.model.num_layers % pipeline == 0 and config.model.num_attention_heads % tensor == 0
            if not divides or tensor > config.cluster.processes_per_node or config.cluster.num_processes % (tensor * pipeline):
                continue
            for recompute in ("none", "full"):
                try:
                    yield _with_layout(config, tensor, pipeline, recompute, 1)
                except ConfigError:  # the batch, or the vocabulary's rows, do not divide
                    continue


def _candidates(layout: RunConfig, hardware: HardwareProfile) -> Iterator[Candidate]:
    processes, stages = layout.cluster.num_processes, layout.parallel.pipeline
    layers = layout.model.num_layers // stages
    rows_of_replica = layout.train.global_batch_size // layout.data_parallel_size(processes)
    few, many = (_at_rows(layout, hardware, rows, layers) for rows in _SKETCHED_ROWS)
    slope = (many + few * -1) * (1 / (_SKETCHED_ROWS[1] - _SKETCHED_ROWS[0]))
    for rows in (size for size in (*_SIZES, 64) if rows_of_replica % size == 0):
        parts = few + slope * (rows - _SKETCHED_ROWS[0])
        time = step_time(parts, rows_of_replica // rows, stages)
        memory = parts.kept_bytes + parts.activation_bytes
        yield Candidate(
            layout.parallel.tensor, stages, layout.parallel.recompute, rows, time, memory, hardware.fits(memory)
        )


def _at_rows(layout: RunConfig, hardware: HardwareProfile, rows: int, layers: int) -> StepParts:
    one, two = (_sketch(layout, hardware, rows, number) for number in (1, 2))
    return one + (two + one * -1) * (layers - 1)


def _sketch(layout: RunConfig, hardware: HardwareProfile, rows: int, layers_a_stage: int) -> StepParts:
    """The costs on the first stage where each stage has so many layers."""
    parallel, processes = layout.parallel, layout.cluster.num_processes
    batch = rows * layout.data_parallel_size(processes) * (parallel.pipeline + 1)
    small = dataclasses.replace(
        layout,
        model=dataclasses.replace(layout.model, num_layers=layers_a_stage * parallel.pipeline),
        train=dataclasses.replace(layout.train, micro_batch_size=rows, global_batch_size=batch),
    )
    record = simulate_step(small, processes, first_rank_of_stage(small, processes, 0), hardware.kernels)
    return step_parts(record, small, processes, hardware)


def _with_layout(config: RunConfig, tensor: int, pipeline: int, recompute: str, micro_batch_size: int) -> RunConfig:
    parallel = dataclasses.replace(config.parallel, tensor=tensor, pipeline=pipeline, recompute=recompute, sequence=tensor > 1)
    train = dataclasses.replace(config.train, micro_batch_size=micro_batch_size)
    return dataclasses.replace(config, parallel=parallel, train=train)
