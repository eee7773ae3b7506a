"""Sharding on megatron-core: the mesh of processes, split layers, data parallelism, the pipeline.

megatron-core hands some fused activations to torch.compile while it is imported, which loads the whole compiler (a third of a
process' start). They are not used here, so its first import takes place without.
"""

import torch


def _import_megatron_without_compiler() -> None:
    compile_function = torch.compile
    torch.compile = lambda function=None, **_: function if function is not None else (lambda decorated: decorated)
    try:
        import megatron.core  # noqa: F401
    finally:
        torch.compile = compile_function


_import_megatron_without_compiler()
