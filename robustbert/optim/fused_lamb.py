"""FusedLamb: LAMB for weights in any sharding, multi-tensor kernels throughout.

LAMB scales each tensor's Adam update by the tensor's trust ratio, |weights| / |update| (You et al., 2020, algorithm 2).
Apex's FusedLAMB takes the norms of what lies on its own process; here they are those of the whole tensor, however it is split over
tensor-parallel ranks and over the distributed optimizer's.
"""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from robustbert.slices import slices


@dataclass(frozen=True)
class WholeTensors:
    """The tensors of a pipeline stage, of which this process' weights are parts.

    number_of: a weight's tensor, by id(weight); the same numbers on all ranks of the groups.
    tensor_parallel_numbers: the tensors that are split over tensor_group; each of its ranks has all of the others.
    shard_group: the ranks of the distributed optimizer's parts; None: every rank has all of its weights.
    """

    number_of: dict[int, int]
    num_tensors: int
    device: torch.device
    tensor_parallel_numbers: tuple[int, ...] = ()
    tensor_group: dist.ProcessGroup | None = None
    shard_group: dist.ProcessGroup | None = None
    _indices_by_numbers: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict, repr=False)

    def norms(self, weights: list[torch.Tensor], *others: list[torch.Tensor]) -> torch.Tensor:
        """The norms of each weight's whole tensor, and of the whole tensors of which `others` are the same parts: (weights, 1 + others).

        All ranks of the groups call it together, also those without any weight.
        """
        numbers = self._indices(tuple(self.number_of[id(weight)] for weight in weights))
        columns = (weights, *others)
        squares = torch.zeros(self.num_tensors, len(columns), dtype=torch.float64, device=self.device)
        if weights:
            # In float64: on CPU fp32 sums of millions of squares lose digits, more of them the larger a rank's part is.
            own = [torch.stack(torch._foreach_norm(tensors, 2, torch.float64)) for tensors in columns]
            squares.index_copy_(0, numbers, torch.stack(own, 1) ** 2)
        if self.shard_group is not None:
            dist.all_reduce(squares, group=self.shard_group)
        if self.tensor_group is not None and self.tensor_parallel_numbers:
            split = self._indices(self.tensor_parallel_numbers)
            of_split = squares[split]
            dist.all_reduce(of_split, group=self.tensor_group)
            squares.index_copy_(0, split, of_split)
        return squares[numbers].sqrt()

    def _indices(self, numbers: tuple[int, ...]) -> torch.Tensor:
        """The numbers on the device; copied there once, as a copy is a wait."""
        if numbers not in self._indices_by_numbers:
            self._indices_by_numbers[numbers] = torch.tensor(numbers, dtype=torch.long, device=self.device)
        return self._indices_by_numbers[numbers]


class FusedLamb(torch.optim.Optimizer):
    """LAMB in the shape of Apex's optimizers: weights and gradients in fp32, `step` in the parameter group, two moments a weight.

    Groups that do not decay (`wd_mult` 0: biases and LayerNorm) get Adam's update as it is, as BERT's LAMB leaves them out. A step turns
    the gradients into the update that it applies.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, adam_w_mode=True, capturable=False):
        if not adam_w_mode or capturable:
            raise ValueError("LAMB's weight decay is decoupled (adam_w_mode=True), and its update is not recorded (capturable=False)")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        weights = [weight for group in self.param_groups for weight in group["params"]]
        # build_optimizer says more of them where they are parts; by themselves each is a whole tensor.
        self.whole_tensors = WholeTensors({id(w): number for number, w in enumerate(weights)}, len(weights), weights[0].device)

    @torch.no_grad()
    def step(self, closure=None):
        """Update every weight that has a gradient; all ranks of the groups call it together, also those without any weight."""
        assert closure is None, "a closure is not supported"
        scaled = []
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1  # also where this rank's group is empty
            weights = [p for p in group["params"] if p.grad is not None and p.numel()]
            if not weights:
                continue
            for part in slices(weights):  # what a slice needs besides is small
                self._turn_gradients_into_updates(group, part)
            updates = [weight.grad for weight in weights]
            if group.get("wd_mult", 1.0) == 0:
                torch._foreach_add_(weights, updates, alpha=-group["lr"])
            else:
                scaled.append((group["lr"], weights, updates))
        self._apply_with_trust_ratios(scaled)

    def _turn_gradients_into_updates(self, group: dict, weights: list[torch.Tensor]) -> None:
        """Adam's update with weight decay, before the learning rate."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["exp_avg"] = torch.zeros_like(weight)
                self.state[weight]["exp_avg_sq"] = torch.zeros_like(weight)
        gradients = [weight.grad for weight in weights]
        first, second = ([self.state[weight][name] for weight in weights] for name in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        # Both corrections of Adam's bias go into the denominators: one pass over the weights less.
        correction1, correction2 = (1 - beta ** group["step"] for beta in (beta1, beta2))
        denominators = torch._foreach_sqrt(second)
        torch._foreach_mul_(denominators, correction1 / correction2**0.5)
        torch._foreach_add_(denominators, correction1 * group["eps"])
        torch._foreach_copy_(gradients, first)
        torch._foreach_div_(gradients, denominators)
        if group["weight_decay"]:
            torch._foreach_add_(gradients, weights, alpha=group["weight_decay"])

    def _apply_with_trust_ratios(self, scaled: list[tuple[float, list[torch.Tensor], list[torch.Tensor]]]) -> None:
        weights = [weight for _, group, _ in scaled for weight in group]
        updates = [update for _, _, group in scaled for update in group]
        weight_norms, update_norms = self.whole_tensors.norms(weights, updates).unbind(1)
        if not weights:
            return
        both = (weight_norms > 0) & (update_norms > 0)
        ratios = torch.where(both, weight_norms / update_norms, 1.0).float()
        torch._foreach_mul_(updates, list(ratios.unbind()))
        for rate, of_group, its_updates in scaled:
            torch._foreach_add_(of_group, its_updates, alpha=-rate)
