"""What TensorBoard shows of a run: the lines of metrics.jsonl and the evaluations as scalars in RUN/tensorboard."""

import math
from collections.abc import Callable

from robustbert.json_lines import say_error
from robustbert.run_directory import RunDirectory

_FLUSH_S = 30
# Key of metrics.jsonl -> tag; the part before the slash is a group of TensorBoard's page.
_TAGS = {
    "loss": "loss/train",
    "perplexity": "perplexity/train",
    "next_sentence_loss": "loss/next_sentence",
    "next_sentence_accuracy": "accuracy/next_sentence",
    "lr": "optimizer/lr",
    "grad_norm": "optimizer/grad_norm",
    "loss_scale": "optimizer/loss_scale",
    "skipped_steps": "optimizer/skipped_steps",
    "tokens": "progress/tokens",
    "tokens_per_s": "speed/tokens_per_s",
    "tflops": "speed/tflops",
    "mfu": "speed/mfu",
    "step_time_s": "step/seconds",
    "data_wait_s": "step/data_wait_s",
    "forward_backward_s": "step/forward_backward_s",
    "collectives_s": "step/collectives_s",
    "optimizer_s": "step/optimizer_s",
    "other_s": "step/other_s",
}


class TensorBoard:
    """Writes event files from the first line on; a run that was thrown back hides what it had written of later steps."""

    def __init__(self, run: RunDirectory):
        self._folder = run.path / "tensorboard"
        self._writer = None
        self._is_broken = False

    def show(self, line: dict) -> None:
        """A line of metrics.jsonl."""
        for key, tag in _TAGS.items():
            if line.get(key) is not None:
                self._add(tag, line[key], line["step"], line["time"])

    def show_evaluation(self, step: int, perplexity: float, time_s: float) -> None:
        """An evaluation on held-out text."""
        self._add("perplexity/held_out", perplexity, step, time_s)
        self._add("loss/held_out", math.log(perplexity), step, time_s)

    def close(self) -> None:
        self._write(lambda: self._writer and self._writer.close())

    def _add(self, tag: str, value: float, step: int, time_s: float) -> None:
        self._write(lambda: self._open(step).add_scalar(tag, value, step, walltime=time_s))

    def _open(self, step: int):
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # seconds of imports, for whoever asks for it

            self._writer = SummaryWriter(str(self._folder), purge_step=step, flush_secs=_FLUSH_S)
        return self._writer

    def _write(self, act: Callable[[], object]) -> None:
        """A disk that is full ends the event files, not the run."""
        if self._is_broken:
            return
        try:
            act()
        except OSError as error:
            self._is_broken = True
            say_error(f"{self._folder} cannot be written ({error.strerror}); no more is written for TensorBoard")
