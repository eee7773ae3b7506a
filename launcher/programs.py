"""The programs that a supervisor starts, each as `python -m MODULE RUN_DIR`, and the environment that they get."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import launcher


@dataclass(frozen=True)
class Programs:
    """Module names; tests put small ones in their place."""

    prepare: str = "launcher.prepare_data"
    worker: str = "launcher.worker"
    summary: str = "robustbert.train.summary"

    def as_options(self) -> list[str]:
        """The options of `launcher supervise` that say the same."""
        return [f"--{name}={module}" for name, module in vars(self).items()]


def python_path() -> str:
    """What this process imports from, as absolute folders: a child may run in another folder."""
    inherited = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return os.pathsep.join(dict.fromkeys([*inherited, str(Path(launcher.__file__).resolve().parent.parent)]))


def module_command(module: str, run_path: Path) -> list[str]:
    """The command line of one of the programs."""
    return [sys.executable, "-m", module, str(run_path)]
