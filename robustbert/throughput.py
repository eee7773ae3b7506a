"""Floating-point operations of a step, and how near the hardware's peak that comes (MFU).

Counted are the matrix products that the model needs, two operations a multiply-add, forward and twice that backward;
what recomputation repeats does not count, and the head counts at masked positions only.
"""

from robustbert.config import ModelConfig
from robustbert.hardware import load_profile, profile_names


def forward_flops(config: ModelConfig, num_tokens: float, num_masked_tokens: float, sequence_length: float) -> float:
    """Operations of one forward pass over the tokens, each attending to `sequence_length` positions."""
    hidden, ffn = config.hidden_size, config.ffn_hidden_size
    per_token = config.num_layers * (8 * hidden**2 + 4 * hidden * ffn + 4 * sequence_length * hidden)
    per_masked_token = 2 * hidden**2 + 2 * hidden * config.vocab_size
    return num_tokens * per_token + num_masked_tokens * per_masked_token


def training_flops(config: ModelConfig, num_tokens: float, num_masked_tokens: float, sequence_length: float) -> float:
    """Operations of forward and backward pass."""
    return 3 * forward_flops(config, num_tokens, num_masked_tokens, sequence_length)


def peak_flops(device_name: str, precision: str) -> float | None:
    """The peak of one GPU by its name, operations a second; None where it is not known (every CPU)."""
    profiles = map(load_profile, profile_names())
    return next((p.peak_flops.of(precision) for p in profiles if p.device and p.device in device_name), None)
