"""`launcher doctor` inside an allocation of a real Slurm: by salloc from a terminal, by sbatch on the first node."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.cluster.conftest import launcher
from tests.faults.lab import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(280)]
TWO_NODES = ("--scheduler", "slurm", "cluster.nodes=2", "cluster.processes_per_node=1")
ALLOCATION = ("--nodes=2", "--ntasks-per-node=1", "--nodelist=node1,node2")  # wait for these, a third one is there


def in_allocation(lab, *words, **options):
    """Run a command of Slurm in the laboratory's folder."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=lab.folder, env=environ, capture_output=True, text=True, timeout=250, **options)


def test_outside_an_allocation_doctor_prints_the_line_that_gets_one_and_inside_it_asks_every_node(cluster, lab):
    words = ["doctor", str(lab.config_file), *TWO_NODES, "--megabytes", "8", "--slow-below", "0.01"]
    outside = launcher(lab, *words)
    assert outside.returncode == 2 and "run this in one: salloc --job-name=small --nodes=2 --ntasks-per-node=1 launcher doctor" in outside.stderr
    python = [sys.executable, "-m", "launcher"]
    done = in_allocation(lab, "salloc", *ALLOCATION, *python, *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert [(node["node"], node["reasons"]) for node in found["nodes"]] == [("node1", []), ("node2", [])]
    assert all(node["report"]["rates"]["matmul_flops_per_s"] > 0 for node in found["nodes"])
    assert found["all_reduce"]["processes"] == 2 and found["all_reduce"]["bytes_per_s_of_mib"]["1"] > 0


def test_a_batch_job_names_the_node_that_is_not_fit(cluster, lab):
    words = ["launcher", "doctor", str(lab.config_file), *TWO_NODES, "cluster.gpus_per_node=1", "--megabytes", "8", "--slow-below", "0.01"]
    command = shlex.join([sys.executable, "-m", *words, "--exclude-file", "unfit.yaml"])
    log = lab.folder / "doctor.log"
    done = in_allocation(lab, "sbatch", "--wait", *ALLOCATION, f"--output={log}", "--wrap", command)
    shown = log.read_text()
    assert done.returncode == 1, shown  # the GPUs are pretended
    assert shown.count("0 GPUs are seen, cluster.gpus_per_node is 1") == 2 and "not measured: 0 of the 2 nodes needed are fit" in shown
    assert (lab.folder / "unfit.yaml").read_text() == "[node1, node2]\n" and "'cluster.exclude=[node1, node2]'" in shown
