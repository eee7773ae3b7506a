"""Ranks from the variables of every starter, and the environment that a job gets."""

import pytest

from launcher.job_env import (
    ATTEMPT_VARIABLE,
    JobEnvError,
    RankEnv,
    count_gpus,
    find_attempt,
    find_master,
    find_pmix_servers,
    find_rank,
    rank_environment,
    without_ranks,
)

OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
HYDRA = {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}
SLURM = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
PLAIN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("environ", "starter"),
    [(OPEN_MPI, "openmpi"), (HYDRA, "pmi"), (SLURM, "slurm"), (TORCHRUN, "torchrun"), (PLAIN, "env")],
)
def test_rank_of_every_starter(environ, starter):
    found = find_rank(environ)
    assert (found.rank, found.world_size, found.local_rank, found.starter) == (3, 8, 1, starter)


def test_process_started_alone_is_rank_0_of_1():
    assert find_rank({}) == RankEnv(rank=0, world_size=1, local_rank=None, starter=None)


def test_mpirun_inside_a_batch_script_counts_before_the_scripts_own_rank():
    assert find_rank({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", **OPEN_MPI}).rank == 3


def test_torchrun_inside_srun_counts_before_the_agents_rank():
    assert find_rank({**SLURM, "SLURM_PROCID": "0", "PMI_RANK": "0", "PMI_SIZE": "2", **TORCHRUN}).rank == 3


def test_size_of_the_step_counts_before_that_of_the_allocation():
    assert find_rank({**SLURM, "SLURM_STEP_NUM_TASKS": "4"}).world_size == 4


def test_rank_without_a_size_does_not_count():
    assert find_rank({"PMI_RANK": "3"}).starter is None


MASTER = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environ", "starter", "rank", "size"),
    [
        (BATCH, "batch", 0, 4),  # sbatch --ntasks=4, without srun: as Slurm 22.05 sets them
        ({**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, "slurm", 0, 1),  # srun -n 1 in it
        ({"SLURM_PROCID": "0"}, None, 0, 1),  # sbatch without --ntasks sets no SLURM_NTASKS
        ({"SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_JOB_ID": "7"}, None, 0, 1),  # the shell of salloc
        ({**BATCH, "SLURM_NTASKS": "1", "SLURM_STEP_ID": "4294967290"}, "slurm", 0, 1),  # Slurm's own interactive step
        ({"RANK": "2"}, None, 0, 1),
        ({"WORLD_SIZE": "4"}, None, 0, 1),
        ({"LOCAL_RANK": "3"}, None, 0, 1),
        ({"RANK": "", "WORLD_SIZE": ""}, None, 0, 1),
        ({"RANK": "0", "WORLD_SIZE": "1"}, "env", 0, 1),
        ({"RANK": "what", "LOCAL_RANK": "ever"}, None, 0, 1),
        ({"RANK": " 1 ", "WORLD_SIZE": "2"}, "env", 1, 2),
        ({"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun@1"}, "pmix", 1, None),  # prterun tells no size
        ({"PMIX_RANK": "1"}, None, 0, 1),
        ({**BATCH, **PLAIN}, "env", 3, 8),  # a starter of torch's inside a batch script
        ({**SLURM, **PLAIN, **MASTER}, "env", 3, 8),  # srun, and a script that says the same to torch
        ({**SLURM, "RANK": "0", "WORLD_SIZE": "2"}, "slurm", 3, 8),  # without a meeting point RANK is no job
        ({**SLURM, "SLURM_PROCID": "0", "SLURM_NTASKS": "1", **PLAIN, **MASTER}, "env", 3, 8),  # one task of srun starts eight processes
    ],
)
def test_what_counts_of_a_surrounding_job(environ, starter, rank, size):
    found = find_rank(environ)
    assert (found.starter, found.rank, found.world_size) == (starter, rank, size)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RANK": "zero", "WORLD_SIZE": "4"}, "RANK=zero is no whole number; unset RANK"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, "RANK=-1 is no whole number"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK=4 is no rank of WORLD_SIZE=4 processes"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 is no rank of WORLD_SIZE=0"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4(x2)"}, "SLURM_NTASKS=4(x2) is no whole number"),
        ({**SLURM, **MASTER, "RANK": "0", "WORLD_SIZE": "2"}, "srun announces task 3 of 8, and RANK=0, WORLD_SIZE=2"),
    ],
)
def test_variables_that_make_no_sense_are_named(environ, words):
    with pytest.raises(JobEnvError) as refusal:
        find_rank(environ)
    assert words in str(refusal.value)


def test_a_meeting_point_needs_a_port():
    assert find_master({"MASTER_ADDR": "n1", "MASTER_PORT": ""}) is None
    for port in ("http", "0", "70000"):
        with pytest.raises(JobEnvError, match=f"MASTER_PORT={port} is no"):
            find_master({"MASTER_ADDR": "n1", "MASTER_PORT": port})


