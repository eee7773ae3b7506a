"""What the commands print and refuse, without any job being started."""

import os
import shlex
import subprocess
import sys

import pytest

from launcher.supervisor_record import SupervisorRecord
from robustbert.config import dump_config, load_config

pytestmark = pytest.mark.timeout(240)


def make_run(launching, name="small", *events, steps=10):
    """A run directory as submit and the training leave it."""
    run = launching.run_directory(name)
    run.path.mkdir(parents=True)
    config = load_config(launching.folder / "small.yaml", [f"run.name={name}", f"train.steps={steps}"])
    run.config_file.write_text(dump_config(config))
    (run.path / "supervisor.lock").touch()
    run.append_event("submitted")
    for event, fields in events:
        run.append_event(event, **fields)
    return run


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_help_is_quick_and_imports_no_torch(launching):
    program = (
        "import sys, time; begin = time.perf_counter()\n"
        "from launcher.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('seconds', time.perf_counter() - begin, 'heavy', sorted({'torch', 'numpy', 'rich', 'mpi4py'} & set(sys.modules)))"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = os.environ | {"PYTHONPATH": root}
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=20)
        for _ in range(3)
    ]
    words = [run.stdout.splitlines()[-1].split(maxsplit=3) for run in runs]
    assert all(word[3] == "[]" for word in words), words
    assert min(float(word[1]) for word in words) < 0.5


@pytest.mark.parametrize("verb", ["submit", "plan", "doctor", "sweep", "status", "logs", "cancel", "signal", "resume", "supervise"])
def test_every_command_has_help_with_an_example(verb, capsys):
    from launcher.cli import main

    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"launcher {verb}" in capsys.readouterr().out.partition("example:")[2]


def test_dry_run_prints_everything_and_writes_nothing(launching):
    before = snapshot(launching.folder)
    done = launching.launcher("submit", "small.yaml", "run.name=a b;c", "--dry-run", "optim.lr=0.5")
    assert done.returncode == 0, done.stderr
    assert snapshot(launching.folder) == before and not (launching.folder / "runs").exists()
    for text in ("runs/a b;c", "2 processes = tensor 1 x pipeline 1 x data 2, 1 micro-batch of 2 a step", "lr: 0.5"):
        assert text in done.stdout
    command = next(line for line in done.stdout.splitlines() if "mpirun" in line)
    path = str(launching.folder / "runs" / "a b;c")
    assert shlex.split(command)[-1] == path and shlex.quote(path) in command


def test_dry_run_shows_a_job_that_is_not_ready_and_every_reason(launching):
    done = launching.launcher("submit", "small.yaml", "--scheduler", "mpi", "data.train=[{text: no.txt}]", "--dry-run")
    assert done.returncode == 2
    assert "mpirun" in done.stdout and "configuration:" in done.stdout
    first, second = done.stderr.splitlines()
    assert "submit would refuse this: cluster.hosts names 0 hosts" in first and "no.txt" in second
    assert not (launching.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "smal.yaml"], "smal.yaml: no such configuration file; did you mean small.yaml?"),
        (["submit", "small.yaml", "optim.lrr=1"], "unknown key optim.lrr; did you mean lr?"),
        (["submit", "small.yaml", "lr"], "override 'lr' is not of the form section.key=value"),
        (["submit", "small.yaml", "--scheduler", "mpi"], "cluster.hosts names 0 hosts"),
        (["submit", "small.yaml", "--scheduler", "lsf"], "cluster.scheduler"),
        (["submit", "small.yaml", "cluster.nodes=2", "train.global_batch_size=8"], "cluster.nodes=1"),
        (["submit", "small.yaml", "train.global_batch_size=5"], "use 4 or 8"),
        (["submit", "small.yaml", "train.start_from=other"], "name the folder of the tokenizer they were trained with: data.tokenizer=DIR"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["resume", "nothing"], "no run 'nothing'"),
        (["logs"], "RUN"),
    ],
)
def test_unusable_command_is_one_line_and_creates_nothing(launching, arguments, message):
    before = snapshot(launching.folder)
    done = launching.launcher(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.startswith("launcher: error: ") and done.stderr.count("\n") == 1
    assert snapshot(launching.folder) == before and not (launching.folder / "runs").exists()


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([("finished", {"step": 10})], "finished at step 10"),
        ([("preempted", {"step": 7, "reason": "cancelled by the user"})], "stopped at step 7"),
        ([("started", {"step": 0})], "interrupted at step 0"),
    ],
)
def test_existing_run_is_refused_and_untouched(launching, events, state):
    run = make_run(launching, "small", *events)
    make_run(launching, "small-2")
    before = snapshot(launching.folder)
    done = launching.launcher("submit", "small.yaml", "optim.lr=0.5")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"run 'small' exists ({state})" in done.stderr
    assert "launcher resume small" in done.stderr
    assert "launcher submit small.yaml optim.lr=0.5 run.name=small-3" in done.stderr
    assert snapshot(launching.folder) == before and run.path.exists()


