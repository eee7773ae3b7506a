"""Tests that need CUDA: `pytest -m gpu`. Without it each is skipped and says why."""

import pytest
import torch


@pytest.fixture(autouse=True)
def needs_cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU: torch.cuda.is_available() is false here")
