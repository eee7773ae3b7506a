#!/usr/bin/env python3
"""A small pretrained model, finetuned, beside the same model untrained and the most frequent class, over several seeds.

Also MRPC (and RTE) from the model finetuned on MNLI, as the paper does it (section 5.1). Of several learning rates each row has its own
best, by the median over the seeds. Every finetuning is one cell of a sweep: killed, the same command goes on, and later seeds and rates
join those that are there.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.records import write_record  # noqa: E402
from robustbert.finetune.cli import main as finetune  # noqa: E402
from robustbert.finetune.ensemble import open_ensembles  # noqa: E402
from robustbert.finetune.folders import task_folder  # noqa: E402
from robustbert.finetune.sweep import read_cells  # noqa: E402
from robustbert.finetune.task import Task  # noqa: E402
from robustbert.finetune.tasks import FROM_MNLI, build_task  # noqa: E402
from robustbert.job import Job  # noqa: E402

PROGRAM = (sys.executable, str(ROOT / "tools" / "finetune"))
_EXAMPLE = """example:
  benchmarks/finetune_small.py --model runs/small/checkpoints/step_00002600 --data glue --output runs/small-finetuned \\
                               --record benchmarks/records/2026-01-31_finetune_small.md
"""


@dataclass(frozen=True)
class Result:
    """What the finetunings of one row said. correct_SN: bool, whether each of S seeds was right of each of N examples."""

    correct_SN: np.ndarray
    lr: float | None = None  # None where nothing was trained

    @property
    def accuracies_S(self) -> np.ndarray:
        return self.correct_SN.mean(1)

    @property
    def median(self) -> float:
        return float(np.median(self.accuracies_S))

    def above(self, other: "Result") -> tuple[float, float]:
        """The mean accuracy over seeds above another's, and its standard error over examples, which both have in common."""
        difference_N = self.correct_SN.mean(0) - other.correct_SN.mean(0)
        return float(difference_N.mean()), float(difference_N.std(ddof=1) / len(difference_N) ** 0.5)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print the table, and with --record write it down."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.folds == 2:
        parser.error("--folds: one is held out, one chooses the epoch, the others train: 3 or more")
    lines = [f"{'task':8}{'weights':28}{'accuracy: median':>18}  {'least to greatest':20}{'seeds':8}{'lr':8}above untrained (standard error)"]
    for name in options.tasks.split(","):
        task = build_task(name)
        parts = [Part(options.data, options.data)]
        if options.folds > 1:
            parts = write_folds(task, options.data, options.folds, options.output / "folds")
        lines.append(_line(name, "most frequent class", most_frequent(task, parts)))
        for start in ("", ", then MNLI") if name in FROM_MNLI and options.mnli_examples else ("",):
            untrained = swept(task, parts, options, is_pretrained=False, after_mnli=bool(start))
            pretrained = swept(task, parts, options, is_pretrained=True, after_mnli=bool(start))
            lines.append(_line(name, f"untrained{start}", untrained))
            lines.append(_line(name, f"pretrained{start}", pretrained, untrained))
    print("\n".join(lines))
    if options.record:
        command = "benchmarks/finetune_small.py " + " ".join(arguments or sys.argv[1:])
        count = f"{options.examples:,} training examples" if options.examples else "all training examples"
        held_out = "whole development sets" if options.folds == 1 else f"{options.folds}-fold cross-validation"
        about = [f"model: {_model_line(options.model)}", f"{count}, {options.epochs} epochs, {held_out}", ""]
        write_record(options.record, "A small model finetuned", command, "", ("torch", "transformers"), [*about, *lines])
    return 0


@dataclass(frozen=True)
class Part:
    """What one set of finetunings is given (`data`), and the folder whose development file scores them."""

    data: Path
    held_out: Path


def write_folds(task: Task, data: Path, count: int, folder: Path) -> list[Part]:
    """The labelled examples of the training and the development file in `count` folds, each held out once.

    The next one is then the development set, which chooses the epoch; the others are the training set.
    """
    lines = []
    for split in ("train", "dev"):  # only a line feed ends a line
        header, *rows = (task_folder(task, data) / f"{split}.tsv").read_bytes().decode("utf-8-sig").rstrip("\n").split("\n")
        lines += rows
    fold_N = np.random.default_rng(0).permutation(len(lines)) % count
    parts = [Part(folder / f"{k + 1}-of-{count}", folder / f"{k + 1}-of-{count}" / "held-out") for k in range(count)]
    for k, part in enumerate(parts):
        is_held_out, is_dev = fold_N == k, fold_N == (k + 1) % count
        for where, split, chosen in (
            (part.data, "train", ~is_held_out & ~is_dev),
            (part.data, "dev", is_dev),
            (part.held_out, "dev", is_held_out),
        ):
            file = where / task.folders[0] / f"{split}.tsv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(("\n".join([header, *(line for line, wanted in zip(lines, chosen) if wanted)]) + "\n").encode())
    return parts


def most_frequent(task: Task, parts: list[Part]) -> Result:
    """Always saying the most frequent class of the training set."""
    correct = []
    for part in parts:
        label = Counter(example.label for example in task.read(task_folder(task, part.data), "train")).most_common(1)[0][0]
        correct += [example.label == label for example in task.read(task_folder(task, part.held_out), "dev")]
    return Result(np.array([correct]))


