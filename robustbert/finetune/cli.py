"""The command line of tools/finetune."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from robustbert.finetune.settings import PRECISIONS, FinetuneError, Settings, option_name
from robustbert.finetune.tasks import MODULES, build_task
from robustbert.job import Job

_EXAMPLE = """examples:
  tools/finetune sst-2 --model models/quickstart --data glue --output finetuned/sst-2
  tools/finetune mnli --model models/large --data glue/MNLI --output finetuned/mnli --lr 1e-5 --precision bf16
  tools/finetune rte --start-from finetuned/mnli --data glue --output finetuned/rte --lr 3e-5
  torchrun --nproc-per-node 8 tools/finetune mnli --model models/large --data glue --output finetuned/mnli-8

Killed at any moment, the same command goes on where it was; the result does not depend on that, nor on the number of processes.
"""


def main(arguments: list[str] | None = None, find_job: Callable[[], Job] = Job) -> int:
    """Run the command; returns its exit code: 0, 2 for bad input (one line on standard error), 130 after Ctrl-C.

    find_job: says which process of a job this is.
    """
    options = _parser().parse_args(arguments)
    rank = 0
    try:
        job = find_job()
        rank = job.rank
        return _finetune(options, job)
    except (ValueError, OSError) as error:
        if rank == 0:
            print(f"tools/finetune: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if rank == 0:
            print(f"interrupted; the same command goes on from {options.output}", file=sys.stderr)
        return 130


def _finetune(options: argparse.Namespace, job: Job) -> int:
    import warnings

    from transformers.utils import logging

    from robustbert.finetune.finetune import Request, finetune
    from robustbert.finetune.progress import build_view

    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    task = build_task(options.task)
    settings = replace(task.settings, **_given_settings(options))
    request = Request(options.data, options.output, settings, options.model, options.start_from)
    with build_view(job.rank) as view:
        result = finetune(task, request, job, view)
    if job.rank == 0:
        for split, scores in result["metrics"].items():
            print(f"{task.name} {split}: " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        print(f"best epoch {result['best_epoch']} of {result['epochs']}; model and result.json in {options.output}")
    return 0


def _given_settings(options: argparse.Namespace) -> dict:
    return {
        field.name: value for field in fields(Settings) if (value := getattr(options, field.name)) is not None
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/finetune",
        description="Finetune a model on a task from its official files, with the paper's settings (Table 10) unless others are given.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("task", choices=tuple(MODULES), metavar="TASK", help=", ".join(MODULES))
    add("--model", type=Path, metavar="DIR", help="the pretrained model")
    add("--start-from", type=Path, metavar="DIR", help="a former finetuning's output: its encoder, with a new head (RTE, STS-B, MRPC from MNLI)")
    add("--data", type=Path, required=True, metavar="DIR", help="the task's official files, or the folder that holds the task's folder")
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to make; one of the same command is resumed")
    group = parser.add_argument_group("settings (default: the task's in the paper)")
    for field in fields(Settings):
        if field.name == "precision":
            group.add_argument("--precision", choices=PRECISIONS, help="fp16 with loss scaling (fp32)")
        elif field.type is bool:
            group.add_argument(option_name(field.name), action="store_true", default=None, help=_SETTING_HELP[field.name])
        else:
            group.add_argument(option_name(field.name), type=field.type, metavar="N", help=_SETTING_HELP[field.name])
    return parser


_SETTING_HELP = {
    "lr": "peak learning rate",
    "batch_size": "items a step, over all processes",
    "epochs": "epochs at most",
    "weight_decay": "of matrices; biases and LayerNorm weights do not decay",
    "warmup_ratio": "share of the steps with a growing learning rate",
    "beta1": "Adam's",
    "beta2": "Adam's",
    "eps": "Adam's",
    "clip_grad": "largest norm of the gradient; 0: no clipping",
    "dropout": "in the encoder and the head",
    "attention_dropout": "of attention's weights",
    "max_length": "tokens a sequence, at most what the model allows",
    "patience": "stop after N epochs without a better development score; 0: train all, keep the best epoch",
    "seed": "of the new head, the order and the dropout",
    "train_examples": "take a sample of N training examples; 0: all",
    "micro_batch_size": "items computed at once; N processes share a batch of at least N of these",
    "save_steps": "steps between two states to resume from",
    "untrained": "random weights in the model's shape: what pretraining is worth",
}