def test_a_member_of_a_sweep_is_no_part_of_the_job_around_it():
    around = {**OPEN_MPI, **HYDRA, **BATCH, **TORCHRUN, **MASTER, "PMIX_NAMESPACE": "n", "PMIX_RANK": "1"}
    kept = without_ranks(around | {"HOME": "/h", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"})
    assert kept == {"HOME": "/h", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert find_rank(kept) == RankEnv()


def test_the_daemon_of_mpirun():
    """PMIX_SERVER_URI2 as Open MPI 5.0.11 sets it, with an address of either kind."""
    uris = {"PMIX_SERVER_URI2": "prterun-vm-1@0.1;tcp4://127.0.0.1:40729", "PMIX_SERVER_URI41": "prterun-vm-1@0.1;tcp6://[fe80::1]:40730"}
    assert find_pmix_servers(uris) is None
    assert find_pmix_servers({"PMIX_NAMESPACE": "n"} | uris) == [("127.0.0.1", 40729), ("fe80::1", 40730)]
    assert find_pmix_servers({"PMIX_NAMESPACE": "n"}) == []
    assert find_pmix_servers({"PMIX_NAMESPACE": "n", "PMIX_SERVER_URI2": "unix:///tmp/x"}) is None


def test_local_rank_is_unknown_where_it_is_not_told():
    assert find_rank({"PMI_RANK": "3", "PMI_SIZE": "8"}).local_rank is None


def test_meeting_point_of_torchrun():
    assert find_master({"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}) == ("node1", 29500)
    assert find_master({}) is None


def test_cores_are_shared_out_unless_the_user_has_done_so():
    assert rank_environment({}, num_processes=2, num_cores=8, python_path="/p")["OMP_NUM_THREADS"] == "4"
    assert rank_environment({}, num_processes=4, num_cores=2, python_path="/p")["OMP_NUM_THREADS"] == "1"
    assert rank_environment({"OMP_NUM_THREADS": "7"}, 2, 8, "/p")["OMP_NUM_THREADS"] == "7"


def test_variables_of_a_surrounding_job_are_dropped_and_settings_kept():
    settings = {"HOME": "/h", "OMPI_MCA_pml": "ob1", "PMIX_MCA_x": "1", "CUDA_VISIBLE_DEVICES": "0"}
    around = {**OPEN_MPI, **HYDRA, **SLURM, **TORCHRUN, "PMIX_NAMESPACE": "n", "MASTER_ADDR": "a", "SLURM_JOB_ID": "1"}
    kept = rank_environment(settings | around, 1, 1, "/p")
    assert settings.items() <= kept.items()
    assert find_rank(kept).starter is None and find_master(kept) is None
    own = {"PYTORCH_ALLOC_CONF", "TORCH_FR_BUFFER_SIZE", ATTEMPT_VARIABLE}
    assert set(kept) == {*settings, "OMP_NUM_THREADS", "PYTHONPATH", *own}


def test_torchs_settings_are_the_users_where_there_are_any():
    made = rank_environment({}, 1, 1, "/p")
    assert made["PYTORCH_ALLOC_CONF"] == "expandable_segments:True" and made["TORCH_FR_BUFFER_SIZE"] == "2000"
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        kept = rank_environment({name: "max_split_size_mb:64"}, 1, 1, "/p")
        assert [kept.get(key) for key in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")].count("max_split_size_mb:64") == 1
        assert "expandable_segments:True" not in kept.values()
    kept = rank_environment({"TORCH_NCCL_TRACE_BUFFER_SIZE": "0"}, 1, 1, "/p")
    assert kept["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "0" and "TORCH_FR_BUFFER_SIZE" not in kept


def test_the_attempt_is_told():
    assert find_attempt(rank_environment({ATTEMPT_VARIABLE: "7"}, 1, 1, "/p", attempt=2)) == 2
    assert find_attempt({}) == 1


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """A folder of devices with 3 GPUs, and a torch that knows CUDA."""
    monkeypatch.setattr("launcher.job_env._torch_version", lambda: "2.11.0+cu130")
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("visible", "number"),
    [
        (None, 3), ("0,1", 2), ("2", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("1,7", 1), ("0, 2", 2), ("1,1", 0),
        ("GPU-1a2b,GPU-3c4d", 2), ("MIG-1a2b", 1), ("NoDevFiles", 0),
    ],
)
def test_gpus_are_counted_as_cuda_does(gpus, visible, number):
    assert count_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, gpus, list_gpus=lambda: "") == number


def test_gpus_without_a_device_file_are_listed_by_nvidia_smi(gpus, tmp_path):
    listed = "GPU 0: NVIDIA RTX A (UUID: GPU-1)\nGPU 1: NVIDIA RTX A (UUID: GPU-2)\n  MIG 1g.5gb Device 0: (UUID: MIG-3)\n"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert count_gpus({}, empty, list_gpus=lambda: listed) == 2
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "1"}, empty, list_gpus=lambda: listed) == 1
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "0"}, empty, list_gpus=lambda: "") == 0, "a variable makes no GPU"


def test_a_torch_without_cuda_sees_no_gpu(gpus, monkeypatch):
    monkeypatch.setattr("launcher.job_env._torch_version", lambda: "2.11.0+cpu")
    assert count_gpus({}, gpus, list_gpus=lambda: "") == 0


def test_the_supervisors_address_leads_out_of_its_machine(monkeypatch):
    from launcher import rendezvous

    ways = {"head": "127.0.0.1", "n2": "10.0.0.5", "n3": "10.0.0.5", "nowhere": None}
    monkeypatch.setattr(rendezvous, "_address_on_the_way_to", ways.get)
    assert rendezvous.own_address_towards(["head", "n2", "n3"]) == "10.0.0.5"
    assert rendezvous.own_address_towards(["nowhere", "n3"]) == "10.0.0.5"
    assert rendezvous.own_address_towards(["head"]) == rendezvous.own_address_towards(["nowhere"]) == "127.0.0.1"
    monkeypatch.undo()
    assert rendezvous.own_address_towards(["localhost", "no-such-host.invalid"]) == "127.0.0.1"
