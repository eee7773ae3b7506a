"""The `launcher` command: which function answers each of its verbs, and what becomes of its errors."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from launcher.parsers import NOT_USABLE, build_parsers
from launcher.programs import Programs
from robustbert.interruption import ends_by_signals
from robustbert.run_directory import RunDirectory

BROKEN_PIPE = 141  # exit code: 128 + SIGPIPE, as of other commands

# Module and function of each verb, imported when it is asked for.
_ANSWERS = {
    "submit": ("launcher.submit", "submit"),
    "resume": ("launcher.resume", "resume"),
    "plan": ("launcher.plan", "plan"),
    "doctor": ("launcher.doctor.command", "doctor"),
    "sweep": ("launcher.sweep.command", "sweep"),
    "status": ("launcher.control", "status"),
    "logs": ("launcher.control", "logs"),
    "cancel": ("launcher.control", "cancel"),
    "signal": ("launcher.control", "send_signal"),
    "report": ("launcher.report.command", "report"),
    "top": ("launcher.top", "top"),
    "monitor": ("launcher.monitor", "monitor"),
}
_START_PROGRAMS = ("submit", "resume", "sweep")


def main(argv: list[str] | None = None, programs: Programs = Programs()) -> int:
    """Run one command; returns its exit code: 0, 1 failed, 2 not usable, 75 preempted. Ctrl-C ends it with 130, SIGTERM with 143."""
    argv = sys.argv[1:] if argv is None else argv
    parser, verbs = build_parsers()
    if not argv or argv[0] not in verbs:
        parser.parse_args(argv or ["--help"])  # --help or an error, both of which end the program
    options = verbs[argv[0]].parse_intermixed_args(argv[1:])  # overrides may stand between the options
    with ends_by_signals("launcher"):
        return _answer_or_say_why(argv[0], options, programs)


def _answer_or_say_why(verb: str, options: argparse.Namespace, programs: Programs) -> int:
    try:
        return _answer(verb, options, programs)
    except ValueError as error:  # ConfigError, and what the data and the data's files are refused with
        print(f"launcher: error: {' '.join(str(error).split())}", file=sys.stderr)
        return NOT_USABLE
    except BrokenPipeError:  # whoever read the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        print(f"launcher: error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return NOT_USABLE


def _answer(verb: str, options: argparse.Namespace, programs: Programs) -> int:
    if verb == "supervise":
        from launcher.supervise import supervise

        programs = Programs(options.prepare, options.worker, options.summary)
        return supervise(RunDirectory(Path(options.run_dir).absolute()), programs, options.lock)
    module, name = _ANSWERS[verb]
    function = getattr(importlib.import_module(module), name)
    return function(options, programs) if verb in _START_PROGRAMS else function(options)
