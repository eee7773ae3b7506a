"""The learning rate: linear warm-up, then linear decay to zero (section 2.4, Table 9). A pure function of the step."""

from robustbert.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """The rate of the update after `step` completed steps; the peak is reached at the end of the warm-up."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * max(0, total_steps - step) / (total_steps - config.warmup_steps)


def apply_learning_rate(optimizer, config: OptimConfig, step: int, total_steps: int) -> float:
    """Set the step's rate and the weight decay in every parameter group; returns the rate.

    Biases and LayerNorm weights do not decay (BERT's rule; megatron-core marks their groups with wd_mult 0).
    """
    rate = learning_rate(config, step, total_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = config.weight_decay * group["wd_mult"]
    return rate
