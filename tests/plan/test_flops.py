"""The operations that the metrics and the plan count are those that torch counts in the real model."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.device import Device
from robustbert.job import Job
from robustbert.model.attention import SDPA
from robustbert.model.build import build_model
from robustbert.parallel.mesh import open_mesh
from robustbert.throughput import forward_flops, training_flops


@pytest.mark.parametrize(("preset", "length"), [("roberta-base", 512), ("roberta-base", 128), ("roberta-large", 512)])
def test_flops_equal_torchs_counter(preset, length):
    rows, config = 2, ModelConfig(preset=preset, vocab_size=50265, dropout=0.0, attention_dropout=0.0)
    num_masked = int(rows * length * 0.15)
    device = Device.detect(Job())
    with device.joined(Job(), 60), open_mesh(device, ParallelConfig()) as mesh, FakeTensorMode(allow_non_fake_inputs=True):
        model = build_model(config, ParallelConfig(), mesh, attention_kernel=SDPA)
        tokens_BS, positions_M = torch.zeros(rows, length, dtype=torch.long), torch.zeros(num_masked, dtype=torch.long)
        # The attention kernels of a CPU are not known to the counter; as plain products they are.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            logits_MV = model(tokens_BS, None, positions_M)
            forward = counter.get_total_flops()
            logits_MV.sum().backward()
    assert forward == pytest.approx(forward_flops(config, rows * length, num_masked, length), rel=0.01)
    assert counter.get_total_flops() == pytest.approx(training_flops(config, rows * length, num_masked, length), rel=0.01)
