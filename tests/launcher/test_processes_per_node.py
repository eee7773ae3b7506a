"""`cluster.processes_per_node: auto`, and numbers for which a machine has too few GPUs."""

from pathlib import Path

import pytest

from launcher.job_env import num_own_cores
from launcher.processes_per_node import check_gpus, load_run_config, most_processes
from launcher.programs import Programs
from launcher.sweep.grid import build_grid
from robustbert.config import ClusterConfig, ConfigError, load_config

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"
CONFIG = """\
model: {num_layers: 4, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 4, max_sequence_length: 32}
data: {tokenizer: x, train: [{path: x}]}
optim: {warmup_steps: 1}
train: {steps: 4, global_batch_size: 96, micro_batch_size: 4}
cluster: {processes_per_node: auto}
"""


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    """The number of processes of a configuration with overrides, on a machine of so many GPUs and cores."""
    (tmp_path / "auto.yaml").write_text(CONFIG)

    def number(num_gpus, *overrides, cores=16, **options):
        monkeypatch.setattr("launcher.processes_per_node.num_own_cores", lambda: cores)
        config = load_run_config(tmp_path / "auto.yaml", overrides, num_gpus=lambda: num_gpus, **options)
        return config.cluster.processes_per_node

    return number


@pytest.mark.parametrize(("num_gpus", "cores", "processes"), [(0, 2, 2), (0, 1, 1), (0, 64, 2), (1, 16, 1), (2, 16, 2), (8, 64, 2)])
def test_quickstart_takes_what_the_machine_has(num_gpus, cores, processes, monkeypatch):
    monkeypatch.setattr("launcher.processes_per_node.num_own_cores", lambda: cores)
    config = load_run_config(QUICKSTART, num_gpus=lambda: num_gpus)
    assert config.cluster.processes_per_node == processes == config.cluster.num_processes


@pytest.mark.parametrize(
    ("num_gpus", "overrides", "processes"),
    [
        (8, [], 8),  # 96 = 4 x 8 x 3
        (7, [], 6),
        (5, [], 4),
        (8, ["parallel.tensor=2"], 8),
        (7, ["parallel.tensor=2"], 6),
        (7, ["parallel.tensor=2", "parallel.pipeline=2"], 4),
        (8, ["train.global_batch_size=4"], 1),
        (8, ["cluster.gpus_per_node=3"], 3),
        (4, ["cluster.processes_per_node=3"], 3),  # a number stays
    ],
)
def test_auto_is_the_most_that_divides(resolved, num_gpus, overrides, processes):
    assert resolved(num_gpus, *overrides) == processes


def test_auto_without_a_layout_that_fits_says_why(resolved):
    with pytest.raises(ConfigError, match=r"auto finds no number from 1 to 2 .*this machine has 2 GPUs.*parallel.tensor \(4\)"):
        resolved(2, "parallel.tensor=4")


def test_on_other_nodes_auto_is_one_process_a_gpu_of_theirs(resolved):
    for scheduler in ("slurm", "mpi"):
        words = (f"cluster.scheduler={scheduler}", "cluster.nodes=2")
        assert resolved(0, *words, "cluster.gpus_per_node=6") == 6
        assert resolved(0, *words, "cluster.gpus_per_node=5") == 4, "2 nodes x 5 x 4 does not divide 96"
        with pytest.raises(ConfigError, match="cluster.gpus_per_node=N"):
            resolved(8, *words)


def test_runs_of_a_sweep_share_the_gpus(resolved, tmp_path, monkeypatch):
    monkeypatch.setattr("launcher.processes_per_node.gpus_here", lambda: 8)
    assert resolved(8, "cluster.gpus_per_node=8", at_once=2) == 4
    assert resolved(8, "cluster.gpus_per_node=8", at_once=20) == 1
    over = ["cluster.gpus_per_node=8", f"run.dir={tmp_path}"]
    grid = build_grid(str(tmp_path / "auto.yaml"), over, ["optim.lr=[1e-3,2e-3]"], None, Programs(), at_once=4)
    assert [config.cluster.processes_per_node for config in grid.configs] == [2, 2]
    assert grid.sweep.cluster["processes_per_node"] == 2


