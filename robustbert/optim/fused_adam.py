"""FusedAdam: Adam with decoupled weight decay in the shape of Apex's class, over torch's fused kernel.

Of that shape is one `step` a parameter group, and only `exp_avg` and `exp_avg_sq` a parameter.
"""

import torch


class FusedAdam(torch.optim.Optimizer):
    """Adam (section 2.4), one fused call a parameter group; parameters and gradients in fp32, on CPU or CUDA."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, adam_w_mode=True, capturable=False):
        if not adam_w_mode or capturable:
            raise ValueError("only decoupled weight decay is built (adam_w_mode=True), and no recording of the update (capturable=False)")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self._step_on_device: torch.Tensor | None = None

    @torch.no_grad()
    def step(self, closure=None, grad_divisor: torch.Tensor | None = None, found_inf: torch.Tensor | None = None):
        """Update every parameter that has a gradient, without waiting for the device.

        grad_divisor: gradients are divided by it first, in place. found_inf: where it is 1, no parameter and no moment changes, and
        take_back_step follows as soon as that is known. Both: one element, fp32, on the parameters' device.
        """
        assert closure is None, "a closure is not supported"
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1  # also where this rank's group is empty
            params = [p for p in group["params"] if p.grad is not None and p.numel()]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
                    self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
            if self._step_on_device is None:
                self._step_on_device = torch.empty((), device=params[0].device)
            self._step_on_device.fill_(group["step"])  # a tensor made of the number would be a copy to wait for
            beta1, beta2 = group["betas"]
            torch._fused_adamw_(
                params,
                [p.grad for p in params],
                [self.state[p]["exp_avg"] for p in params],
                [self.state[p]["exp_avg_sq"] for p in params],
                [],
                [self._step_on_device] * len(params),
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=grad_divisor,
                found_inf=found_inf,
            )

    def take_back_step(self) -> None:
        """Uncount the last step, which found_inf turned into nothing."""
        for group in self.param_groups:
            group["step"] -= 1
