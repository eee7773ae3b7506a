"""Settings of one finetuning: the paper's (Table 10) as defaults, checked. Imports no torch."""

from dataclasses import dataclass, fields

PRECISIONS = ("fp32", "bf16", "fp16")


class FinetuneError(ValueError):
    """The command cannot be carried out; the message is one line and names the way out."""


@dataclass(frozen=True)
class Settings:
    """How a model is finetuned; a task's own defaults are a copy with other values. Table 10's column GLUE stands here."""

    lr: float = 2e-5
    batch_size: int = 32  # items a step: examples, of SQuAD windows
    epochs: int = 10
    weight_decay: float = 0.1  # biases and LayerNorm weights do not decay, as in BERT
    warmup_ratio: float = 0.06  # of all steps; then linear decay to 0
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    clip_grad: float = 0.0  # 0: no clipping
    dropout: float = 0.1
    attention_dropout: float = 0.1
    max_length: int = 512  # tokens a sequence, special ones included
    precision: str = "fp32"
    patience: int = 0  # stop after so many epochs without a better development score; 0: train all, keep the best epoch
    seed: int = 1
    train_examples: int = 0  # a sample of the training set; 0: all of it
    micro_batch_size: int = 8  # items whose gradients are taken at once, whatever the number of processes
    save_steps: int = 500  # steps between two states to resume from; there is one after every epoch as well
    untrained: bool = False  # random weights in the model's architecture: what pretraining is measured against

    def __post_init__(self):
        for name in ("lr", "batch_size", "epochs", "eps", "max_length", "micro_batch_size", "save_steps"):
            _require(getattr(self, name) > 0, name, "must be above 0", getattr(self, name))
        for name in ("weight_decay", "clip_grad", "patience", "seed", "train_examples"):
            _require(getattr(self, name) >= 0, name, "must not be negative", getattr(self, name))
        for name in ("warmup_ratio", "beta1", "beta2", "dropout", "attention_dropout"):
            _require(0 <= getattr(self, name) < 1, name, "must be at least 0 and below 1", getattr(self, name))
        _require(self.precision in PRECISIONS, "precision", f"must be one of {', '.join(PRECISIONS)}", self.precision)


def option_name(field_name: str) -> str:
    """The command line's name of a setting."""
    return "--" + field_name.replace("_", "-")


def setting_types() -> dict[str, type]:
    """The type of every setting by its name."""
    return {field.name: field.type for field in fields(Settings)}


def _require(condition: bool, name: str, rule: str, value) -> None:
    if not condition:
        raise FinetuneError(f"{option_name(name)} {rule}, it is {value}")