def test_the_gpus_are_not_counted_where_the_number_does_not_depend_on_them(resolved):
    def fail():
        raise AssertionError("counted")

    most_processes(ClusterConfig(scheduler="slurm", gpus_per_node=4, processes_per_node="auto"), 1, fail, 2)
    check_gpus(ClusterConfig(), fail)


def test_auto_is_no_number_before_it_is_resolved(tmp_path):
    (tmp_path / "auto.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "auto.yaml")
    with pytest.raises(ConfigError, match="auto is resolved"):
        config.cluster.num_processes
    with pytest.raises(ConfigError, match="processes_per_node must be a whole number, it is 'automatic'"):
        load_config(tmp_path / "auto.yaml", ["cluster.processes_per_node=automatic"])
    with pytest.raises(ConfigError, match="must be above 0"):
        load_config(tmp_path / "auto.yaml", ["cluster.processes_per_node=0"])


def test_more_processes_than_gpus_are_refused_unless_nccl_may_share():
    two = ClusterConfig(processes_per_node=2)
    with pytest.raises(ConfigError, match=r"\(2\) is more than this machine's 1 GPU, .*=auto"):
        check_gpus(two, lambda: 1, may_share=False)
    check_gpus(two, lambda: 1, may_share=True)
    check_gpus(two, lambda: 2, may_share=False)
    check_gpus(two, lambda: 0, may_share=False)  # on the CPU they share the cores
    check_gpus(ClusterConfig(scheduler="mpi", processes_per_node=2), lambda: 1, may_share=False)  # other machines


def test_submit_refuses_in_one_line_and_makes_nothing(launching):
    fake_gpu(launching.folder)
    done = launching.launcher("submit", "small.yaml", **pretend_gpu(launching.folder))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "cluster.processes_per_node (2) is more than this machine's 1 GPU" in done.stderr
    assert not (launching.folder / "runs").exists()
    dry = launching.launcher("submit", "small.yaml", "--dry-run", **pretend_gpu(launching.folder))
    assert dry.returncode == 2 and "submit would refuse this: cluster.processes_per_node (2)" in dry.stderr
    shared = launching.launcher("submit", "small.yaml", "--dry-run", NCCL_MULTI_RANK_GPU_ENABLE="1", **pretend_gpu(launching.folder))
    assert shared.returncode == 0, shared.stderr


def test_the_resolved_number_is_what_the_run_has(launching):
    fake_gpu(launching.folder)
    words = ("submit", "small.yaml", "cluster.processes_per_node=auto")
    dry = launching.launcher(*words, "--dry-run", **pretend_gpu(launching.folder))
    assert dry.returncode == 0 and "processes_per_node: 1" in dry.stdout and "1 process = " in dry.stdout
    done = launching.launcher(*words)  # without GPUs
    assert done.returncode == 0, done.stdout + done.stderr
    assert load_config(launching.run_directory().config_file).cluster.processes_per_node == min(2, num_own_cores())
    assert "processes_per_node: auto" not in launching.run_directory().config_file.read_text()


def fake_gpu(folder):
    """Modules by which the launcher's processes take this machine for one with a GPU and a CUDA build of torch."""
    (folder / "pretend").mkdir()
    (folder / "pretend" / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('PRETEND_GPUS'):\n"
        "    import launcher.job_env\n"
        "    launcher.job_env._torch_version = lambda: '2.11.0'\n"
        "    launcher.job_env._nvidia_smi = lambda: 'GPU 0: pretended\\n'\n"
    )


def pretend_gpu(folder):
    root = Path(__file__).resolve().parents[2]
    return {"PRETEND_GPUS": "1", "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": f"{folder / 'pretend'}:{root}:{Path(__file__).parent}"}
