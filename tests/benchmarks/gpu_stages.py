"""Stages that end in every way, for the tests of benchmarks.gpu's runner."""

import os
import signal
import subprocess
import sys
import time


def good(context):
    context.record(figure=3.5)
    return "3.5 of something"


def prepares(context):
    return "prepared"


def raises(context):
    context.record(before=1)
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nsecond line")


def fails_a_check(context):
    context.check("first", True, value=1)
    context.check("second", False, value=2)
    return "one of two"


def dies(context):
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(context):
    """With a process in a session of its own, as the launcher starts them, and deaf to everything but SIGKILL."""
    code = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGTERM, signal.SIGINT)]; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    context.record(pid=os.getpid(), child=child.pid)
    print("waiting for a collective", flush=True)
    time.sleep(600)


def leaves_a_process(context):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    context.record(child=child.pid)
    return "done"


def notes_its_time(context):
    started = time.time()
    time.sleep(0.5)
    context.record(started=started, ended=time.time())
    return "slept"
