"""A benchmark's record: its figures with the machine, the commit and the versions they were seen with."""

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def write_record(file: Path, title: str, command: str, cores: str, libraries: tuple[str, ...], lines: list[str]) -> None:
    """Write the Markdown file and say where; cores: which of the machine's were used, as text."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    versions = ", ".join(f"{name} {_version(name)}" for name in libraries)
    text = [
        f"# {title}, {date.today().isoformat()}",
        "",
        f"- machine: {cpu}, {os.cpu_count()} cores{cores}; {platform.system()}, Python {platform.python_version()}",
        f"- commit: on top of {commit}; {versions}",
        f"- command: `{command}`",
        *("", "```", *lines, "```", ""),
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(text), encoding="utf-8")
    print(f"\nwritten to {file}")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
