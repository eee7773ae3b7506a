"""`python -m benchmarks.published_figures`: what the plan projects beside what others published; nothing was fitted to it.

Published: RoBERTa, section 5 (100k steps of 8k x 512 in about a day on 1,024 V100); DeepSpeed's BERT record of 2020
(272 sequences/s at length 128, 52 at 512 on one V100; 44 minutes on 1,024), by NVIDIA's recipe of two phases: 7,038 steps
of 65,536 x 128, then 1,563 of 32,768 x 512.
"""

from dataclasses import dataclass
from pathlib import Path

from robustbert.config import load_config
from robustbert.plan.estimate import step_parts, step_time
from robustbert.hardware import load_profile
from robustbert.plan.simulation import simulate_step
from robustbert.throughput import training_flops

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "large_500k.yaml"
DAY = 86400


@dataclass(frozen=True)
class Comparison:
    """A published figure and what the plan says about the same work."""

    what: str
    published: float
    projected: float
    unit: str
    assumption: str

    @property
    def ratio(self) -> float:
        return self.projected / self.published


def step_seconds(
    num_processes: int, length: int, global_batch: int, micro_batch: int, vocab_size: int, optimizer: str = "adam"
) -> float:
    """The projected step of BERT large's shape on so many V100s, data parallel only."""
    nodes, per_node = max(1, num_processes // 8), min(8, num_processes)
    overrides = [
        f"model.vocab_size={vocab_size}",
        "model.compile=false",  # what was published was not compiled
        f"data.sequence_length={length}",
        f"train.global_batch_size={global_batch}",
        f"train.micro_batch_size={micro_batch}",
        f"cluster.nodes={nodes}",
        f"cluster.processes_per_node={per_node}",
        f"optim.name={optimizer}",
    ]
    config, hardware = load_config(CONFIG, overrides), load_profile("v100_dgx1")
    parts = step_parts(simulate_step(config, num_processes, 0, hardware.kernels), config, num_processes, hardware)
    return step_time(parts, config.num_micro_batches(num_processes), 1).total_s


def compare_with_deepspeed() -> list[Comparison]:
    """One V100 at 512 and at 128, and the whole of 1,024."""
    one_512, one_128 = 8 / step_seconds(1, 512, 8, 8, 30522), 64 / step_seconds(1, 128, 64, 64, 30522)
    first, second = (
        step_seconds(1024, *phase, vocab_size=30522, optimizer="lamb") for phase in ((128, 65536, 64), (512, 32768, 8))
    )
    kernels = "our operators one by one; 83 TFLOP/s products, 790 GB/s memory"
    return [
        Comparison("DeepSpeed: BERT large at 512, one V100", 52, one_512, "sequences/s", f"micro-batch 8; {kernels}"),
        Comparison("DeepSpeed: BERT large at 128, one V100", 272, one_128, "sequences/s", f"micro-batch 64; {kernels}"),
        Comparison(
            "DeepSpeed: BERT large, both phases, 1,024 V100", 44, (7038 * first + 1563 * second) / 60, "minutes",
            "NVIDIA's recipe of steps; LAMB, its update shared by the processes; 40 GB/s a node between nodes",
        ),
    ]


def compare_with_roberta() -> list[Comparison]:
    """The paper's day: its operations, and our program's time for its steps."""
    config = load_config(CONFIG, ["model.vocab_size=50265"])
    tokens = 8192 * 512
    flops = training_flops(config.model, tokens, 0.15 * tokens, 512)
    ours = step_seconds(1024, 512, 8192, 8, 50265)
    return [
        Comparison(
            "RoBERTa: TFLOP/s a GPU over its day", 9.5, flops * 1e5 / DAY / 1024 / 1e12, "TFLOP/s",
            "only the count of operations is ours: head at masked positions, the day as published",
        ),
        Comparison(
            "RoBERTa: 100k steps on 1,024 V100", 24.0, ours * 1e5 / 3600, "hours",
            "our program on 128 DGX-1 without failures; the published run reached 7.6% of peak",
        ),
    ]


def as_table(comparisons: list[Comparison]) -> str:
    """Markdown."""
    lines = ["| published | figure | projected by `launcher plan` | ratio | assumption |", "|---|---|---|---|---|"]
    for row in comparisons:
        lines.append(f"| {row.what} | {row.published:g} {row.unit} | {row.projected:.3g} {row.unit} | {row.ratio:.2f} | {row.assumption} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_table([*compare_with_roberta(), *compare_with_deepspeed()]))
