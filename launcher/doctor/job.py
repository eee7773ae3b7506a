"""The job that measures its own all-reduce, started by the run's scheduler as training is."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType

from launcher.job_env import rank_environment
from launcher.processes import JOB_MARK, kill_job
from launcher.programs import python_path
from launcher.pulse import ADDRESS_VARIABLE
from launcher.schedulers import has_queue
from robustbert.config import RunConfig

TIMEOUT_S = 300


def measure_all_reduce(config: RunConfig, scheduler: ModuleType, starter: str, nodes: list[str], folder: Path) -> dict | str:
    """What rank 0 of launcher.doctor.all_reduce found, or why there is nothing.

    A start that fails is tried once more; `first_failure` then says what happened to the first.
    """
    if config.cluster.num_processes == 1:
        return {"processes": 1, "backend": None, "bytes_per_s_of_mib": {}}
    command = scheduler.build_command(config.cluster, folder, sys.executable, starter, "launcher.doctor.all_reduce", nodes)
    first = _run(command, config, in_allocation=has_queue(scheduler), record=folder / "all_reduce.json")
    if isinstance(first, dict) or first.startswith("did not end"):
        return first
    second = _run(command, config, in_allocation=has_queue(scheduler), record=folder / "all_reduce.json")
    return second | {"first_failure": first} if isinstance(second, dict) else second


def _run(command: list[str], config: RunConfig, in_allocation: bool, record: Path) -> dict | str:
    mark = f"doctor-{uuid.uuid4().hex}"
    environment = rank_environment(
        os.environ, config.cluster.processes_per_node, os.cpu_count() or 1, python_path(), in_allocation=in_allocation
    )
    environment |= {JOB_MARK: mark, ADDRESS_VARIABLE: ""}  # no supervisor listens
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {TIMEOUT_S} s"
    except OSError as error:
        return f"failed: {error}"
    finally:
        kill_job(mark)
    if record.exists():
        return json.loads(record.read_text())
    return f"failed: {find_reason(done.stdout + done.stderr) or f'exit code {done.returncode}'}"


def find_reason(output: str) -> str:
    """A process' own error where there is one, else mpirun's last paragraph (it puts lines of dashes around each)."""
    errors = [line.strip() for line in output.splitlines() if re.match(r"\s*[\w.]*(Error|Exception)\b", line)]
    paragraphs = [" ".join(text.split()) for text in re.split(r"^-{10,}$", output, flags=re.MULTILINE)]
    return (errors or [text for text in paragraphs if text] or [""])[-1]
