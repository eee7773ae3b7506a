"""A real run in the time that is left, by the ordinary commands: pretrain, convert, finetune."""

import json
from pathlib import Path

from benchmarks.gpu.commands import call
from benchmarks.gpu.context import ROOT, Context
from robustbert.config import load_config
from robustbert.run_directory import RunDirectory

_GLOBAL_ROWS, _LR, _WARMUP_SHARE = 256, 5e-4, 0.06
_BESIDE_S = 45.0  # start-up, evaluations, conversion
_FINETUNING_S = 60.0  # a task
_TASKS = (("mrpc", "MRPC"), ("rte", "RTE"), ("sst-2", "SST-2"))
_MARGIN = 0.85  # of the time, so that the run ends before its limit
_FEWEST_STEPS = 20


def steps_within(seconds: float, tokens_per_s: float, tokens_a_step: int) -> int:
    """Steps that fit; 0 where they would be too few to show anything."""
    steps = int(_MARGIN * seconds * tokens_per_s / tokens_a_step)
    return steps if steps >= _FEWEST_STEPS else 0


def run(context: Context) -> str:
    """roberta-base on the prepared data, its held-out perplexity, and a task of GLUE where there is its data."""
    tasks = _tasks(context)
    steps, rows, micro_rows = _length(context, len(tasks))
    if not steps:
        raise RuntimeError(f"{context.left_s():.0f} s are too few for {_FEWEST_STEPS} steps at the measured speed")
    run_directory = RunDirectory(context.folder / "base")
    words = [
        f"run.dir={context.folder}",
        "run.name=base",
        f"train.steps={steps}",
        f"optim.warmup_steps={max(1, int(_WARMUP_SHARE * steps))}",
    ]
    words += [f"train.global_batch_size={rows}", f"train.micro_batch_size={micro_rows}", f"optim.lr={_LR}", "optim.clip_grad=1.0"]
    words += [
        f"train.eval_interval={steps}",
        f"checkpoint.interval={max(1, steps // 2)}",
        f"cluster.processes_per_node={_processes(context)}",
    ]
    call(context, "-m", "launcher", "submit", str(context.settings.work / "full.yaml"), *words)
    finished = next(event for event in reversed(run_directory.events()) if event["event"] == "finished")
    speeds = [line["tokens_per_s"] for line in run_directory.metrics()]
    perplexity, unigram = finished["heldout_perplexity"], finished["unigram_perplexity"]
    context.record(
        steps=steps, tokens=finished["tokens"], heldout_perplexity=perplexity, unigram_perplexity=unigram, tokens_per_s=speeds
    )
    context.check("converted", (run_directory.converted / "huggingface").exists())
    if perplexity is not None and not context.rehearse:
        context.check("uses context", perplexity < unigram)
    scores = {
        task: _finetune(context, run_directory, task, data)
        for task, data in tasks
        if context.left_s() > _FINETUNING_S / 2 or context.rehearse
    }
    context.record(scores=scores)
    learned = f"perplexity {perplexity:.1f}, {unigram:.1f} by frequency alone" if perplexity is not None else "no held-out text"
    tuned = ", ".join(f"{task} {score}" for task, score in scores.items()) or "no GLUE folder to finetune on (--data)"
    return f"{steps} steps, {finished['tokens'] / 1e6:.2f}M tokens: {learned}; finetuned: {tuned}"


def _processes(context: Context) -> int:
    """All cards; the batch divides by any power of two of them."""
    return max(1, 1 << (max(1, context.settings.num_gpus).bit_length() - 1))


def _length(context: Context, num_tasks: int) -> tuple[int, int, int]:
    """(steps, rows of a step, rows of a micro-batch), from the speed that was measured on one card."""
    config = load_config(context.settings.work / "full.yaml")
    if context.rehearse:
        return 4, config.train.global_batch_size, config.train.micro_batch_size
    measured = [
        found
        for found in context.of_stage("speed-base").get("measured", ())
        if "tokens_per_s" in found and found["precision"] == "bf16"
    ]
    if not measured:
        raise RuntimeError("no speed was measured: run the stage speed-base as well")
    best = max(
        (found for found in measured if not found["switches"]), key=lambda found: found["tokens_per_s"], default=measured[0]
    )
    seconds = context.left_s() - _BESIDE_S - _FINETUNING_S * num_tasks
    tokens_a_step = _GLOBAL_ROWS * config.data.sequence_length
    return (
        steps_within(seconds, best["tokens_per_s"] * _processes(context), tokens_a_step),
        _GLOBAL_ROWS,
        min(best["rows"], _GLOBAL_ROWS // _processes(context)),
    )


def _tasks(context: Context) -> list[tuple[str, Path]]:
    """(task, folder) of the GLUE tasks at hand; in a rehearsal one of made-up examples."""
    if context.rehearse:
        from tests.finetune.made_glue import write_made_task

        write_made_task(context.folder / "glue", "rte", num_train=8, num_dev=8, num_test=4)
        return [("rte", context.folder / "glue")]
    glue = context.settings.data / "glue" if context.settings.data else None
    found = [(task, glue) for task, folder in _TASKS if glue and (glue / folder).is_dir()]
    return found[: 1 if context.left_s() < 300 else 2]


def _finetune(context: Context, run_directory: RunDirectory, task: str, data: Path) -> str:
    """Finetune the run's newest checkpoint; the score that result.json ends with."""
    output = context.folder / f"finetuned-{task}"
    words = ["--model", str(run_directory.path), "--data", str(data), "--output", str(output)]
    words += (
        ["--epochs", "1", "--batch-size", "4", "--max-length", "32"]
        if context.rehearse
        else ["--epochs", "3", "--precision", "bf16"]
    )
    call(context, str(ROOT / "tools" / "finetune"), task, *words)
    return _score(output)


def _score(output: Path) -> str:
    watched = json.loads((output / "result.json").read_text())["watched"]
    return f"{watched['metric']} {watched['value']:.3f} ({watched['split']})"
