"""Memory that a process frees stays with it: a layer's activations are not mapped anew at every step."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import os, resource, sys
from robustbert.memory import keep_freed_memory
keeps = keep_freed_memory(os.environ)
import torch
def step():
    return [torch.ones(2**20) for _ in range(8)]  # 32 MiB
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(int(keeps), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of_ten_steps(**environ) -> tuple[bool, int]:
    """(whether memory is kept, minor page faults) of a fresh process."""
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environ, capture_output=True, text=True, timeout=120, check=True)
    keeps, faults = done.stdout.split()
    return bool(int(keeps)), int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_freed_activations_cost_no_page_faults_unless_the_user_sets_the_allocator_up():
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    keeps, kept = faults_of_ten_steps(**environ)
    given_back, asked_for = faults_of_ten_steps(**environ, MALLOC_MMAP_THRESHOLD_="131072")
    assert keeps and not given_back
    assert kept < 5000 and asked_for > 50_000, "32 MiB are 8,192 pages"
