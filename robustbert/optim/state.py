"""What an optimizer holds on this rank: for each parameter the range it owns, with main weights and moments, all fp32.

The one place that knows how megatron-core's optimizers keep their state.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class OwnedPart:
    """The elements [start, stop) of a flattened parameter (this rank's shard of it), as the optimizer keeps them.

    weight: fp32, flat; the main copy, in fp32 training the parameter itself. moments: exp_avg and exp_avg_sq, alike.
    """

    parameter: torch.nn.Parameter
    start: int
    stop: int
    weight: torch.Tensor
    moments: dict[str, torch.Tensor]


def owned_parts(megatron_optimizer) -> list[OwnedPart]:
    """Every parameter's part that this rank owns; moments that no step has made yet are made, as zeros.

    With the distributed optimizer the data-parallel ranks' parts are disjoint, otherwise each rank has all of everything.
    """
    return [part for optimizer in single_optimizers(megatron_optimizer) for part in _parts_of(optimizer)]


def single_optimizers(megatron_optimizer) -> list:
    """megatron-core chains several optimizers where a model needs them."""
    chained = getattr(megatron_optimizer, "chained_optimizers", [megatron_optimizer])
    return [optimizer for optimizer in chained if not optimizer.is_stub_optimizer]


def scalars(megatron_optimizer) -> dict:
    """The state that is no tensor: the optimizer's own step count, and the loss scaler's; values for JSON."""
    (optimizer, *_) = single_optimizers(megatron_optimizer)
    record = {"adam_step": max((int(g.get("step", 0)) for g in optimizer.optimizer.param_groups), default=0)}
    scaler = getattr(optimizer, "grad_scaler", None)
    if scaler is not None:
        record["loss_scaler"] = {
            key: float(value) if torch.is_tensor(value) else value for key, value in scaler.state_dict().items()
        }
    return record


def restore_scalars(megatron_optimizer, record: dict) -> None:
    """Take what `scalars` gave; a loss scaler that the record does not know starts anew."""
    for optimizer in single_optimizers(megatron_optimizer):
        for group in optimizer.optimizer.param_groups:
            group["step"] = record["adam_step"]
        scaler = getattr(optimizer, "grad_scaler", None)
        if scaler is not None and "loss_scaler" in record:
            saved = dict(record["loss_scaler"])
            saved["scale"] = torch.full_like(scaler.scale, saved["scale"])
            scaler.load_state_dict(saved)


def main_weights(optimizer) -> Iterator[tuple]:
    """(parameter, its main weight, start, stop) of every parameter of which this rank owns something."""
    if hasattr(optimizer, "model_param_group_index_map"):  # the distributed optimizer
        for parameter, (group, place) in optimizer.model_param_group_index_map.items():
            owned = optimizer._get_model_param_range_map(parameter)["param"]
            yield parameter, optimizer.optimizer.param_groups[group]["params"][place], owned.start, owned.end
    elif hasattr(optimizer, "fp32_from_float16_groups"):  # fp16 and bf16 with whole main weights
        halves = zip(optimizer.float16_groups, optimizer.fp32_from_float16_groups)
        pairs = [pair for group in halves for pair in zip(*group)]
        pairs += [(parameter, parameter) for group in optimizer.fp32_from_fp32_groups for parameter in group]
        yield from ((parameter, main, 0, main.numel()) for parameter, main in pairs)
    else:
        for group in optimizer.optimizer.param_groups:
            yield from ((parameter, parameter, 0, parameter.numel()) for parameter in group["params"])


def _parts_of(optimizer) -> Iterator[OwnedPart]:
    for parameter, main, start, stop in main_weights(optimizer):
        state = optimizer.optimizer.state[main]
        for key in MOMENTS:
            if key not in state:
                state[key] = torch.zeros_like(main)
        moments = {key: state[key].view(-1) for key in MOMENTS}
        yield OwnedPart(parameter, start, stop, main.detach().view(-1), moments)
