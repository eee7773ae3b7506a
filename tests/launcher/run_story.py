"""The record of a run as training and the supervisor would write it, for tests of what reads it."""

import json
import math
from pathlib import Path

from robustbert.config import dump_config, load_config
from robustbert.run_directory import RunDirectory

START = 1_700_000_000.0
STEP_S = 0.5
CONFIG = """\
model: {num_layers: 2, hidden_size: 16, ffn_hidden_size: 32, num_attention_heads: 2, max_sequence_length: 32}
data: {tokenizer: {train: {vocab_size: 300}}, train: [{text: text.txt}]}
train: {steps: 1000, global_batch_size: 4, micro_batch_size: 2, log_interval: 1}
optim: {warmup_steps: 2}
checkpoint: {interval: 50}
"""


class RunStory:
    """A run below `folder`; each method writes lines and moves the clock on."""

    def __init__(self, folder: Path, name: str, *overrides: str):
        self.run = RunDirectory(folder / name)
        self.run.path.mkdir(parents=True)
        (folder / "story.yaml").write_text(CONFIG)
        self.run.config_file.write_text(dump_config(load_config(folder / "story.yaml", [f"run.name={name}", *overrides])))
        self.now = START
        self.event("submitted", folder=str(folder), command=["launcher", "submit", "story.yaml"])

    def event(self, name: str, after_s: float = 0.0, **fields) -> None:
        self.now += after_s
        self._write(self.run.events_file, [{"time": self.now, "event": name, **fields}])

    def start(self, step: int = 0) -> None:
        self.event("preparing")
        self.event("prepared", 5.0, seconds=5.0)
        self.event("started", 3.0, step=step, num_processes=2, layout={"tensor": 1}, heldout_perplexity_before=300.0)

    def train(self, first: int, last: int, **changed) -> None:
        """Log the steps first..last; `changed`: other values of a line's keys."""
        lines = []
        for step in range(first, last + 1):
            self.now += STEP_S
            loss = 2.0 + 4.0 * math.exp(-step / 200) + 0.1 * math.sin(step)
            lines.append(
                {
                    "time": self.now, "step": step, "loss": loss, "perplexity": math.exp(loss), "lr": 1e-4, "grad_norm": 1.0 + 1 / step,
                    "loss_scale": 1.0, "skipped_steps": 0, "tokens": 128 * step, "tokens_per_s": 256.0, "step_time_s": STEP_S,
                    "data_wait_s": 0.01, "forward_backward_s": 0.3, "collectives_s": 0.1, "optimizer_s": 0.05, "other_s": 0.04,
                    "tflops": 0.1, "mfu": None, **changed,
                }
            )  # fmt: skip
        self._write(self.run.metrics_file, lines)

    def save(self, step: int) -> None:
        folder = self.run.checkpoints / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / "COMMITTED").touch()
        self.event("checkpoint_saved", step=step, path=str(folder), seconds=0.8, stalled_s=0.02, bytes=12_500_000)

    @staticmethod
    def _write(path: Path, lines: list[dict]) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
