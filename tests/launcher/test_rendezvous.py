"""Announced processes that are not there are told from a job in seconds: one line with the number, the variables and the way out."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launcher.rendezvous import RendezvousError, find_job
from launcher.roll_call import NobodyCame, call_roll
from robustbert.job import Job

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"RANK": "0", "WORLD_SIZE": "4"}
STARTERS = ("SLURM", "OMPI_", "PMI_", "PMIX_", "TORCHELASTIC_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize(
    "environ",
    [{}, {"RANK": "3"}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_NTASKS": "4"}, {"LOCAL_RANK": "x"}, {"MASTER_ADDR": "n1", "MASTER_PORT": "x"}],
)
def test_one_process_needs_nobody(environ):
    assert find_job(environ=environ) == Job()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "4 tasks were announced (SLURM_PROCID=0, SLURM_NTASKS=4) and 1 is here, the batch script"),
        (PLAIN, "4 tasks were announced (RANK=0, WORLD_SIZE=4), and MASTER_ADDR and MASTER_PORT do not say"),
        (PLAIN | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "port"}, "4 tasks were announced (RANK=0, WORLD_SIZE=4) and 1 is here after 0.3 s"),
        (PLAIN | {"RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "port"}, "rank 0 at 127.0.0.1:"),
        (PLAIN | {"RANK": "1", "MASTER_ADDR": "no-such-host.invalid", "MASTER_PORT": "port"}, "rank 0 at no-such-host.invalid:"),
        (
            PLAIN | {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "port"},
            "variables of a torchrun that has ended",
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "999"}, "from an mpirun that has ended; unset PMI_FD PMI_RANK PMI_SIZE"),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "n"}, "from an mpirun that has ended; unset PMIX_NAMESPACE"),
    ],
)
def test_leftovers_are_refused_in_one_line(environ, words, port):
    environ = {name: port if value == "port" else value for name, value in environ.items()}
    started = time.monotonic()
    with pytest.raises(RendezvousError) as refusal:
        find_job(0.3, environ)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)
    assert "unset" in str(refusal.value) or "--ntasks=1" in str(refusal.value)
    assert time.monotonic() - started < 5


def test_a_roll_call_lets_everybody_go_and_keeps_strangers_out(port):
    def call(rank, world_size=3):
        try:
            call_roll(rank, world_size, "127.0.0.1", int(port), 10)
            outcomes[rank, world_size] = "gone"
        except NobodyCame as error:
            outcomes[rank, world_size] = str(error)

    outcomes = {}
    first = threading.Thread(target=call, args=(0,))
    first.start()
    time.sleep(0.1)
    with socket.create_connection(("127.0.0.1", int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with socket.create_connection(("127.0.0.1", int(port))) as other_job:
            other_job.sendall(b"robustbert 1 2\n")
            others = [threading.Thread(target=call, args=(rank,)) for rank in (2, 1)]
            for other in others:
                other.start()
            for thread in (first, *others):
                thread.join(15)
    assert outcomes == {(rank, 3): "gone" for rank in range(3)}
    socket.create_server(("127.0.0.1", int(port))).close()  # free for torch's store


def test_a_second_rank_0_is_told_that_the_port_is_taken(port):
    with socket.create_server(("", int(port))), pytest.raises(NobodyCame, match=f"cannot listen at MASTER_PORT={port}"):
        call_roll(0, 2, "127.0.0.1", int(port), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "environ",
    [
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"},
        {"PMI_RANK": "0", "PMI_SIZE": "4"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "1"},
        {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-n1-99@1"},
        {
            "OMPI_COMM_WORLD_RANK": "1",
            "OMPI_COMM_WORLD_SIZE": "2",
            "PMIX_RANK": "1",
            "PMIX_NAMESPACE": "prterun-n1-99@1",
            "PMIX_SERVER_URI41": "prterun-n1-99@0.1;tcp4://127.0.0.1:9",
            "PMIX_SERVER_URI2": "prterun-n1-99@0.1;tcp4://127.0.0.1:9",
            "PMIX_SECURITY_MODE": "native",
        },
    ],
    ids=["open-mpi", "mpich", "srun-without-pmix", "pmix", "a-whole-mpirun"],
)
def test_mpi_that_sees_no_others_ends_in_one_line(environ):
    """With variables of an mpirun that has ended, Open MPI 5.0.11 crashes in MPI_Finalize (rank 0) or aborts in MPI_Init (others)."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(STARTERS)} | {"PYTHONPATH": str(ROOT)}
    code = "from launcher.rendezvous import *\ntry: find_job()\nexcept ValueError as error: raise SystemExit(f'refused: {error}')"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=clean | environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("refused: ") and done.stderr.count("\n") == 1, done
    assert "1 is here" in done.stderr and ("unset" in done.stderr or "srun --mpi=pmix" in done.stderr)
    assert time.monotonic() - started < 10
