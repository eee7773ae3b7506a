"""Tools inside real jobs: a batch script without srun is one process and says so; srun, mpirun and torchrun give every process its place."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustbert.data.corpus import IndexedCorpus
from robustbert.data.shards import find_prefixes
from tests.data.conftest import make_text
from tests.finetune.conftest import build_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
FINETUNE = f"{sys.executable} {ROOT}/tools/finetune rte --model none --data none --output none"
PLACE = f"{sys.executable} -c 'from launcher.rendezvous import find_job; job = find_job(); print(\"place\", job.rank, job.world_size)'"
ROOT_MAY_RUN_IT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text of 30 documents and a tokenizer."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "text.txt").write_text(make_text(30))
    build_tiny_model(folder / "model", 32)
    return folder


def environ():
    return os.environ | ROOT_MAY_RUN_IT | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def batch(folder, script: str, *options: str) -> str:
    """What a batch script prints, and the exit code of its last command."""
    (folder / "job.sh").write_text(f"#!/bin/bash\n{script}\necho rc $?\n")
    output = folder / f"job-{time.monotonic_ns()}.out"
    words = ["sbatch", "--wait", "--export=ALL", f"--output={output}", *options, str(folder / "job.sh")]
    subprocess.run(words, cwd=folder, env=environ(), capture_output=True, timeout=120)
    return output.read_text()


def preprocess(output: str) -> str:
    words = ["--input", "text.txt", "--tokenizer", "model", "--output", output, "--shard", "auto", "--workers", "1"]
    return shlex.join([sys.executable, str(ROOT / "tools" / "preprocess"), *words])


def num_documents(prefix: Path) -> int:
    return sum(IndexedCorpus(part).num_documents for part in find_prefixes(f"{prefix}-*"))


def test_a_batch_script_of_four_tasks_refuses_to_be_them(cluster, folder):
    said = batch(folder, FINETUNE, "--ntasks=4").splitlines()
    assert len(said) == 2 and "4 tasks were announced (SLURM_PROCID=0, SLURM_NTASKS=4) and 1 is here" in said[0] and said[1] == "rc 2"
    said = batch(folder, preprocess("out/never"), "--ntasks=4").splitlines()
    assert len(said) == 2 and "4 tasks were announced" in said[0] and said[1] == "rc 2" and not (folder / "out" / "never").exists()
    assert "place 0 1" in batch(folder, PLACE, "--ntasks=1") and "place 0 1" in batch(folder, PLACE, "--nodes=2")


def test_steps_of_srun(cluster, folder):
    """Debian's Slurm 22.05 without --mpi=pmix: Open MPI starts each task alone, which the tool tells."""
    assert "place 0 1" in batch(folder, f"srun --ntasks=1 {PLACE}", "--ntasks=4")
    said = batch(folder, f"srun --ntasks=2 --mpi=none {FINETUNE}", "--ntasks=4")
    lines = [line for line in said.splitlines() if line.startswith("tools/finetune")]
    assert len(lines) == 2 and all("2 tasks were announced" in line and "srun --mpi=pmix" in line for line in lines), said
    assert "rc 2" in said
    assert "rc 0" in batch(folder, f"srun --ntasks=3 {preprocess('out/srun')}", "--ntasks=3")
    assert len(find_prefixes(str(folder / "out/srun-*"))) == 3 and num_documents(folder / "out/srun") == 30


def test_an_array_and_steps_inside_it(cluster, folder):
    batch(folder, f"srun {preprocess('out/array')}", "--array=0-1", "--ntasks=2")
    assert len(find_prefixes(str(folder / "out/array-*"))) == 4 and num_documents(folder / "out/array") == 30
    assert "with the N of the first time" in batch(folder, preprocess("out/never"), "--array=3")


def test_shells_of_salloc(cluster, folder):
    def salloc(command):
        return subprocess.run(["salloc", "--ntasks=4", "bash", "-c", command], cwd=folder, env=environ(), capture_output=True, text=True, timeout=60)

    assert "place 0 1" in salloc(PLACE).stdout
    refused = salloc(preprocess("out/never"))
    assert "this is one; say --shard I/N" in refused.stderr and not (folder / "out" / "never").exists()


def test_mpirun_in_a_batch_script(cluster, folder):
    mpirun = f"{Path(sys.executable).with_name('mpirun')} --oversubscribe -n 2"
    said = batch(folder, f"{mpirun} {PLACE}", "--ntasks=2", "--nodes=1")
    assert "place 0 2" in said and "place 1 2" in said and "rc 0" in said, said


def test_processes_of_torchrun_and_what_they_leave_behind(folder):
    """torchrun 2.13 in what looks like a batch script; then a shell with the variables of one that has ended."""
    script = f"{PLACE}; env > leftover-$RANK"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", "bash", "-c", script]
    done = subprocess.run(torchrun, cwd=folder, env=environ() | BATCH, capture_output=True, text=True, timeout=100)
    assert "place 0 2" in done.stdout and "place 1 2" in done.stdout, done
    left = dict(line.split("=", 1) for line in (folder / "leftover-1").read_text().splitlines() if "=" in line)
    started = time.monotonic()
    done = subprocess.run(shlex.split(FINETUNE), cwd=folder, env=left, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "variables of a torchrun that has ended" in done.stderr, done
    assert time.monotonic() - started < 10


def test_processes_that_torchrun_restarts_meet_again(folder):
    """What the first processes wrote into the store of torchrun's agent does not reach the second ones."""
    code = (
        "import os, torch, torch.distributed as dist\n"
        "from launcher.rendezvous import find_job\nfrom robustbert.device import Device\n"
        "job = find_job(); device = Device.detect(job)\n"
        "with device.joined(job, 60):\n"
        "    total = torch.ones(1); dist.all_reduce(total); print('sum', int(total), 'attempt', job.attempt, flush=True)\n"
        "    if job.attempt == 1 and job.rank == 1: os._exit(3)\n"
        "    dist.all_reduce(total)\n"
    )
    (folder / "meet.py").write_text(code)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "1", "--nproc-per-node", "2", "meet.py"]
    done = subprocess.run(torchrun, cwd=folder, env=environ(), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0 and done.stdout.count("sum 2 attempt 2") == 2, done.stdout + done.stderr[-2000:]
    assert "has failed to bind" not in done.stderr


def test_what_mpirun_leaves_behind(folder):
    mpirun = [Path(sys.executable).with_name("mpirun"), "--oversubscribe", "-n", "2", "bash", "-c", f"{PLACE}; env > mpi-$OMPI_COMM_WORLD_RANK"]
    done = subprocess.run(mpirun, cwd=folder, env=environ(), capture_output=True, text=True, timeout=100)
    assert "place 0 2" in done.stdout and "place 1 2" in done.stdout, done
    left = dict(line.split("=", 1) for line in (folder / "mpi-1").read_text().splitlines() if "=" in line)
    done = subprocess.run(shlex.split(FINETUNE), cwd=folder, env=left, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "an mpirun that has ended" in done.stderr, done
    for name in ("inspect", "convert"):  # no job's tools: they know nothing of it
        words = [sys.executable, str(ROOT / "tools" / name), "none", *(["--to", "fairseq", "--output", "out/x"] if name == "convert" else [])]
        done = subprocess.run(words, cwd=folder, env=left | BATCH, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "announced" not in done.stderr, done
