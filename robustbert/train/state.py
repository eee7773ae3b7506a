"""TrainState: what training counts. All of it that a resumed run needs; the rest is a function of the step."""

from dataclasses import asdict, dataclass


@dataclass
class TrainState:
    """Counted over the whole job since step 0."""

    step: int = 0  # completed updates, skipped ones included: the data's position and the learning rate follow from it
    tokens: int = 0  # real tokens, padding not counted
    skipped_steps: int = 0  # fp16 overflows
    heldout_perplexity_before: float | None = None  # of the initial weights

    def advance(self, tokens: int, applied: bool) -> None:
        """One step over `tokens` real tokens is done."""
        self.step += 1
        self.tokens += tokens
        self.skipped_steps += not applied

    def to_dict(self) -> dict:
        return asdict(self)

    def restore(self, saved: dict) -> None:
        """Take a checkpoint's counts."""
        for key in asdict(self):
            setattr(self, key, saved[key])
