"""HardwareProfile: what a kind of machine can do, read from YAML; every figure there names its source or says that it is assumed."""

from dataclasses import dataclass
from pathlib import Path

from robustbert.config import ConfigError, load_dataclass

FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Rates:
    """Operations a second in each precision."""

    fp16: float
    bf16: float
    fp32: float

    def of(self, precision: str) -> float:
        return getattr(self, precision)


@dataclass(frozen=True)
class HardwareProfile:
    """One process' device, its node and the network between nodes. Bytes, seconds, operations a second."""

    name: str
    device: str | None  # a part of the name by which CUDA calls it
    kernels: str  # whose habits the operators have: "cuda" or "cpu"
    memory_bytes: float  # of a device
    reserved_bytes: float  # of it, not for tensors
    peak_flops: Rates
    matmul_flops: Rates  # what large products reach
    memory_bytes_per_s: float  # read and written, what a copy reaches
    operator_s: float  # the least time from one operator's start to the next one's
    link_bytes_per_s: float  # out of a process, within its node
    network_bytes_per_s: float  # out of a node, shared by its processes
    link_latency_s: float
    network_latency_s: float
    host_bytes_per_s: float  # from the device's memory to the host's
    checkpoint_start_s: float  # training stands still for so long beside the copy
    restart_s: float  # from a failure until training goes on

    def fits(self, num_bytes: float) -> bool:
        """Whether a process' tensors of so many bytes have room on the device."""
        return num_bytes + self.reserved_bytes <= self.memory_bytes


def profile_names() -> list[str]:
    """The names of the profiles that come with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_profile(name: str) -> HardwareProfile:
    """One of profile_names(), or a YAML file of the same keys. ConfigError where there is none or a key is wrong."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(f"no hardware profile {name!r}; there are {', '.join(profile_names())}, or give a YAML file")
    return load_dataclass(HardwareProfile, path)
