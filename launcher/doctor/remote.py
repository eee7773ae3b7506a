"""Asks one node: starts its check there, takes its lines as they come, tells how far its clock is off."""

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator

from launcher.doctor.judgement import Answer


def ask_node(node: str, command: list[str], timeout_s: float) -> Answer:
    """The answer of node_check, started by `command`; where there is none, one line that says why."""
    asked_at = time.time()
    lines: list[tuple[float, dict]] = []
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        except OSError as error:
            return Answer(node, None, f"not reached: {error}")
        with process.stdout:
            try:
                for came_at, line in _timed_lines(process.stdout.fileno(), time.monotonic() + timeout_s):
                    if line.startswith(b"{"):
                        lines.append((came_at, json.loads(line)))
                process.wait(timeout=timeout_s)
            except (TimeoutError, subprocess.TimeoutExpired):
                words = f": {_last_line(errors)}" if lines else ""  # what it was about to measure
                return Answer(node, None, f"no answer within {timeout_s:.0f} s{words}")
            finally:
                process.kill()  # of no effect where it has ended; on another node it ends itself (node_check)
                process.wait()
        if len(lines) < 2 or process.returncode:
            where = "its check failed" if lines else "not reached"
            return Answer(node, None, f"{where}: {_last_line(errors) or f'exit code {process.returncode}'}")
    difference, uncertainty = clock_difference(asked_at, [(came_at, line["clock"]) for came_at, line in lines])
    return Answer(node, lines[-1][1], clock_difference_s=difference, clock_uncertainty_s=uncertainty)


def clock_difference(asked_at: float, stamps: list[tuple[float, float]]) -> tuple[float, float]:
    """By how much the node's clock is ahead, and give or take how much, both in seconds.

    stamps: (when it came here, when it was written there). Each was written after asked_at and before it came, which bounds
    the difference from above and below.
    """
    most = min(there - asked_at for _, there in stamps)
    least = max(there - here for here, there in stamps)
    return (most + least) / 2, abs(most - least) / 2


def _timed_lines(descriptor: int, deadline: float) -> Iterator[tuple[float, bytes]]:
    """Each line with the time at which it came; TimeoutError at the deadline, whoever still holds the pipe."""
    text = b""
    while True:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        piece, came_at = os.read(descriptor, 1 << 16), time.time()
        if not piece:
            return
        *whole, text = (text + piece).split(b"\n")
        yield from ((came_at, line) for line in whole)


def _last_line(errors) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
