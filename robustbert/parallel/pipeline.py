"""Micro-batches through the pipeline: the only caller of megatron-core's schedules (1F1B, or none on one stage).

B batch, S sequence, M masked positions, V padded vocabulary, /tp = split over tensor-parallel ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch

from robustbert.parallel.mesh import Mesh

_NO_PAIR = -100  # the class of a filler row


@dataclass(frozen=True)
class LossSum:
    """Losses (nats) and counts, summed over some micro-batches; zeros but on the last stage.

    loss: over masked tokens; next_sentence_loss: over pairs, of which num_right were told rightly.
    """

    loss: float = 0.0
    num_masked_tokens: float = 0
    next_sentence_loss: float = 0.0
    num_pairs: float = 0
    num_right: float = 0

    def over_data_parallel(self, mesh: Mesh) -> "LossSum":
        """The sums of all data-parallel ranks, on every process. A collective call."""
        return LossSum(*mesh.sum_over_data_parallel(list(astuple(self))))

    @property
    def mean(self) -> float:
        """Nats a masked token."""
        return self.loss / self.num_masked_tokens


def forward_backward(
    model,
    micro_batches: Sequence,
    mesh: Mesh,
    sequence_length: int,
    before_micro_batch: Callable[[int], None] | None = None,
    forward_only: bool = False,
) -> LossSum:
    """Run the micro-batches through the model's stages; afterwards the gradients are reduced and normalised.

    micro_batches: this data-parallel rank's data.batches.Batch, the same on all its tensor and pipeline ranks.
    sequence_length: their width, where the model was not built for variable lengths.
    before_micro_batch: called with the number of the micro-batch before its forward pass (dropout's seeds).
    Gradients are those of the mean loss over the masked tokens of the whole job, and with pairs of the mean next-sentence
    loss over all its pairs beside it: neither the layout nor how many masked tokens a micro-batch happens to have counts.
    """
    reports = run_micro_batches(model, micro_batches, mesh, sequence_length, before_micro_batch, forward_only)
    return LossSum(*torch.stack(reports).double().sum(0).tolist()) if reports else LossSum()


def run_micro_batches(
    model,
    micro_batches: Sequence,
    mesh: Mesh,
    sequence_length: int,
    before_micro_batch: Callable[[int], None] | None = None,
    forward_only: bool = False,
) -> list[torch.Tensor]:
    """As forward_backward; returns each micro-batch's report as the tensor of LossSum's numbers, none but on the last stage."""
    from megatron.core.pipeline_parallel import get_forward_backward_func

    device = mesh.device.torch_device
    pair_weight = 0.0 if forward_only else _pair_weight(micro_batches, mesh)

    def forward_step(numbered_batches, model):
        number, batch = next(numbered_batches)
        if before_micro_batch is not None:
            before_micro_batch(number)
        batch = batch.to(device)
        output = model(batch.tokens_BS, batch.attended_BS, batch.masked_positions_M, batch.token_types_BS)
        if batch.is_next_B is None:
            return output, lambda logits_MV: sum_loss(logits_MV, batch.targets_M)
        return output, lambda logits: sum_losses(logits, batch.targets_M, batch.is_next_B, pair_weight)

    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iter(enumerate(micro_batches)),
        model=model,
        num_microbatches=len(micro_batches),
        seq_length=sequence_length,
        micro_batch_size=micro_batches[0].tokens_BS.shape[0],
        forward_only=forward_only,
    )


def sum_loss(logits_MV: torch.Tensor, targets_M: torch.Tensor):
    """The negative log-likelihood summed over masked tokens: (loss to go back, their number, both for the log).

    logits_MV: V/tp. Computed in fp32 whatever the logits' precision.
    """
    from megatron.core.tensor_parallel import vocab_parallel_cross_entropy

    if len(targets_M) == 0:
        loss = logits_MV.float().sum()  # of nothing: 0, but with gradients to send back
    else:
        loss = vocab_parallel_cross_entropy(logits_MV, targets_M).sum()
    count = torch.tensor(len(targets_M), dtype=torch.int, device=loss.device)
    return loss, count, torch.stack([loss.detach(), count.float()])


def sum_losses(logits, targets_M: torch.Tensor, is_next_B: torch.Tensor, pair_weight: float):
    """sum_loss, and pair_weight times the next-sentence loss summed over the pairs (section 4.2).

    logits: (logits_MV/tp, next_sentence_B2), the latter's first column for a sentence that follows.
    is_next_B: int64, 1 where it does, 0 where it does not, -1 where there is no pair. The log has five numbers, LossSum's.
    """
    logits_MV, next_sentence_B2 = logits
    loss, count, report = sum_loss(logits_MV, targets_M)
    is_pair_B = is_next_B >= 0
    classes_B = torch.where(is_pair_B, 1 - is_next_B, _NO_PAIR)
    pair_loss = torch.nn.functional.cross_entropy(
        next_sentence_B2.float(), classes_B, ignore_index=_NO_PAIR, reduction="sum"
    )
    num_right = (next_sentence_B2.argmax(1) == classes_B).sum()
    pairs = torch.stack([pair_loss.detach(), is_pair_B.sum().float(), num_right.float()])
    return loss + pair_weight * pair_loss, count, torch.cat([report, pairs])


def _pair_weight(micro_batches: Sequence, mesh: Mesh) -> float:
    """What makes a sum over pairs, divided by the job's masked tokens, the mean over the job's pairs."""
    if micro_batches[0].is_next_B is None:
        return 0.0
    num_masked = sum(len(batch.targets_M) for batch in micro_batches)
    num_pairs = sum(int((batch.is_next_B >= 0).sum()) for batch in micro_batches)
    num_masked, num_pairs = mesh.sum_over_data_parallel([num_masked, num_pairs])
    return num_masked / num_pairs
