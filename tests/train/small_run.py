"""A small real run: text prepared, a run's directory, pretrain() called on it."""

import random
import threading
import time
from pathlib import Path

from robustbert.config import RunConfig, dump_config, load_config
from robustbert.data.prepare import prepare_run
from robustbert.run_directory import RunDirectory

CONFIG = """
model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 72, num_attention_heads: 4, max_sequence_length: 32}
data: {tokenizer: {train: {vocab_size: 300}}, train: [{text: TEXT}], valid_fraction: 0.1, prepare_workers: 1}
optim: {lr: 1e-2, warmup_steps: 4}
train: {steps: 20, global_batch_size: 8, micro_batch_size: 2, log_interval: 1, eval_interval: 8, eval_sequences: 16}
checkpoint: {interval: 10, keep_last: 9}
"""


def write_text(path: Path, num_documents: int = 60) -> None:
    """English-like documents, the same every time."""
    random.seed(1)
    words = "the a model learns that every word has some context and text is read from left to right".split()
    documents = []
    for _ in range(num_documents):
        sentences = [" ".join(random.choices(words, k=random.randint(3, 14))).capitalize() + "." for _ in range(12)]
        documents.append(" ".join(sentences))
    path.write_text("\n\n\n".join(documents) + "\n")


def make_run(folder: Path, name: str, overrides: tuple[str, ...] = ()) -> tuple[RunConfig, RunDirectory]:
    """A run's directory with its configuration and its data prepared."""
    text = folder / "text.txt"
    if not text.exists():
        write_text(text)
    (folder / f"{name}.yaml").write_text(CONFIG.replace("TEXT", str(text)))
    config = load_config(folder / f"{name}.yaml", [f"run.dir={folder}", *overrides])
    run = RunDirectory(folder / name)
    run.logs.mkdir(parents=True)
    run.config_file.write_text(dump_config(config))
    prepare_run(config.data, run.data)
    return config, run


def train(job, config: RunConfig, run: RunDirectory, stop_at: int | None = None) -> str:
    """pretrain() on this rank; rank 0 is told to stop once step `stop_at` is logged."""
    import os
    import signal

    from robustbert.train.pretrain import pretrain

    def stop_when_logged():
        while not any(record["step"] >= stop_at for record in run.metrics()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    if stop_at is not None and job.rank == 0:
        threading.Thread(target=stop_when_logged, daemon=True).start()
    return pretrain(config, job, run)


def losses(run: RunDirectory) -> dict[int, tuple]:
    """What each logged step computed, without its times."""
    keys = ("loss", "lr", "grad_norm", "loss_scale", "tokens", "skipped_steps")
    return {record["step"]: tuple(record[key] for key in keys) for record in run.metrics()}
