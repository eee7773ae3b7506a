"""TrainState: what training counts. All of it that a resumed run needs; the rest is a function of the step."""

from dataclasses import asdict, dataclass, field

from robustbert.checkpoint.manifest import CheckpointError


@dataclass
class TrainState:
    """Counted over the whole job since step 0."""

    step: int = 0  # completed updates, overflowed ones included; the learning rate follows from it
    data_step: int = 0  # the step of the data's order that comes next: `step`, and what was skipped after trouble
    tokens: int = 0  # real tokens, padding not counted
    skipped_steps: int = 0  # fp16 overflows
    recent_grad_norms: list[float] = field(default_factory=list)  # of applied updates, oldest first: what a spike is judged by
    heldout_perplexity_before: float | None = None  # of the initial weights
    tokenizer_sha256: str = ""  # what the ids mean that the model has learned
    data: dict = field(default_factory=dict)  # PreparedData.contents: what the samples' numbers mean
    # Step `first_data_step` of the data's order begins with sample `first_sample`, and so many a step from there on.
    samples_per_step: int = 0
    first_data_step: int = 0
    first_sample: int = 0

    def advance(self, tokens: int, applied: bool) -> None:
        """One step over `tokens` real tokens is done."""
        self.step += 1
        self.data_step += 1
        self.tokens += tokens
        self.skipped_steps += not applied

    def to_dict(self) -> dict:
        return asdict(self)

    def restore(self, saved: dict) -> None:
        """Take a checkpoint's counts; the order of the data continues with its next sample, whatever the size of a step is now.

        CheckpointError where it was trained with another tokenizer or on other data than this state's.
        """
        if saved["tokenizer_sha256"] != self.tokenizer_sha256:
            raise CheckpointError(
                f"the checkpoint of step {saved['step']} was trained with another tokenizer (sha256 "
                f"{saved['tokenizer_sha256'][:12]}) than the run's data has now ({self.tokenizer_sha256[:12]}); "
                "bring the run's data/tokenizer back, or start a new run"
            )
        if self.data and (saved.get("data") or self.data)["train"] != self.data["train"]:
            raise CheckpointError(
                f"the checkpoint of step {saved['step']} was trained on other indexed data than data.train holds now; bring those back, or "
                "begin a new run with its weights: train.start_from"
            )
        own, now = (self.tokenizer_sha256, self.data), self.samples_per_step
        for key in asdict(self):
            setattr(self, key, saved.get(key, getattr(self, key)))
        self.tokenizer_sha256, self.data = own
        if now and self.samples_per_step != now:
            self.first_sample += (self.data_step - self.first_data_step) * self.samples_per_step
            self.first_data_step, self.samples_per_step = self.data_step, now

    def start_over(self) -> None:
        """As before the first step."""
        kept = {key: getattr(self, key) for key in ("heldout_perplexity_before", "tokenizer_sha256", "data", "samples_per_step")}
        self.__init__(**kept)
