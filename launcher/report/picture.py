"""A picture of a report, taken by a Chromium without a window."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from robustbert.config import ConfigError

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# No first-run pages, no updates, no network of its own.
_QUIET = (
    "--headless --no-sandbox --disable-gpu --hide-scrollbars --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
_WIDTH = 1400
_DRAWING_MS = 10_000  # of virtual time: at most, for scripts
_TIMEOUT_S = 120.0


def find_chromium() -> str:
    """The path of the browser; ConfigError where there is none."""
    for program in _PROGRAMS:
        if path := shutil.which(program):
            return path
    raise ConfigError("--png needs Chromium, which is not on PATH; install it (Debian: apt install chromium), or leave --png out")


def take_picture(page: Path, picture: Path, width: int = _WIDTH, height: int | None = None) -> None:
    """Draw a page in full length (or its first `height` pixels) into a PNG; ConfigError with the browser's words where it fails."""
    page = page.absolute()
    if height is None:
        found = re.search(r'data-height="(\d+)"', _browse("--dump-dom", f"--window-size={width},1000", page))
        height = int(found[1]) if found else 2400
    picture.unlink(missing_ok=True)
    said = _browse(f"--screenshot={picture.absolute()}", f"--window-size={width},{height}", page)
    if not picture.exists():
        raise ConfigError(f"{picture} was not written by {find_chromium()}: {(said.strip().splitlines() or ['no reason given'])[-1]}")


def _browse(*words) -> str:
    *options, page = words
    with tempfile.TemporaryDirectory(prefix="robustbert_chromium_") as profile:
        command = [find_chromium(), *_QUIET, f"--user-data-dir={profile}", f"--virtual-time-budget={_DRAWING_MS}"]
        try:
            done = subprocess.run([*command, *options, page.as_uri()], capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{command[0]} has not drawn {page} within {_TIMEOUT_S:.0f} s; open the page in a browser") from None
    return done.stdout or done.stderr
