"""Micro-batches through the pipeline: the only caller of megatron-core's schedules (1F1B, or none on one stage).

B batch, S sequence, T = B * S tokens, M masked positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch
import torch.distributed as dist

from robustbert.parallel.mesh import Mesh
from robustbert.parallel.micro_batch_graph import MicroBatchGraph
from robustbert.parallel.transfer import DeviceBatch

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


class StepSums:
    """A step's sums over the whole job, on their way to the host: asked for early, read when the host has waited anyway."""

    def __init__(self, losses: torch.Tensor, micro_batches: Sequence, mesh: Mesh, flag: bool = False):
        """losses: what run_micro_batches returned; flag: of this process. A collective call."""
        counts = [*_counts(micro_batches), sum(batch.num_real_tokens for batch in micro_batches)]
        # Every pipeline has one process that speaks for it.
        speaks = mesh.is_last_stage and mesh.tp_rank == 0
        numbers = torch.tensor([*(counts if speaks else [0.0] * len(counts)), float(flag)], dtype=torch.float64)
        self._totals = mesh.start_job_sum(losses if speaks else torch.zeros_like(losses), numbers)

    def read(self) -> tuple[LossSum, int, bool]:
        """The losses, the number of real tokens, and whether any process had set its flag."""
        loss, pair_loss, num_right, num_masked, num_pairs, num_tokens, flags = self._totals()
        return LossSum(loss, num_masked, pair_loss, num_pairs, num_right), int(num_tokens), flags > 0


def forward_backward(
    model,
    micro_batches: Sequence,
    mesh: Mesh,
    before_micro_batch: Callable[[int], None] | None = None,
    forward_only: bool = False,
) -> LossSum:
    """run_micro_batches, and then this process' own sums: waits for the device."""
    losses = run_micro_batches(model, micro_batches, mesh, before_micro_batch, forward_only)
    if not mesh.is_last_stage:
        return LossSum()
    loss, pair_loss, num_right = losses.tolist()
    num_masked, num_pairs = _counts(micro_batches)
    return LossSum(loss, num_masked, pair_loss, num_pairs, num_right)


def run_micro_batches(
    model,
    micro_batches: Sequence,
    mesh: Mesh,
    before_micro_batch: Callable[[int], None] | None = None,
    forward_only: bool = False,
    graph: MicroBatchGraph | None = None,
) -> torch.Tensor:
    """Run the micro-batches through the model's stages; afterwards the gradients are reduced.

    micro_batches: this data-parallel rank's data.batches.Batch, the same on all its tensor and pipeline ranks.
    before_micro_batch: called with the number of the micro-batch before its forward pass (dropout's seeds).
    graph: of build_graph; replays micro-batches instead of starting their kernels one by one.
    Divided by the model's gradient_divisor (the update does it, or normalise_gradients) the gradients are those of the mean loss over
    the masked tokens of the whole job, and with pairs of the mean next-sentence loss over all its pairs beside it: neither the
    layout nor how many masked tokens a micro-batch happens to have counts.
    Returns float64 (3,) on the device, zeros but on the last stage: the loss over masked tokens, the next-sentence loss, and how many
    pairs were told rightly, summed. Does not wait for the device.
    """
    if graph is not None:
        return _replay_micro_batches(model, micro_batches, before_micro_batch, graph)
    from megatron.core.pipeline_parallel import get_forward_backward_func

    pair_weight = 0.0 if forward_only else _pair_weight(micro_batches, mesh)

    def forward_step(numbered_batches, model):
        number, batch = next(numbered_batches)
        if before_micro_batch is not None:
            before_micro_batch(number)
        output = _forward(model, batch, mesh.is_last_stage)
        return output, lambda losses: _sum_losses(losses, batch, pair_weight)

    reports = get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=enumerate(mesh.transfer(micro_batches)),
        model=model,
        num_microbatches=len(micro_batches),
        # The stages send each other (T, 1, H): to the schedule that is one long sequence.
        seq_length=micro_batches[0].tokens_BS.numel(),
        micro_batch_size=1,
        forward_only=forward_only,
    )
    if not reports:
        return torch.zeros(3, dtype=torch.float64, device=mesh.device.torch_device)
    return torch.stack(reports).double().sum(0)


