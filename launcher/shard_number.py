"""tools/preprocess --shard auto: which part of the corpus this task of a cluster's job prepares."""

import os
from collections.abc import Callable, Mapping

from launcher.job_env import find_array, find_rank, has_terminal
from launcher.rendezvous import find_job
from robustbert.job import Job


class ShardError(ValueError):
    """The environment does not say which part this is; the message names the way out."""


def find_shard(environ: Mapping[str, str] = os.environ, find_job: Callable[..., Job] = find_job) -> tuple[int, int]:
    """This task's number and the number of tasks: of a Slurm array, an srun, mpirun or torchrun, or of an array's tasks that have their own.

    Variables can be left over from another job, and a part would be missing unseen: torchrun's agent and MPI are asked (find_job), srun's
    tasks counted only without a terminal. ValueError: one task only, announced ones that are not there, or an array that is no whole one.
    """
    array, place = find_array(environ), find_rank(environ)
    index, count = (0, 1) if array is None else _place_in_array(*array)
    if place.starter == "batch" and array is not None:
        pass  # the batch script of an array's task is alone, whatever it has announced for srun
    elif place.starter == "batch" and place.is_job:
        raise ShardError(
            f"--shard auto: {place.world_size} tasks were announced ({place.described(environ)}) and 1 is here, the batch script itself: "
            "start this command with srun, or submit the script with --array=0-N"
        )
    elif place.starter == "env" and place.is_job:
        raise ShardError(f"--shard auto: nothing tells whether {place.described(environ)} are this job's; say --shard I/N")
    elif place.starter == "slurm" and place.is_job and has_terminal(environ):
        raise ShardError(
            f"--shard auto: {place.world_size} tasks were announced ({place.described(environ)}) and 1 is here, an interactive shell: start "
            "this command with srun, without --pty"
        )
    elif place.is_job:
        job = Job(place.rank, place.world_size) if place.starter == "slurm" else find_job(environ=environ)
        index, count = index * job.world_size + job.rank, count * job.world_size
    if count == 1:
        raise ShardError(
            "--shard auto needs a job of several tasks (sbatch --array, srun, mpirun, torchrun), and this is one; say --shard I/N, or leave it out"
        )
    return index, count


def _place_in_array(number: int, first: int, last: int, step: int, count: int) -> tuple[int, int]:
    if first not in (0, 1) or (last - first) // step + 1 != count:
        raise ShardError(
            f"--shard auto takes an array from 0 or 1 on without gaps, and this one has {count} tasks of {first}-{last}: for parts that are "
            "prepared again say --shard I/N, with the N of the first time"
        )
    return (number - first) // step, count
