"""The training's side of it: a process that takes a checkpoint up refuses what cannot continue from it, and keeps what changed.

`launcher resume` has asked before; this is for configurations that were changed in another way, and for older checkpoints that
are taken because the newest is damaged.
"""

from robustbert.checkpoint.manifest import CheckpointError, Manifest
from robustbert.config import RunConfig
from robustbert.resume.changes import Comparison, Trained, compare
from robustbert.run_directory import RunDirectory


class Continuation:
    """Asked by the CheckpointManager about the checkpoint that it takes; the same answer on every process."""

    def __init__(self, config: RunConfig, contents: dict[str, list[str]], tokenizer_sha256: str):
        """config: with the tokenizer's sizes; contents: PreparedData.contents."""
        self._config, self._contents, self._tokenizer_sha256 = config, contents, tokenizer_sha256
        self._comparison, self._step = Comparison(), 0

    def check(self, manifest: Manifest) -> None:
        """CheckpointError, in one line, where the configuration changes what cannot be changed within a run."""
        trained = Trained.of(manifest)
        self._comparison = compare(trained, self._config, self._contents, self._tokenizer_sha256)
        self._step = trained.step
        if refusals := self._comparison.refusals:
            texts = "; ".join(refusal.text for refusal in refusals)
            raise CheckpointError(f"{texts}; set it back in config.yaml, or begin a new run (train.start_from takes the weights where they fit)")

    @property
    def measures(self) -> bool:
        """Whether held-out perplexities before and after cannot be compared."""
        return self._comparison.measures

    def record(self, run: RunDirectory) -> None:
        """The event config_changed, unless nothing changed or it was recorded before."""
        record_changes(run, self._step, [change.text for change in self._comparison.changes])


def record_changes(run: RunDirectory, step: int, changes: list[str]) -> None:
    """Add the event config_changed; once for the same changes at the same step, however often the run is restarted from there."""
    newest = next((event for event in reversed(run.events()) if event["event"] == "config_changed"), {})
    if changes and (newest.get("step"), newest.get("changes")) != (step, changes):
        run.append_event("config_changed", step=step, changes=changes)
