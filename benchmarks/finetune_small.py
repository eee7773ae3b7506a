#!/usr/bin/env python3
"""A small pretrained model, finetuned, beside the same model untrained and the most frequent class, over several seeds.

Also MRPC (and RTE) from the model finetuned on MNLI, as the paper does it (section 5.1). Of several learning rates each row has its own
best, by the median over the seeds. Every finetuning is one cell of a sweep: killed, the same command goes on.
"""

import argparse
import json
import statistics
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.records import write_record  # noqa: E402
from robustbert.finetune.cli import main as finetune  # noqa: E402
from robustbert.finetune.folders import task_folder  # noqa: E402
from robustbert.finetune.sweep import read_cells  # noqa: E402
from robustbert.finetune.tasks import FROM_MNLI, build_task  # noqa: E402

PROGRAM = (sys.executable, str(ROOT / "tools" / "finetune"))
_EXAMPLE = """example:
  benchmarks/finetune_small.py --model runs/small/checkpoints/step_00002600 --data glue --output runs/small-finetuned \\
                               --record benchmarks/records/2026-01-31_finetune_small.md
"""


@dataclass(frozen=True)
class Result:
    """Accuracies of a setting's seeds. lr: None where nothing was trained."""

    accuracies: list[float]
    lr: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.accuracies)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print the table, and with --record write it down."""
    options = _parser().parse_args(arguments)
    common = ["--data", str(options.data), "--seeds", options.seeds, "--epochs", str(options.epochs)]
    common += ["--max-length", str(options.max_length)]
    common += ["--grid", f"lr={','.join(map(str, options.lr))}", f"batch_size={options.batch_size}"]
    common += [f"--micro-batch-size={options.batch_size}", f"--parallel={options.parallel}", f"--precision={options.precision}"]
    pretrained = ["--model", str(options.model)]
    lines = [f"{'task':8}{'weights':28}{'dev accuracy: median':>22}  {'least to greatest':20}{'seeds':8}lr"]
    for task in options.tasks.split(","):
        sample = ["--train-examples", str(options.examples)]
        rows = [(task, "most frequent class", Result([most_frequent_share(task, options.data)]))]
        for name, words in (("untrained", [*pretrained, "--untrained"]), ("pretrained", pretrained)):
            rows.append((task, name, swept(task, options.output / f"{task}-{name}", [*common, *words, *sample])))
        if task in FROM_MNLI and options.mnli_examples:
            for name, words in (("untrained", [*pretrained, "--untrained"]), ("pretrained", pretrained)):
                mnli = mnli_model(options, name, words)
                result = swept(task, options.output / f"{task}-{name}-mnli", [*common, "--start-from", str(mnli), *sample])
                rows.append((task, f"{name}, then MNLI", result))
        lines += [_line(*row) for row in rows]
    print("\n".join(lines))
    if options.record:
        command = "benchmarks/finetune_small.py " + " ".join(arguments or sys.argv[1:])
        count = f"{options.examples:,} training examples" if options.examples else "all training examples"
        about = [f"model: {_model_line(options.model)}", f"{count}, {options.epochs} epochs, whole development sets", ""]
        write_record(options.record, "A small model finetuned", command, "", ("torch", "transformers"), [*about, *lines])
    return 0


def most_frequent_share(name: str, data: Path) -> float:
    """The accuracy on the development set of always saying its most frequent class of the training set."""
    task = build_task(name)
    train, dev = (task.read(task_folder(task, data), split) for split in ("train", "dev"))
    label = Counter(example.label for example in train).most_common(1)[0][0]
    return sum(example.label == label for example in dev) / len(dev)


def swept(task: str, folder: Path, words: list[str]) -> Result:
    """The best learning rate of a sweep with its seeds; runs what is missing."""
    exit_code = finetune([task, "--sweep", "--output", str(folder), *words], program=PROGRAM)
    if exit_code:
        sys.exit(exit_code)
    accuracies = defaultdict(list)
    for cell, output in read_cells(folder):
        accuracies[cell.values["lr"]].append(output.result()["metrics"]["dev"]["accuracy"])
    return max((Result(of_rate, lr) for lr, of_rate in accuracies.items()), key=lambda result: result.median)


def mnli_model(options: argparse.Namespace, name: str, words: list[str]) -> Path:
    """The folder of one model finetuned on MNLI."""
    folder = options.output / f"mnli-{name}"
    words = ["mnli", "--output", str(folder), "--data", str(options.data), "--epochs", str(options.mnli_epochs), *words]
    words += ["--lr", str(options.mnli_lr), "--batch-size", str(options.batch_size), "--micro-batch-size", str(options.batch_size)]
    words += ["--train-examples", str(options.mnli_examples), "--precision", options.precision]
    words += ["--max-length", str(options.max_length)]
    if exit_code := finetune(words):
        sys.exit(exit_code)
    return folder


def _line(task: str, weights: str, result: Result) -> str:
    median, accuracies = f"{100 * result.median:.1f}", result.accuracies
    spread = f"{100 * min(accuracies):.1f} to {100 * max(accuracies):.1f}" if len(accuracies) > 1 else ""
    seeds, lr = (len(accuracies), result.lr) if result.lr else ("", "")
    return f"{task:8}{weights:28}{median:>22}  {spread:20}{seeds:<8}{lr}".rstrip()


def _model_line(model: Path) -> str:
    manifest = model / "MANIFEST.json"
    if not manifest.exists():
        return model.name
    content = json.loads(manifest.read_text(encoding="utf-8"))
    shape = content["config"]["model"]
    step = content.get("state", content).get("step", model.name)
    return f"{shape['num_layers']} layers of {shape['hidden_size']}, pretrained for {step} steps"


def _rates(words: str) -> list[float]:
    return [float(word) for word in words.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/finetune_small.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="the pretrained model, as tools/finetune takes it")
    add("--data", type=Path, required=True, metavar="DIR", help="GLUE's folder with SST-2, MRPC and MNLI")
    add("--output", type=Path, required=True, metavar="DIR", help="where the finetunings go; goes on where it was")
    add("--record", type=Path, metavar="FILE", help="write the table down with the machine, the commit and the versions")
    add("--seeds", default="1,2,3", metavar="N,N", help="(1,2,3)")
    add("--tasks", default="sst-2,mrpc", metavar="TASK,TASK", help="scored by accuracy (sst-2,mrpc)")
    add("--examples", type=int, default=2048, metavar="N", help="training examples of each task, 0: all (2048)")
    add("--epochs", type=int, default=4, metavar="N", help="(4)")
    add("--mnli-examples", type=int, default=8192, metavar="N", help="training examples of MNLI, 0: no start from MNLI (8192)")
    add("--mnli-epochs", type=int, default=2, metavar="N", help="(2)")
    add("--mnli-lr", type=float, default=3e-4, metavar="N", help="(3e-4)")
    add("--lr", type=_rates, default=[3e-4], metavar="N,N", help="a small model takes a larger one than Table 10's (3e-4)")
    add("--max-length", type=int, default=128, metavar="N", help="tokens a sequence; no more than pretraining had (128)")
    add("--precision", default="fp32", help="fp32, bf16, fp16 (fp32)")
    add("--batch-size", type=int, default=32, metavar="N", help="(32)")
    add("--parallel", type=int, default=1, metavar="N", help="finetunings at once (1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
