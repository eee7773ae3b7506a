"""The command line of tools/finetune: its options; what they do is in commands.py."""

import argparse
import socket
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from robustbert.finetune.settings import PRECISIONS, Settings, option_name
from robustbert.finetune.tasks import GLUE, MODULES
from robustbert.interruption import ends_by_signals
from robustbert.job import Job

_EXAMPLE = f"""examples:
  tools/finetune sst-2 --model runs/large --data glue --output finetuned/sst-2
  tools/finetune mnli --model models/large --data glue/MNLI --output finetuned/mnli --lr 1e-5 --precision bf16
  tools/finetune rte --start-from finetuned/mnli --data glue --output finetuned/rte
  torchrun --nproc-per-node 8 tools/finetune mnli --model models/large --data glue --output finetuned/mnli-8 --micro-batch-size 4

  tools/finetune mrpc --sweep --model models/large --data glue --output sweeps/mrpc --parallel 2
  tools/finetune glue --model models/large --data glue --output sweeps/glue --precision fp16 \\
                 --scheduler slurm --parallel 16 cluster.partition=gpu cluster.gpus_per_node=1
  tools/finetune cola --ensemble sweeps/glue/first/runs/cola/*/seed=1 --data glue --output finetuned/cola-ensemble
  tools/finetune glue --submit sweeps/glue --size 5 --data glue --output submission.zip

--model takes a run, a checkpoint, a folder of transformers or of fairseq. Killed at any moment, the same command goes on where it
was; the result does not depend on that, nor on the number of processes. glue is all of {', '.join(GLUE)}: the
sweep of Table 10, with RTE, STS-B and MRPC from the best model of MNLI, as in the paper.
"""
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
    "precision": "fp16 with loss scaling (fp32)",
    "patience": "stop after N epochs without a better development score; 0: train all, keep the best epoch",
    "seed": "of the new head, the order and the dropout",
    "train_examples": "take a sample of N training examples; 0: all",
    "micro_batch_size": "items computed at once; a batch is shared by as many processes as it has of these",
    "save_steps": "steps between two states to resume from",
    "untrained": "random weights in the model's shape: what pretraining is worth",
}


