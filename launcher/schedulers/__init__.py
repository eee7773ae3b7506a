"""The schedulers that can run a job. Each is a module with one contract:

check(config)                                    ConfigError where this scheduler cannot run the job
find_starter() -> str                            the program that starts the processes (mpirun, sbatch); ConfigError
node_names(config) -> list[str]                  the nodes that may be used, spare ones last
build_command(config, run_path, python, starter, worker, nodes) -> list[str]    pure: a dry run prints what a run executes
"""

from types import ModuleType

from robustbert.config import ConfigError

PLANNED = ("slurm",)


def find_scheduler(name: str) -> ModuleType:
    """The scheduler called `name`; ConfigError where it is not there."""
    if name == "local":
        from launcher.schedulers import local

        return local
    if name == "mpi":
        from launcher.schedulers import mpi

        return mpi
    if name in PLANNED:
        raise ConfigError(
            f"scheduler {name!r} is not available in this version; use --scheduler mpi with cluster.hosts, or --scheduler local"
        )
    raise ConfigError(f"unknown scheduler {name!r}; known are local, mpi, {', '.join(PLANNED)}")
