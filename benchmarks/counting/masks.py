"""What micro-batches of real packed data have in common: padding, masks for it, shapes."""

from dataclasses import dataclass

from benchmarks.counting.training_step import describe_batch, kernel_of, open_batches
from robustbert.config import RunConfig
from robustbert.data.prepare import PreparedData


@dataclass(frozen=True)
class Masks:
    """Of so many micro-batches in the order of training."""

    num_micro_batches: int
    num_padded: int
    num_with_mask: int
    padding: float  # share of all tokens
    full_rows: float  # share of all rows
    masked_counts: tuple[int, ...]  # of each micro-batch: positions that are predicted
    shapes: tuple[tuple[int, int, int], ...]  # distinct ones; BatchFacts.shape


def count_masks(config: RunConfig, prepared: PreparedData, num_micro_batches: int = 40) -> Masks:
    """Look through the first micro-batches of the run."""
    batches, kernel, facts, step = open_batches(config, prepared), kernel_of(config), [], 0
    while len(facts) < num_micro_batches:
        facts += [describe_batch(batch, kernel) for batch in batches.micro_batches(step)]
        step += 1
    batches.close()
    facts = facts[:num_micro_batches]
    return Masks(
        num_micro_batches=len(facts),
        num_padded=sum(fact.has_padding for fact in facts),
        num_with_mask=sum(fact.needs_mask for fact in facts),
        padding=1 - sum(fact.num_real_tokens for fact in facts) / sum(fact.num_tokens for fact in facts),
        full_rows=sum(fact.num_full_rows for fact in facts) / sum(fact.num_rows for fact in facts),
        masked_counts=tuple(fact.num_masked for fact in facts),
        shapes=tuple(sorted({fact.shape for fact in facts})),
    )


def describe_masks(masks: Masks) -> list[str]:
    """As lines."""
    most = max(predictions for _, _, predictions in masks.shapes)
    return [
        f"micro-batches whose attention needs a mask: {masks.num_with_mask} of {masks.num_micro_batches}; with padding: "
        f"{masks.num_padded} (padding {masks.padding:.1%}, full rows {masks.full_rows:.1%})",
        f"shapes of the micro-batches: {len(masks.shapes)}; masked positions {min(masks.masked_counts)} to {max(masks.masked_counts)}, "
        f"filled up to {most}",
    ]