def test_folder_that_is_no_run_is_not_written_to(launching):
    folder = launching.run_directory().path
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("x")
    done = launching.launcher("submit", "small.yaml")
    assert done.returncode == 2 and "is not a run" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_finished_run_is_resumed_only_with_more_steps(launching):
    run = make_run(launching, "small", ("finished", {"step": 10}))
    before = snapshot(launching.folder)
    for overrides in ([], ["optim.lr=0.1"], ["train.steps=10"]):
        done = launching.launcher("resume", "small", *overrides)
        assert done.returncode == 2 and "launcher resume small train.steps=20" in done.stderr
    assert snapshot(launching.folder) == before and run.path.exists()


def test_resume_refuses_another_name(launching):
    make_run(launching, "small", ("preempted", {"step": 3}))
    done = launching.launcher("resume", "small", "run.name=other")
    assert done.returncode == 2 and "begin a new run: launcher submit runs/small/config.yaml run.name=other" in done.stderr


def test_unknown_run_is_answered_with_the_nearest_names(launching):
    for name in ("quickstart", "quickstart-2", "large"):
        make_run(launching, name)
    done = launching.launcher("status", "quikstart")
    assert done.returncode == 2 and "did you mean quickstart or quickstart-2?" in done.stderr


def test_run_is_found_by_name_by_directory_and_below_another_folder(launching):
    run = make_run(launching, "small", ("finished", {"step": 10}))
    elsewhere = launching.folder / "else where"
    run.path.parent.rename(elsewhere)
    for arguments in (["else where/small"], [str(elsewhere / "small") + "/"], ["small", "--dir", "else where"]):
        done = launching.launcher("status", *arguments)
        assert done.returncode == 0 and "finished" in done.stdout, done.stderr


def test_recycled_pid_is_not_taken_for_a_supervisor(launching):
    run = make_run(launching, "small", ("started", {"step": 0}))
    alive = SupervisorRecord.of_this_process()
    alive.write(run)
    assert "running" in launching.launcher("status").stdout
    SupervisorRecord(alive.pid, alive.host, identity="another boot:1", job_mark=alive.job_mark).write(run)
    assert "interrupted" in launching.launcher("status").stdout
    done = launching.launcher("cancel", "small")
    assert done.returncode == 0 and "is not running" in done.stdout


@pytest.mark.parametrize("words", [["cancel"], ["signal"]])
def test_a_run_of_another_host_is_stopped_there(launching, words):
    run = make_run(launching, "small", ("started", {"step": 0}))
    SupervisorRecord(1, "another host", identity="x", job_mark="y").write(run)
    done = launching.launcher(*words, "small")
    again = shlex.join(["launcher", *words, str(run.path), *(["notice"] if words == ["signal"] else [])])
    assert done.returncode == 2 and f"is supervised on another host; {words[0]} it there: {again}" in done.stderr, done


def test_logs_of_one_rank_and_of_all(launching):
    run = make_run(launching)
    run.logs.mkdir()
    for rank in range(2):
        run.rank_log(rank).write_text("".join(f"rank {rank} line {line}\n" for line in range(100)))
    whole = launching.launcher("logs", "small", "--rank", "1")
    assert whole.stdout.count("\n") == 100 and "rank 1 line 99" in whole.stdout
    ends = launching.launcher("logs", "small", "--lines", "3")
    assert ends.stdout.splitlines()[0] == "==> rank_00000.log <==" and ends.stdout.count(" line ") == 6
    none = launching.launcher("logs", "small", "--rank", "7")
    assert none.returncode == 2 and "ranks with a log: 0 to 1" in none.stderr


def test_a_missing_scheduler_is_one_line(launching):
    before = snapshot(launching.folder)
    done = launching.launcher("submit", "small.yaml", "--scheduler", "slurm", PATH=str(launching.folder))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "sbatch was not found: submit from a login node" in done.stderr
    assert snapshot(launching.folder) == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["n1", "n2 slot=4"], "hosts.txt, line 2: 'n2 slot=4' is no host"),
        (["n1", "# spare", "n1:8"], "hosts.txt, line 3: the host n1 stands there twice"),
        (["n1; touch x", "n2"], "hosts.txt, line 1: 'n1; touch x' is no host"),
        (["n1 slots=8"], "hosts.txt names 1 hosts and cluster.nodes is 2"),
    ],
)
def test_a_hostfile_with_an_error_is_one_line(launching, lines, message):
    (launching.folder / "hosts.txt").write_text("\n".join(lines) + "\n")
    sizes = ("cluster.nodes=2", "cluster.processes_per_node=1", "cluster.hostfile=hosts.txt", "cluster.remote_shell=/bin/true")
    done = launching.launcher("submit", "small.yaml", "--scheduler", "mpi", *sizes)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
    assert not (launching.folder / "runs").exists()
