"""Sharding on megatron-core: the mesh of processes, split layers, data parallelism, the pipeline."""

from robustbert.parallel.megatron_import import import_megatron

import_megatron()
