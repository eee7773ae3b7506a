"""`python -m benchmarks.gpu.train_job SPEC.json`: a session in processes of its own, as on another device or on several ranks.

train_in_processes() starts them; each leaves its losses in a file, and the first that fails ends the others.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu.context import ROOT
from benchmarks.gpu.runner import last_line

# Without these an inherited job would be taken for this one.
_RANK_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_START_TIMEOUT_S = 120.0  # torch is imported before the processes meet


@dataclass(frozen=True)
class TrainSpec:
    """What to train. run: a run directory with its data; steps: to which step; backend: on one CUDA card, other than NCCL's own choice."""

    config: str
    overrides: list[str]
    run: str
    steps: int
    resume: bool = False
    save: bool = False
    card: int | None = None  # all ranks on this card, whatever Device.detect would choose
    backend: str = "nccl"  # with `card`


class TrainingFailed(RuntimeError):
    """A process failed or did not end in time; the message is what it said last."""


def train_in_processes(
    spec: TrainSpec, timeout_s: float, num_ranks: int = 1, on_cpu: bool = False, environment: dict[str, str] | None = None
) -> list[dict]:
    """The logged lines of rank 0. TrainingFailed with the failing rank's error."""
    run = Path(spec.run)
    port = _free_port()
    files = [run / f"job_{spec.steps}_rank_{rank}" for rank in range(num_ranks)]
    processes = []
    for rank, file in enumerate(files):
        file.with_suffix(".json").write_text(json.dumps(asdict(spec)))
        place = {"RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        own = {name: str(value) for name, value in place.items()} if num_ranks > 1 else {}
        own |= ({"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}) | (environment or {})
        inherited = {name: value for name, value in os.environ.items() if name not in _RANK_NAMES}
        with open(file.with_suffix(".log"), "wb") as log:
            command = [
                sys.executable,
                "-m",
                "benchmarks.gpu.train_job",
                str(file.with_suffix(".json")),
                str(file.with_suffix(".out")),
            ]
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=inherited | own,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
    try:
        _wait(processes, files, timeout_s)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return json.loads(files[0].with_suffix(".out").read_text())


def _wait(processes: list[subprocess.Popen], files: list[Path], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        codes = [process.poll() for process in processes]
        failed = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
        if failed:
            time.sleep(0.5)  # for the rank that failed first to have written its error
            raise TrainingFailed(f"rank {failed[0]}: {last_line(files[failed[0]].with_suffix('.log'))}")
        if all(code == 0 for code in codes):
            return
        if time.monotonic() > deadline:
            late = codes.index(None)
            raise TrainingFailed(
                f"rank {late} had not ended after {timeout_s:.0f} s; last: {last_line(files[late].with_suffix('.log'))}"
            )
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(spec: TrainSpec) -> list[dict]:
    """One rank, in this process."""
    import torch

    from benchmarks.gpu.session import open_session
    from launcher.rendezvous import find_job
    from robustbert.config import load_config
    from robustbert.device import Device
    from robustbert.run_directory import RunDirectory

    device = None
    if spec.card is not None:
        torch.cuda.set_device(spec.card)
        device = Device(torch.device("cuda", spec.card), spec.backend)
    config, run = load_config(spec.config, spec.overrides), RunDirectory(Path(spec.run))
    with open_session(config, run, find_job(_START_TIMEOUT_S), device, resume=spec.resume) as session:
        while session.state.step < spec.steps:
            session.step()
        if spec.save:
            session.checkpoints.finish()
        return session.lines()


def main(arguments: list[str]) -> None:
    """Train, write the lines, and leave at once: the end of a process group may hang."""
    warnings.filterwarnings("ignore", module="megatron")
    spec = TrainSpec(**json.loads(Path(arguments[0]).read_text()))
    code = 1
    try:
        lines = train(spec)
        draft = Path(arguments[1] + ".draft")
        draft.write_text(json.dumps(lines))
        os.replace(draft, arguments[1])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
