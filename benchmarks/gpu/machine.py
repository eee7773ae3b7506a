"""What the machine is: cards, driver, versions. `python -m benchmarks.gpu.machine` prints it as JSON.

In a process of its own, so that the script itself holds no memory of a card.
"""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

_NEEDED = (
    "torch",
    "megatron",
    "mpi4py",
    "psutil",
    "xxhash",
    "yaml",
    "tokenizers",
    "transformers",
    "safetensors",
    "prometheus_client",
    "rich",
)


def missing_packages() -> list[str]:
    """The modules without which no stage runs, as far as they are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def describe() -> dict:
    """cards: name, bytes, compute capability; versions as text, None where absent."""
    import torch

    cards = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(number)
        cards.append({"name": found.name, "bytes": found.total_memory, "capability": f"{found.major}.{found.minor}"})
    return {
        "cards": cards,
        "driver": _driver() if cards else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cards else None,
        "cudnn": torch.backends.cudnn.version() if cards else None,
        "megatron_core": _version("megatron-core"),
        "transformers": _version("transformers"),
        "apex": _has_apex(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def find() -> dict:
    """describe() by another process. RuntimeError with its last line where that fails."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu.machine"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def one_line(machine: dict) -> str:
    """The cards and the versions, for a record."""
    cards = machine["cards"]
    names = f"{len(cards)} x {cards[0]['name']} ({cards[0]['bytes'] / 2**30:.0f} GiB)" if cards else "no card (CPU)"
    versions = [
        f"driver {machine['driver']}",
        f"torch {machine['torch']}",
        f"NCCL {machine['nccl']}",
        f"cuDNN {machine['cudnn']}",
    ]
    return ", ".join([names, *(text for text in versions if not text.endswith("None")), f"{machine['cores']} cores"])


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return (subprocess.run(query, capture_output=True, text=True).stdout.split() or [None])[0]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _has_apex() -> bool:
    try:
        from apex.optimizers import FusedAdam  # noqa: F401  PyPI's `apex` is another project and has no such module
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(describe()))
