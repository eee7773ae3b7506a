"""The kernels' library: compiled once for this machine's processor, kept in the user's cache, and loaded.

Nothing here is needed to install the package: without a compiler (or where anything else fails) there are no kernels, and what
would call them computes with torch's operators.
"""

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

SOURCES = ("attention.cpp", "elementwise.cpp")
HEADERS = ("vectors.h", "dropout.h", "products.h")
# Without -ffast-math: it would reorder what keeps exp exact.
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp")
_TIMEOUT_S = 120
_OPENMP = re.compile(r"/\S*lib(?:gomp|iomp5|omp)[^/]*\.so[^/\s]*$")


class Kernels(NamedTuple):
    """library: None if there is none, and then `missing` says why, in words that follow "because"."""

    library: ctypes.CDLL | None
    missing: str = ""


@functools.cache
def load_kernels() -> Kernels:
    """The library of this process. The first call on a machine compiles it in some seconds; call it after `import torch`."""
    compiler = shutil.which("g++")
    if compiler is None:
        return Kernels(None, "there is no C++ compiler (g++)")
    try:
        library = ctypes.CDLL(str(_built(compiler, _openmp_library())))
        library.numbers_of_a_chunk.restype = ctypes.c_long
        return Kernels(library)
    except subprocess.TimeoutExpired:
        return Kernels(None, f"g++ took longer than {_TIMEOUT_S} s")
    except subprocess.CalledProcessError as error:
        return Kernels(None, f"g++ failed: {_first_error(error.stderr)}")
    except OSError as error:
        return Kernels(None, str(error))


def _built(compiler: str, openmp: str) -> Path:
    """The library's path; of several processes that ask at once, one compiles."""
    folder = _cache_folder() / _fingerprint(compiler, openmp)
    library = folder / "kernels.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                _compile(compiler, openmp, library)
    return library


def _compile(compiler: str, openmp: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        for name in (*SOURCES, *HEADERS):
            (Path(scratch) / name).write_text(_source(name))
        draft = Path(scratch) / library.name
        # Linked with the OpenMP that torch has loaded: a second one would have threads of its own beside torch's.
        objects = [str(Path(scratch) / f"{name}.o") for name in SOURCES]
        commands = [[compiler, *FLAGS, "-c", str(Path(scratch) / name), "-o", target] for name, target in zip(SOURCES, objects)]
        commands.append([compiler, "-shared", *objects, openmp, "-o", str(draft)])
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
        os.replace(draft, library)


def _fingerprint(compiler: str, openmp: str) -> str:
    """Changes with everything that the library depends on: its source, the compiler, the processor, torch's OpenMP."""
    version = subprocess.run([compiler, "-dumpfullversion"], check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout
    parts = [_source(name) for name in (*SOURCES, *HEADERS)] + [*FLAGS, compiler, version, openmp, _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What -march=native looks at."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.exists() else []
    kept = [line for line in lines if line.startswith(("model", "vendor_id", "cpu family", "flags", "CPU ", "Features"))]
    return "\n".join([platform.machine(), *kept])


def _openmp_library() -> str:
    """The OpenMP library that is loaded in this process. OSError if there is none."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.exists() else []:
        if found := _OPENMP.search(line):
            return found[0]
    raise FileNotFoundError("torch has loaded no OpenMP library")


def _cache_folder() -> Path:
    """The user's cache; a folder for this process' user in the system's temporary one if the home cannot be written."""
    folder = Path.home() / ".cache" / "robustbert" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    own = Path(tempfile.gettempdir()) / f"robustbert-kernels-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    status = own.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or own.is_symlink():
        raise PermissionError(f"{own} belongs to somebody else")  # what lies there would be run
    return own


def _source(name: str) -> str:
    return (resources.files(__package__) / "source" / name).read_text()


def _first_error(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else "without a word")
