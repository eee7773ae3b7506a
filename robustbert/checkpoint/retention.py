"""Which checkpoints may go: all but the newest `keep_last` and those at a multiple of `keep_every`."""

from robustbert.config import CheckpointConfig


def removable_steps(steps: list[int], config: CheckpointConfig) -> list[int]:
    """Of the steps that have a checkpoint, those that are not to be kept, oldest first."""
    kept = set(sorted(steps)[-config.keep_last :])
    if config.keep_every:
        kept |= {step for step in steps if step % config.keep_every == 0}
    return [step for step in sorted(steps) if step not in kept]