def swept(task: Task, parts: list[Part], options: argparse.Namespace, is_pretrained: bool, after_mnli: bool) -> Result:
    """The best learning rate of the sweeps of all parts with their seeds; runs what is missing."""
    name = "pretrained" if is_pretrained else "untrained"
    weights = ["--model", str(options.model), *([] if is_pretrained else ["--untrained"])]
    if after_mnli:
        weights = ["--start-from", str(mnli_model(options, name, weights))]
    rates = options.lr if is_pretrained else options.untrained_lr or options.lr
    grid = ["--grid", f"lr={','.join(map(str, rates))}", f"batch_size={options.batch_size}"]
    common = [*_common_words(options, options.epochs, options.examples), "--seeds", ",".join(map(str, options.seeds)), f"--parallel={options.parallel}", *grid]
    correct = defaultdict(list)  # by rate and seed, one array a part
    for number, part in enumerate(parts, start=1):
        folder = options.output / f"{task.name}-{name}{'-mnli' * after_mnli}{f'-{number}-of-{len(parts)}' * (len(parts) > 1)}"
        exit_code = finetune([task.name, "--sweep", "--output", str(folder), "--data", str(part.data), *common, *weights], program=PROGRAM)
        if exit_code:
            sys.exit(exit_code)
        asked = ((cell, output) for cell, output in read_cells(folder) if cell.values["lr"] in rates and cell.seed in options.seeds)
        with open_ensembles(part.held_out, Job()) as build_ensemble:
            for cell, output in asked:  # the folder may have more of them
                answers = build_ensemble(task, [output.path]).answers("dev")
                right = [example.label == prediction for example, prediction in zip(answers.examples, answers.predictions, strict=True)]
                correct[cell.values["lr"], cell.seed].append(np.array(right))
    by_rate = defaultdict(list)
    for (lr, _), pieces in correct.items():
        by_rate[lr].append(np.concatenate(pieces))
    return max((Result(np.stack(seeds), lr) for lr, seeds in by_rate.items()), key=lambda result: result.median)


def mnli_model(options: argparse.Namespace, name: str, weights: list[str]) -> Path:
    """The folder of one model finetuned on MNLI."""
    folder = options.output / f"mnli-{name}"
    words = ["mnli", "--output", str(folder), "--data", str(options.data), "--lr", str(options.mnli_lr), "--batch-size", str(options.batch_size)]
    if exit_code := finetune([*words, *weights, *_common_words(options, options.mnli_epochs, options.mnli_examples)]):
        sys.exit(exit_code)
    return folder


def _common_words(options: argparse.Namespace, epochs: int, num_examples: int) -> list[str]:
    words = ["--epochs", str(epochs), "--train-examples", str(num_examples), "--max-length", str(options.max_length)]
    words += ["--patience", str(options.patience)]
    return [*words, "--micro-batch-size", str(options.batch_size), "--precision", options.precision]


def _line(task: str, weights: str, result: Result, untrained: Result | None = None) -> str:
    median, accuracies_S = f"{100 * result.median:.1f}", 100 * result.accuracies_S
    spread = f"{accuracies_S.min():.1f} to {accuracies_S.max():.1f}" if len(accuracies_S) > 1 else ""
    seeds, lr = (len(accuracies_S), result.lr) if result.lr else ("", "")
    above = "{:+.1f} ({:.1f})".format(*(100 * value for value in result.above(untrained))) if untrained else ""
    return f"{task:8}{weights:28}{median:>18}  {spread:20}{seeds:<8}{lr:<8}{above}".rstrip()


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


def _seeds(words: str) -> list[int]:
    return [int(word) for word in words.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/finetune_small.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="the pretrained model, as tools/finetune takes it")
    add("--data", type=Path, required=True, metavar="DIR", help="GLUE's folder, with MNLI where the task starts from it")
    add("--output", type=Path, required=True, metavar="DIR", help="where the finetunings go; goes on where it was")
    add("--record", type=Path, metavar="FILE", help="write the table down with the machine, the commit and the versions")
    add("--seeds", type=_seeds, default=[1, 2, 3], metavar="N,N", help="(1,2,3)")
    add("--tasks", default="sst-2,mrpc", metavar="TASK,TASK", help="sst-2, mrpc, rte, qqp, qnli, wnli (sst-2,mrpc)")
    add("--examples", type=int, default=2048, metavar="N", help="training examples of each task, 0: all (2048)")
    add("--epochs", type=int, default=4, metavar="N", help="(4)")
    add("--patience", type=int, default=0, metavar="N", help="stop after N epochs without a better development score, 0: train all (0)")
    add("--mnli-examples", type=int, default=8192, metavar="N", help="training examples of MNLI, 0: no start from MNLI (8192)")
    add("--mnli-epochs", type=int, default=2, metavar="N", help="(2)")
    add("--mnli-lr", type=float, default=3e-4, metavar="N", help="(3e-4)")
    add("--lr", type=_rates, default=[3e-4], metavar="N,N", help="a small model takes a larger one than Table 10's (3e-4)")
    add("--untrained-lr", type=_rates, metavar="N,N", help="rates of the untrained model (those of --lr)")
    add("--folds", type=int, default=1, metavar="N", help="N above 2: cross-validation over training and development set together, scored apart from the fold that chooses the epoch (1)")
    add("--max-length", type=int, default=128, metavar="N", help="tokens a sequence; no more than pretraining had (128)")
    add("--precision", default="fp32", help="fp32, bf16, fp16 (fp32)")
    add("--batch-size", type=int, default=32, metavar="N", help="(32)")
    add("--parallel", type=int, default=1, metavar="N", help="finetunings at once (1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
