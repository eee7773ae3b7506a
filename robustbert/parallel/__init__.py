"""Tensor, pipeline and data parallelism over megatron-core."""
