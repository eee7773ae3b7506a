"""SIGTERM and Ctrl-C end a program in time with one line, wherever its main thread is."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# A C function that waits for ever and holds no lock of Python's, as MPI_Init or a collective does: a locked mutex, locked again.
BLOCKED = "mutex = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None).pthread_mutex_lock; lock(mutex); ready(); lock(mutex)"


def run(body: str, numbers: list[int], before: str = "", **options):
    """The program `body` inside ends_by_signals, which gets the signals once it has called ready(): (exit code, stderr, seconds)."""
    code = (
        "import ctypes, os, signal, subprocess, sys, threading, time\n"
        "from robustbert import interruption\n"
        "interruption.GRACE_S = 0.4\n"
        "def ready():\n    print('ready', flush=True)\n"
        f"{before}\n"
        "with interruption.ends_by_signals('tool', lambda: 'interrupted here', is_process=True):\n    "
        + body.replace("\n", "\n    ")
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, options.get("sigint", signal.default_int_handler)),
    )
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=20)
    started = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)
    _, stderr = process.communicate(timeout=30)
    return process.returncode, stderr, time.monotonic() - started


@pytest.mark.parametrize("number", EXIT_CODES, ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize(
    "body",
    ["ready(); time.sleep(60)", BLOCKED, "ready()\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass"],
    ids=["sleeps", "inside-a-library", "swallows-it"],
)
def test_a_signal_ends_the_program_with_one_line(body, number):
    code, stderr, seconds = run(body, [number])
    assert (code, stderr) == (EXIT_CODES[number], "tool: interrupted here\n") and seconds < 3


def test_cleaning_up_is_let_finish():
    body = "try:\n    ready(); time.sleep(60)\nfinally:\n    time.sleep(0.2); sys.stderr.write('cleaned\\n')"
    assert run(body, [signal.SIGTERM])[:2] == (143, "cleaned\ntool: interrupted here\n")


def test_a_second_signal_does_not_wait_for_the_cleaning():
    before = "interruption.GRACE_S = 60"
    body = "try:\n    ready(); time.sleep(60)\nfinally:\n    time.sleep(60)"
    code, stderr, seconds = run(body, [signal.SIGINT, signal.SIGINT], before)
    assert (code, stderr) == (130, "tool: interrupted here\n") and seconds < 5


def test_threads_that_do_not_end_do_not_keep_the_process():
    body = "threading.Thread(target=time.sleep, args=(60,)).start(); ready(); time.sleep(60)"
    code, stderr, seconds = run(body, [signal.SIGTERM])
    assert (code, stderr) == (143, "tool: interrupted here\n") and seconds < 5


@pytest.mark.parametrize("waits", [BLOCKED, "ready(); time.sleep(60)"], ids=["inside-a-library", "sleeps"])
def test_no_child_is_left(tmp_path, waits):
    child = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(60)"
    body = f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n{waits}"
    assert run(body, [signal.SIGTERM])[0] == 143
    deadline = time.monotonic() + 5  # the kernel, and whoever takes over orphans, need a moment
    while _runs(int((tmp_path / "pid").read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_was_ignored_stays_ignored():
    """A shell's background job and nohup start a program with signals ignored (POSIX.1-2024, 2.11 of the shell)."""
    body = "ready(); time.sleep(1); sys.stderr.write('done\\n')"
    assert run(body, [signal.SIGINT], sigint=signal.SIG_IGN)[:2] == (0, "done\n")


def test_a_program_that_is_ending_by_itself_keeps_its_exit_code():
    before = "import atexit; atexit.register(lambda: (ready(), time.sleep(0.3)))"
    assert run("sys.stderr.write('an error\\n'); sys.exit(2)", [signal.SIGTERM], before)[:2] == (2, "an error\n")


def test_another_handler_inside_gets_the_signal_alone():
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.stderr.write('mine\\n'))\nready(); time.sleep(1.2); sys.stderr.write('done\\n')"
    assert run(body, [signal.SIGTERM])[:2] == (0, "mine\ndone\n")


def test_an_inner_block_speaks_and_the_outer_one_ends_the_program():
    body = "with interruption.ends_by_signals('inner', lambda: 'my words'):\n    ready(); time.sleep(60)"
    assert run(body, [signal.SIGTERM])[:2] == (143, "inner: my words\n")