def main(
    arguments: list[str] | None = None, find_job: Callable[[float], Job] = lambda start_timeout_s: Job(), program: tuple[str, ...] = ()
) -> int:
    """Run the command; returns its exit code: 0, or 2 for bad input (one line on standard error). Ctrl-C ends it with 130, SIGTERM with 143.

    find_job: says which process of a job this is, and how long it waits for the others. program: the words that start this tool, for the
    members of a sweep.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    _check(parser, options)
    job = Job()

    def last_words() -> str:
        return "" if job.rank else f"interrupted; the same command continues from {options.output}"

    with ends_by_signals("tools/finetune", last_words):
        try:
            if not options.sweep:
                job = find_job(options.start_timeout)  # before torch is imported: the others wait
            from robustbert.finetune import commands

            if options.sweep:
                return commands.sweep(options, program)
            command = commands.ensemble if options.ensemble else commands.submit if options.submit else commands.finetune_one
            return command(options, job)
        except (ValueError, OSError) as error:
            if job.local_rank == 0:  # once a node: its disk or its data may be the one that lacks something
                where = f" (on {socket.gethostname()})" if job.rank else ""
                print(f"tools/finetune: error: {error}{where}", file=sys.stderr)
            return 2


def given_settings(options: argparse.Namespace) -> dict:
    """The settings that stand on the command line."""
    return {name: value for name in _names() if (value := getattr(options, name)) is not None}


def _names() -> list[str]:
    return [field.name for field in fields(Settings)]


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program where options do not go together."""
    if options.task == "glue" and options.ensemble:
        parser.error("--ensemble is of one task; --submit makes an ensemble for each task of GLUE")
    if options.submit and options.task != "glue":
        parser.error("--submit makes GLUE's archive: the task is glue")
    options.cluster += [word for word in options.grid if word.startswith("cluster.")]  # --grid takes all words that follow it
    options.grid = [word for word in options.grid if not word.startswith("cluster.")]
    options.sweep = options.sweep or (options.task == "glue" and not options.submit)
    if options.sweep and options.seed is not None:
        parser.error("a sweep takes --seeds, not --seed")
    if not options.sweep:
        given = [name for name in ("seeds", "grid", "scheduler", "parallel") if getattr(options, name)] + options.cluster
        if given:
            parser.error(f"{given[0]} is for a sweep; add --sweep")
    if wrong := next((word for word in options.cluster if not word.startswith("cluster.")), None):
        parser.error(f"{wrong!r} is no option; only cluster.KEY=VALUE goes without dashes")
    if options.model and options.start_from:
        parser.error("--model and --start-from both name the encoder; one of them")
    if options.tasks and options.task != "glue":
        parser.error("--tasks is for glue")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/finetune",
        usage="tools/finetune TASK --model DIR --data DIR --output DIR [settings] [--sweep ... | --ensemble DIR ... | --submit DIR]",
        description="Finetune a model on a task from its official files, with the paper's settings (Table 10) unless others are given.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("task", choices=(*MODULES, "glue"), metavar="TASK", help=f"{', '.join(MODULES)}, or glue: all of GLUE")
    add("--model", type=Path, metavar="DIR", help="the pretrained model")
    add("--tokenizer", type=Path, metavar="DIR", help="of a --model without one beside it, such as fairseq's roberta.large")
    add("--start-from", type=Path, metavar="DIR", help="a former finetuning's output: its encoder, with a new head")
    add("--data", type=Path, required=True, metavar="DIR", help="the task's official files, or the folder that holds its folder")
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to make; one of the same command is resumed, a sweep also grows")
    add("--compile", action="store_true", help="compile the encoder's layers: on a GPU, for many steps; the last bits then depend on the processes")
    add("--start-timeout", type=_seconds, default=8.0, metavar="SECONDS", help="how long to wait for processes that RANK and WORLD_SIZE announce (8)")
    _add_sweep(parser)
    group = parser.add_argument_group("of ensembles and the leaderboard")
    add = group.add_argument
    add("--ensemble", type=Path, nargs="+", metavar="DIR", help="average finished finetunings: scores and test predictions")
    add("--submit", type=Path, metavar="DIR", help="a sweep's folder: GLUE's zip by the best models of each task")
    add("--size", type=int, default=5, metavar="N", help="models in each task's ensemble of --submit (5; the paper: 5 to 7)")
    _add_settings(parser)
    return parser


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("of sweeps").add_argument
    add("--sweep", action="store_true", help="all settings of Table 10's grid with all seeds, and a table beside the paper's")
    add("--grid", nargs="+", default=[], metavar="NAME=V,V", help="other values, such as --grid lr=1e-5,5e-5 epochs=3")
    add("--seeds", metavar="N,N", help="the seeds (1,2,3,4,5)")
    add("--tasks", metavar="TASK,TASK", help=f"of glue: which tasks ({','.join(GLUE)})")
    add("--no-mnli-start", action="store_true", help="of glue: RTE, STS-B and MRPC start from --model as well")
    add("--scheduler", metavar="NAME", help="where its members run: local, mpi, slurm; see launcher sweep --help")
    add("--parallel", type=int, metavar="N", help="members at once (on each host)")
    add("cluster", nargs="*", default=[], metavar="cluster.KEY=VALUE", help="the launcher's options")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings (default: the task's in the paper)")
    for field in fields(Settings):
        option, text = option_name(field.name), _SETTING_HELP[field.name]
        if field.name == "precision":
            group.add_argument(option, choices=PRECISIONS, help=text)
        elif field.type is bool:
            group.add_argument(option, action="store_true", default=None, help=text)
        else:
            group.add_argument(option, type=field.type, metavar="N", help=text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, it is {text!r}")
    return value
