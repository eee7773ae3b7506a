"""`python -m launcher.health RUN_DIR MARK`: is this node fit to run the run? Also ends what a former attempt left here.

Prints one line of JSON: {"fit": true} or {"fit": false, "reason": ...}.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.processes import kill_job

TIMEOUT_S = 30.0
LEAST_FREE_BYTES = 64 * 2**20  # of the run's file system


def find_fault(run_path: Path) -> str | None:
    """What is wrong with this node for the run: its directory cannot be written, or has no space."""
    probe = run_path / f".health_{os.uname().nodename}_{os.getpid()}"
    try:
        probe.write_text("fit\n")
        probe.unlink()
        free = shutil.disk_usage(run_path).free
    except OSError as error:
        return f"the run's directory cannot be written: {error.strerror} ({run_path})"
    return f"only {free / 2**20:.0f} MiB are free in {run_path}" if free < LEAST_FREE_BYTES else None


def check_node(build_remote: Callable[[list[str]], list[str]], python_path: str, run_path: Path, mark: str) -> str | None:
    """Run this module on a node; what is wrong with it, None where it is fit. build_remote: a command -> that command there."""
    words = ["env", f"PYTHONPATH={python_path}", sys.executable, "-m", "launcher.health", str(run_path), mark]
    try:
        done = subprocess.run(
            build_remote([shlex.quote(word) for word in words]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S:.0f} s"
    except OSError as error:
        return f"not reached: {error}"
    answer = _last_answer(done.stdout)
    if answer is None:
        words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"not reached: {words}"
    return None if answer["fit"] else answer["reason"]


def _last_answer(output: str) -> dict | None:
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return None


if __name__ == "__main__":
    kill_job(sys.argv[2])
    fault = find_fault(Path(sys.argv[1]))
    print(json.dumps({"fit": fault is None, "reason": fault}))
