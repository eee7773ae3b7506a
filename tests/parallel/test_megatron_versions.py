"""Which versions of megatron-core are taken, and that a newer one trains as the pinned one does."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from robustbert.optim.apex import without_clipping
from robustbert.optim.fused_adam import FusedAdam
from robustbert.optim.fused_lamb import FusedLamb
from robustbert.parallel.layers import mark_split
from robustbert.parallel.megatron_import import check_version
from tests.optim.apex_like import ApexLikeLamb

ROOT = Path(__file__).resolve().parents[2]
NEWER = os.environ.get("ROBUSTBERT_NEWER_MEGATRON")


@pytest.mark.parametrize(("version", "is_taken"), [("0.16.1", True), ("0.19.2", True), ("0.16.0", False), ("0.20.0", False), ("0.17.0rc1", True)])
def test_only_versions_that_were_tried_are_taken(version, is_taken):
    if is_taken:
        check_version(version)
    else:
        with pytest.raises(ImportError, match=f"{version} is not supported: pip install"):
            check_version(version)


def test_marks_that_a_layer_has_set_are_kept_and_wrong_ones_found():
    """megatron-core 0.17 and later mark the weights of split layers themselves, 0.16.1 only those that it initialises."""
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    for _ in range(2):
        mark_split(weight, 1)
    assert (weight.tensor_model_parallel, weight.partition_dim, weight.partition_stride) == (True, 1, 1)
    with pytest.raises(AssertionError):
        mark_split(weight, 0)


@pytest.mark.parametrize("kind", [FusedAdam, FusedLamb, without_clipping(ApexLikeLamb)])
def test_an_optimizer_takes_what_megatron_gives_from_0_17_on(kind):
    weights = [torch.nn.Parameter(torch.ones(2))]
    kind(weights, lr=1e-3, capturable=False)
    with pytest.raises((ValueError, AssertionError)):
        kind(weights, lr=1e-3, capturable=True)


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_a_newer_megatron_trains_as_one_process_does():
    """TP2 and PP2 for twenty steps under the Python of ROBUSTBERT_NEWER_MEGATRON; 0.19.2 when it was last run."""
    if NEWER is None:
        pytest.skip("ROBUSTBERT_NEWER_MEGATRON names no Python 3.12 with megatron-core 0.17 or later")
    code = "import megatron.core as m; raise SystemExit(m.__version__ < '0.17')"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([NEWER, "-W", "ignore", "-c", code], env=environment).returncode == 0
    tests = [f"tests/parallel/test_layouts.py::test_twenty_steps_equal_the_one_process_run[{name}]" for name in ("tp2", "pp2")]
    command = [NEWER, "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout[-3000:]