def build_graph(model, mesh: Mesh, record: Callable | None = None) -> MicroBatchGraph:
    """For a whole model on each process, and formats without pairs (their loss' weight changes from step to step)."""

    def compute(batch: DeviceBatch) -> torch.Tensor:
        with model.no_sync():
            loss, _, report = _sum_losses(_forward(model, batch, is_last_stage=True), batch, 0.0)
            loss.backward()
        return report

    return MicroBatchGraph(compute, mesh.device.torch_device, record)


def _replay_micro_batches(model, micro_batches: Sequence, before_micro_batch, graph: MicroBatchGraph) -> torch.Tensor:
    model.complete_weights()  # a replay has no hooks that would wait for them
    reports = []
    for number, batch in enumerate(micro_batches):
        if before_micro_batch is not None:
            before_micro_batch(number)
        reports.append(graph(batch))
    total = torch.stack(reports).double().sum(0)
    num_masked, _ = _counts(micro_batches)
    if model.ddp_config.overlap_grad_reduce:
        model.start_grad_sync()
    model.config.finalize_model_grads_func([model], torch.tensor(num_masked, dtype=torch.int).to(total.device, non_blocking=True))
    return total


def _forward(model, batch: DeviceBatch, is_last_stage: bool):
    targets_M = batch.targets_M if is_last_stage else None
    return model(batch.tokens_BS, batch.lengths_B, batch.masked_positions_M, batch.token_types_BS, targets_M)


def _sum_losses(losses, batch: DeviceBatch, pair_weight: float | torch.Tensor):
    """(loss to go back, number of masked tokens, report) of a micro-batch.

    losses: the masked language model's sum; with pairs also next_sentence_B2, whose first column is for a sentence that follows.
    is_next_B: 1 where it does, 0 where it does not, -1 where there is no pair (section 4.2).
    """
    if batch.is_next_B is None:
        report = torch.nn.functional.pad(losses.detach()[None], (0, 2))
        return losses, batch.num_masked_tokens, report
    loss, next_sentence_B2 = losses
    is_pair_B = batch.is_next_B >= 0
    classes_B = torch.where(is_pair_B, 1 - batch.is_next_B.long(), _NO_PAIR)
    pair_loss = torch.nn.functional.cross_entropy(
        next_sentence_B2.float(), classes_B, ignore_index=_NO_PAIR, reduction="sum"
    )
    num_right = (next_sentence_B2.argmax(1) == classes_B).sum()
    report = torch.stack([loss.detach(), pair_loss.detach(), num_right.float()])
    return loss + pair_weight * pair_loss, batch.num_masked_tokens, report


def _counts(micro_batches: Sequence) -> tuple[int, int]:
    """Masked tokens and pairs, from what the host knows."""
    num_masked = sum(len(batch.targets_M) for batch in micro_batches)
    return num_masked, sum(int((batch.is_next_B >= 0).sum()) for batch in micro_batches if batch.is_next_B is not None)


def _pair_weight(micro_batches: Sequence, mesh: Mesh) -> float | torch.Tensor:
    """What makes a sum over pairs, divided by the job's masked tokens, the mean over the job's pairs."""
    if micro_batches[0].is_next_B is None or not mesh.is_last_stage:
        return 0.0
    counts = _counts(micro_batches)
    if mesh.dp_size == 1:
        return counts[0] / counts[1]
    counts = mesh.to_device(torch.tensor(counts, dtype=torch.float64))
    dist.all_reduce(counts, group=mesh.groups.dp)
    return (counts[0] / counts[1]).float()
