"""Micro-batches through the pipeline: the only caller of megatron-core's schedules (1F1B, or none on one stage).

B batch, S sequence, M masked positions, V padded vocabulary, /tp = split over tensor-parallel ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from robustbert.parallel.mesh import Mesh


@dataclass(frozen=True)
class LossSum:
    """What a pass over some micro-batches gave on this data-parallel rank; zeros but on the last stage."""

    loss: float  # nats, summed over masked tokens
    num_masked_tokens: int


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
    before_micro_batch: called with the number of the micro-batch before its forward pass (dropout's seeds).
    Gradients are divided by the masked tokens of the whole job, so neither the layout nor how many masked tokens
    a micro-batch happens to have changes the result.
    """
    from megatron.core.pipeline_parallel import get_forward_backward_func

    device = mesh.device.torch_device

    def forward_step(numbered_batches, model):
        number, batch = next(numbered_batches)
        if before_micro_batch is not None:
            before_micro_batch(number)
        batch = batch.to(device)
        output = model(batch.tokens_BS, batch.attended_BS, batch.masked_positions_M)
        return output, lambda logits_MV: sum_loss(logits_MV, batch.targets_M)

    reports = get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iter(enumerate(micro_batches)),
        model=model,
        num_microbatches=len(micro_batches),
        seq_length=sequence_length,
        micro_batch_size=micro_batches[0].tokens_BS.shape[0],
        forward_only=forward_only,
    )
    if not reports:
        return LossSum(0.0, 0)
    total = torch.stack(reports).double().sum(0).tolist()
    return LossSum(total[0], round(total[1]))


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
