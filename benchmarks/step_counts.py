"""`python -m benchmarks.step_counts`: what a training step asks of a GPU, counted without one.

The training loop's own step runs on tensors without memory that stand for CUDA's (robustbert/plan/simulated_device.py), on
micro-batches of quickstart's text. Counted are the host's waits for the device and where they come from; the device's operators
and the bytes that they touch, by phase; the memory of the loss; the graphs into which torch.compile cuts a layer; padding masks.
Nothing is timed: these are the same numbers on every machine.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

from benchmarks.counting.graphs import count_graphs, describe_graphs
from benchmarks.counting.masks import count_masks, describe_masks
from benchmarks.counting.step import count_step, describe_step
from benchmarks.counting.training_step import MODELS, TEXT, load_run, open_batches, prepare
from benchmarks.records import write_record


def count_all(options: argparse.Namespace, folder: Path) -> list[str]:
    """All counts as lines; what is prepared and written goes to `folder`, the text to options.data where that is given."""
    config = load_run(
        options.model, options.precision, options.micro_batch, options.micro_batches, options.text, options.processes
    )
    prepared = prepare(config, options.data or folder / "data")
    batches = open_batches(config, prepared)
    title = f"{options.model}, {options.precision}, {options.micro_batches} x micro-batch {options.micro_batch} of {config.data.sequence_length}"
    title += f", process 1 of {options.processes}"
    lines = [title, *describe_step(count_step(config, batches, folder))]
    batches.close()
    return [*lines, *describe_graphs(count_graphs(config)), *describe_masks(count_masks(config, prepared))]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_counts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m benchmarks.step_counts --model large --record benchmarks/records/2026-11-27_step_counts.md",
    )
    parser.add_argument("--model", choices=MODELS, default="base")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--micro-batch", type=int, default=32, metavar="B", help="rows of a micro-batch (32)")
    parser.add_argument("--micro-batches", type=int, default=1, metavar="N", help="of a step (1)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="data-parallel ones, of which one is counted (1)")
    parser.add_argument("--text", default=TEXT, help=f"as in data.train ({TEXT})")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the prepared text here, or take it from here")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a Markdown file to write")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="megatron")
    with tempfile.TemporaryDirectory() as folder:
        lines = count_all(options, Path(folder))
    print("\n".join(lines))
    if options.record:
        command = f"python -m benchmarks.step_counts --model {options.model} --precision {options.precision}"
        command += f" --micro-batch {options.micro_batch} --micro-batches {options.micro_batches} --processes {options.processes}"
        write_record(options.record, "Counts of a training step", command, "; counted, not timed", ("torch", "megatron-core"), lines)


if __name__ == "__main__":
    main()
