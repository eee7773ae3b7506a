"""Memory that a training process frees is kept for its next layer and step, not given back to the system and asked for again.

glibc maps every large buffer anew and unmaps it when it is freed; the pages are then zeroed by the kernel when they are first
touched, at every layer of every step: about a million page faults a step of roberta-base on a CPU.
"""

import ctypes
from collections.abc import Mapping

# From <malloc.h> of glibc. The threshold's largest value is 32 MiB: greater buffers, such as logits, are mapped as ever.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_KEPT_BYTES = 32 * 2**20
_TRIM_BYTES, _TOP_PAD_BYTES = 2**31 - 1, 64 * 2**20


def keep_freed_memory(environ: Mapping[str, str]) -> bool:
    """From now on, in this process; whether it does: the allocator must be glibc's, and settings of the user's in `environ` stay."""
    if any(name.startswith("MALLOC_") or (name == "GLIBC_TUNABLES" and "malloc" in value) for name, value in environ.items()):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {_M_MMAP_THRESHOLD: _LARGEST_KEPT_BYTES, _M_TRIM_THRESHOLD: _TRIM_BYTES, _M_TOP_PAD: _TOP_PAD_BYTES}
    return all(mallopt(name, value) for name, value in settings.items())
