"""How many micro-batches of real packed data carry a padding mask, and how much of them is padding."""

from dataclasses import dataclass

from benchmarks.counting.training_step import describe_batch, open_batches
from robustbert.config import RunConfig
from robustbert.data.prepare import PreparedData


@dataclass(frozen=True)
class Masks:
    """Of so many micro-batches in the order of training."""

    num_micro_batches: int
    num_with_mask: int
    padding: float  # share of all tokens
    full_rows: float  # share of all rows
    masked_counts: tuple[int, ...]  # of each micro-batch: positions that are predicted

    @property
    def num_distinct_counts(self) -> int:
        return len(set(self.masked_counts))


def count_masks(config: RunConfig, prepared: PreparedData, num_micro_batches: int = 40) -> Masks:
    """Look through the first micro-batches of the run."""
    batches, facts, step = open_batches(config, prepared), [], 0
    while len(facts) < num_micro_batches:
        facts += map(describe_batch, batches.micro_batches(step))
        step += 1
    batches.close()
    facts = facts[:num_micro_batches]
    return Masks(
        num_micro_batches=len(facts),
        num_with_mask=sum(fact.has_mask for fact in facts),
        padding=1 - sum(fact.num_real_tokens for fact in facts) / sum(fact.num_tokens for fact in facts),
        full_rows=sum(fact.num_full_rows for fact in facts) / sum(fact.num_rows for fact in facts),
        masked_counts=tuple(fact.num_masked for fact in facts),
    )


def describe_masks(masks: Masks) -> list[str]:
    """As lines."""
    return [
        f"micro-batches with a padding mask: {masks.num_with_mask} of {masks.num_micro_batches}; padding {masks.padding:.1%}, "
        f"full rows {masks.full_rows:.1%}",
        f"masked positions of a micro-batch: {min(masks.masked_counts)} to {max(masks.masked_counts)}, "
        f"{masks.num_distinct_counts} different numbers",
    ]
