"""The first stage: the data that all others train on, prepared once, and the two configurations that they start from.

small.yaml is a model that a CPU trains, too; full.yaml has the sizes that are measured. Both read WORK/data, or --data.
"""

import json
import time
from pathlib import Path

from benchmarks.gpu.context import ROOT, Context
from robustbert.config import RunConfig, load_config
from robustbert.data.batches import build_train_batches
from robustbert.data.prepare import PreparedData, prepare_run, prepared_data
from robustbert.run_directory import RunDirectory

_TEXT = """
data: {{tokenizer: {{train: {{vocab_size: {vocab_size}}}}}, train: [{{text: "{text}"}}], valid_fraction: {valid_fraction}}}
model: {{num_layers: 1, hidden_size: 64, ffn_hidden_size: 64, num_attention_heads: 1}}
"""
_CONFIG = """
model: {model}
data: {{tokenizer: {tokenizer}, train: {train}, valid: {valid}, sequence_length: {length}}}
optim: {{lr: {lr}, warmup_steps: {warmup_steps}}}
train: {{steps: {steps}, global_batch_size: {rows}, micro_batch_size: {micro_rows}, log_interval: {log_interval}, eval_sequences: 64}}
precision: {precision}
checkpoint: {{interval: 1000000}}
cluster: {{processes_per_node: 1}}
monitoring: {{prometheus_port: null}}
"""
_TINY = "num_layers: 2, hidden_size: 32, ffn_hidden_size: 72, num_attention_heads: 2, max_sequence_length: 32, dropout: 0.1"
_SMALL = "num_layers: 4, hidden_size: 256, ffn_hidden_size: 1024, num_attention_heads: 4, max_sequence_length: 128, dropout: 0.0, attention_dropout: 0.0"
_SMALL_TINY = _TINY.replace("dropout: 0.1", "dropout: 0.0, attention_dropout: 0.0")
ROBERTA_VOCAB_SIZE = 50265
NUM_STEPS = 20  # of the comparisons


def run(context: Context) -> str:
    """Prepare, or find what an earlier call has prepared; write both configurations."""
    started = time.monotonic()
    work, rehearse = context.settings.work, context.rehearse
    source = context.settings.data or _prepare_text(work, rehearse)
    data = _data_section(source)
    length = 32 if rehearse else 128
    small = dict(model="{%s}" % (_SMALL_TINY if rehearse else _SMALL), length=length, lr=1e-3, warmup_steps=5, steps=NUM_STEPS)
    small |= dict(rows=8 if rehearse else 32, micro_rows=4 if rehearse else 16, log_interval=1, precision="fp32")
    full_model = _TINY if rehearse else f"preset: roberta-base, vocab_size: {ROBERTA_VOCAB_SIZE}"
    full = dict(model="{%s}" % full_model, length=32 if rehearse else 512, lr=4e-4, warmup_steps=100, steps=100_000)
    full |= dict(rows=4 if rehearse else 32, micro_rows=4 if rehearse else 32, log_interval=10, precision="bf16")
    for name, values in (("small", small), ("full", full)):
        (work / f"{name}.yaml").write_text(_CONFIG.format(**values, **data))
        prepare_run(load_config(work / f"{name}.yaml").data, work / "data")  # the blocks of this length, once for all stages
    config = full_config(context)
    num_batches, real, masked = 8, 0, []
    batches = build_train_batches(prepared(context, config), config.data, config.train, 1, 0, 1)
    for step in range(num_batches):
        for batch in batches.micro_batches(step):
            real += batch.num_real_tokens
            masked.append(len(batch.targets_M))
    batches.close()
    share = real / (num_batches * config.train.global_batch_size * config.data.sequence_length)
    context.record(source=str(source), real_share=share, masked_positions=[min(masked), max(masked)])
    return f"{source.name} in {time.monotonic() - started:.0f} s; {share:.1%} of {config.data.sequence_length}-token rows are real tokens"


def small_config(context: Context, *overrides: str) -> RunConfig:
    return load_config(context.settings.work / "small.yaml", list(overrides))


def full_config(context: Context, *overrides: str) -> RunConfig:
    return load_config(context.settings.work / "full.yaml", list(overrides))


def prepared(context: Context, config: RunConfig) -> PreparedData:
    return prepared_data(config.data, context.settings.work / "data")


def make_run(context: Context, name: str) -> RunDirectory:
    """An empty run directory of the stage, which reads the prepared data."""
    run = RunDirectory(context.folder / name)
    run.path.mkdir(parents=True)
    run.data.symlink_to(context.settings.work / "data")
    return run


def optional(section: type, *overrides: str) -> list[str]:
    """Those overrides whose key this version of the section has."""
    from dataclasses import fields

    names = {field.name for field in fields(section)}
    return [override for override in overrides if override.partition("=")[0].rpartition(".")[2] in names]


def _prepare_text(work: Path, rehearse: bool) -> Path:
    """The quickstart's own prose; in a rehearsal this project's documentation."""
    text = str(ROOT / "*" / "README.md") if rehearse else "python:stdlib"
    values = (
        dict(vocab_size=300, text=text, valid_fraction=0.3) if rehearse else dict(vocab_size=4096, text=text, valid_fraction=0.03)
    )
    file, folder = work / "text.yaml", work / "prose"
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(_TEXT.format(**values))
    prepare_run(load_config(file, ["data.sequence_length=128"]).data, folder)
    return folder


def _data_section(source: Path) -> dict[str, str]:
    """The entries of `data` for a folder with tokenizer/, train* and, where there is held-out text, valid*."""
    if not (source / "tokenizer").is_dir():
        raise ValueError(f"{source} has no folder tokenizer/: --data takes a run's data folder, or one like it")

    def entries(pattern: str) -> str:
        return json.dumps([{"path": str(file.with_suffix(""))} for file in sorted(source.glob(f"{pattern}*.idx"))])

    if entries("train") == "[]":
        raise ValueError(f"{source} has no prepared corpus train*.idx: --data takes a run's data folder, or one like it")
    return {"tokenizer": str(source / "tokenizer"), "train": entries("train"), "valid": entries("valid")}
