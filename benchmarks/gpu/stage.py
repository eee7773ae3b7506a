"""`python -m benchmarks.gpu.stage NAME TARGET LIMIT_S SETTINGS`: one stage in a process of its own; its result is a JSON file."""

import importlib
import os
import sys
import time
import traceback
import warnings

from benchmarks.gpu.context import Context, Settings


def run_target(context: Context, target: str) -> None:
    """Call the function; its result, and in an error the last line, is written down."""
    started = time.monotonic()
    try:
        module, _, function = target.partition(":")
        text = getattr(importlib.import_module(module), function)(context)
        result = "failed" if context.failures else "ok"
        if context.failures:
            text = f"FAILED: {', '.join(context.failures)}; {text}"
    except BaseException as error:  # also SystemExit: whatever ends a stage early is its result
        traceback.print_exc()
        result, text = "error", error_line(error)
    context.write(result, " ".join(str(text).split()), time.monotonic() - started)


def error_line(error: BaseException) -> str:
    """Kind and message of an error, as its traceback ends; of a message of several lines the first."""
    return traceback.format_exception_only(error)[-1].strip().splitlines()[0].removeprefix("benchmarks.gpu.")


def main(arguments: list[str]) -> None:
    name, target, limit_s, settings = arguments
    warnings.filterwarnings("ignore", module="megatron")  # at its import it warns about all that could be installed
    run_target(Context(name, Settings.from_json(settings), float(limit_s)), target)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # not through the end of a broken CUDA context or process group, which may hang


if __name__ == "__main__":
    main(sys.argv[1:])
