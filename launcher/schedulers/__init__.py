"""The schedulers that can run a job. Each is a module with one contract:

check(config)                                    ConfigError where this scheduler cannot run the job
find_starter() -> str                            the program that starts the processes (mpirun, sbatch); ConfigError
build_command(config, run_path, python, starter, worker) -> list[str]    pure: a dry run prints what a run executes
"""

from types import ModuleType

from robustbert.config import ConfigError

PLANNED = ("mpi", "slurm")


def find_scheduler(name: str) -> ModuleType:
    """The scheduler called `name`; ConfigError where it is not there."""
    if name == "local":
        from launcher.schedulers import local

        return local
    if name in PLANNED:
        raise ConfigError(
            f"scheduler {name!r} is not available in this version; run on this machine with --scheduler local"
        )
    raise ConfigError(f"unknown scheduler {name!r}; known are local, {', '.join(PLANNED)}")
