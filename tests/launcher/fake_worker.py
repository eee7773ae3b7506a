"""Stands in for the training, behind the real worker entry. FAKE_TRAINING says how it behaves."""

import os
import signal
import socket
import subprocess
import sys
import time

from launcher.worker import main

STEP_S = 0.03


def train(config, job, run) -> str:
    """Log `train.steps` steps, save at checkpoint.interval, stop on SIGUSR1; misbehave on rank 1 at step 3 if so asked."""
    meet(job)
    behaviour = os.environ.get("FAKE_TRAINING", "finish")
    stop = []
    signal.signal(signal.SIGUSR1, (lambda *_: None) if behaviour.startswith("deaf") else (lambda *_: stop.append(1)))
    if behaviour.startswith("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "300"], start_new_session=True)  # a helper outside mpirun's sight
    saved = sorted(run.checkpoints.glob("step_*/COMMITTED"))
    first = int(saved[-1].parent.name.removeprefix("step_")) if saved else 0
    if job.rank == 0:
        run.append_event("started", step=first, num_processes=job.world_size, layout="tp 1 x pp 1 x dp 2")
    for step in range(first + 1, config.train.steps + 1):
        time.sleep(STEP_S)
        if job.rank == 0:
            run.append_metrics(
                dict(step=step, loss=9.0 / step, perplexity=90.0, lr=1e-3, tokens_per_s=5000.0, step_time_s=STEP_S)
            )
        misbehave(behaviour, job, run, step, first)
        if step % config.checkpoint.interval == 0 or stop:
            save(job, run, step)
        if stop:
            if job.rank == 0:
                run.append_event("preempted", step=step, reason="asked to stop")
            return "preempted"
    if job.rank == 0 and behaviour != "silent":
        run.append_event("finished", step=config.train.steps, heldout_perplexity=90.0, unigram_perplexity=500.0)
    return "finished"


def meet(job) -> None:
    """Every rank reaches rank 0 at the address that the worker was told."""
    if job.world_size == 1:
        return
    if job.rank == 0:
        with socket.create_server((job.master_address, job.master_port)) as server:
            server.settimeout(20)
            ranks = {int(server.accept()[0].recv(8)) for _ in range(job.world_size - 1)}
            assert ranks == set(range(1, job.world_size))
        return
    for _ in range(200):
        try:
            with socket.create_connection((job.master_address, job.master_port)) as client:
                client.sendall(str(job.rank).encode())
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise RuntimeError("rank 0 was not there")


def misbehave(behaviour: str, job, run, step: int, first: int) -> None:
    if step != first + 3:
        return
    if job.rank == 0 and will_break(behaviour, run):
        time.sleep(60)  # as in a collective that rank 1 never joins
    if job.rank != 1:
        return
    if behaviour in ("crash", "deaf_crash"):
        raise RuntimeError("the third step broke")
    if behaviour == "user_error":
        raise ValueError("data.train: the corpus holds no sample; give more text")
    if behaviour == "kill_once" and is_first_attempt(run):
        os.kill(os.getpid(), signal.SIGKILL)


def will_break(behaviour: str, run) -> bool:
    return behaviour in ("crash", "deaf_crash", "user_error") or (behaviour == "kill_once" and is_first_attempt(run))


def is_first_attempt(run) -> bool:
    return all(event["event"] != "restarted" for event in run.events())


def save(job, run, step: int) -> None:
    folder = run.checkpoints / f"step_{step:08d}"
    if job.rank == 0 and not folder.exists():
        folder.mkdir(parents=True)
        (folder / "COMMITTED").touch()
        run.append_event("checkpoint_saved", step=step, path=str(folder), seconds=0.1)


if __name__ == "__main__":
    main(sys.argv[1:], train)
