"""A class of the interface and the rules of Apex's FusedLAMB, in plain torch: what stands for it where there is no CUDA."""

import torch


class ApexLikeLamb(torch.optim.Optimizer):
    """Clips by max_grad_norm; a group has trust ratios if it decays, or with use_nvlamb."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01, adam_w_mode=True, max_grad_norm=1.0, use_nvlamb=False):
        assert adam_w_mode
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, max_grad_norm=max_grad_norm))
        self.use_nvlamb = use_nvlamb

    @torch.no_grad()
    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm, bound = float(torch.stack([g.norm() for g in gradients]).norm()), self.defaults["max_grad_norm"]
        shrink = norm / bound if norm > bound else 1.0
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                self._update(group, p, p.grad / shrink)

    def _update(self, group, p, gradient):
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state.update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        first = state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).add_(gradient**2, alpha=1 - beta2)
        unbiased = first / (1 - beta1 ** group["step"]), second / (1 - beta2 ** group["step"])
        update = unbiased[0] / (unbiased[1].sqrt() + group["eps"]) + group["weight_decay"] * p
        rate = group["lr"]
        if (self.use_nvlamb or group["weight_decay"] != 0) and p.norm() != 0 and update.norm() != 0:
            rate = rate * float(p.norm() / update.norm())
        p.sub_(rate * update)
