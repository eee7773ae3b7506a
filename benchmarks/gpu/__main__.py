"""`python -m benchmarks.gpu`: check and measure this project on the GPUs of this machine, within the minutes given.

Runs stage after stage, the most telling first, each in a process of its own with its own time limit: what fails or hangs ends
neither the others nor the script. Checks run side by side, measurements alone. Ends with one table; DIR gets the numbers
(JSON), one log, a trace and the record. The exit code is 0 if every stage that ran is ok, 1 if not, 2 if nothing could run, 130 if interrupted.
"""

import argparse
import contextlib
import dataclasses
import io
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu import machine
from benchmarks.gpu.context import Settings
from benchmarks.gpu.record import record_file, write_dated_record, write_output
from benchmarks.gpu.stages import GROUPS, STAGES, Outcome, UnknownStage, choose
from benchmarks.gpu.table import describe, progress_line

_EXAMPLE = f"""examples:
  python -m benchmarks.gpu --minutes 9.5 --output out --record
  python -m benchmarks.gpu --minutes 4 --output out --stages rates,speed-base,profile
  python -m benchmarks.gpu --minutes 10 --output out --rehearse         # every stage on the CPU at tiny sizes: no figures

stages: {", ".join(stage.name for stage in STAGES)}
groups: {", ".join(GROUPS)}
"""
_LAST_WORDS_S = 4.0  # kept for the table and the files
_CORES_A_CHECK = 4
_REHEARSAL_LIMIT_S = 300.0  # of a stage


class NothingToRun(ValueError):
    """The command cannot be used here; the message is one line."""


def main(arguments: list[str] | None = None) -> int:
    """Run the stages; returns the exit code."""
    started = time.monotonic()
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        stages = choose(options.stages)
        settings = _settings(options)
    except (NothingToRun, UnknownStage, RuntimeError) as error:
        print(f"benchmarks.gpu: error: {error}", file=sys.stderr)
        return 2
    title = (
        f"rehearsal on CPU, no figures ({machine.one_line(settings.machine)})"
        if options.rehearse
        else machine.one_line(settings.machine)
    )
    command = "python -m benchmarks.gpu " + shlex.join(arguments)
    print(title, flush=True)
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(progress_line(outcome, time.monotonic() - started), flush=True)
        write_output(options.output, settings, outcomes)
        with contextlib.redirect_stdout(io.StringIO()):
            write_dated_record(
                options.output / "record.md", settings, command, describe(outcomes, title, options.rehearse), options.rehearse
            )

    if options.rehearse:  # on a CPU that others use as well
        stages = [dataclasses.replace(stage, limit_s=max(stage.limit_s, _REHEARSAL_LIMIT_S)) for stage in stages]
    seconds = 60 * options.minutes - (time.monotonic() - started) - _LAST_WORDS_S
    workers = 2 if options.rehearse else max(1, min(4, settings.machine["cores"] // _CORES_A_CHECK))
    from benchmarks.gpu.runner import Runner  # psutil: only now it is known to be there

    was_interrupted = False
    try:
        Runner(settings, seconds, workers, report).run(stages)
    except KeyboardInterrupt:
        was_interrupted = True
        print("interrupted: the table has what has ended", file=sys.stderr)
    table = describe(outcomes, title, options.rehearse)
    if options.record and outcomes:
        write_dated_record(record_file(settings.machine), settings, command, table, options.rehearse)
    print("\n" + "\n".join(table), flush=True)
    if was_interrupted:
        return 130
    return 0 if all(outcome.result in ("ok", "skipped") for outcome in outcomes) else 1


def _settings(options: argparse.Namespace) -> Settings:
    if options.record and options.rehearse:
        raise NothingToRun("--record writes figures down, and a rehearsal has none; leave one of the two out")
    if options.minutes <= 0:
        raise NothingToRun(f"--minutes must be above 0, it is {options.minutes:g}")
    if missing := machine.missing_packages():
        raise NothingToRun(
            f"{', '.join(missing)} not installed; pip install ., or carry wheels: python -m benchmarks.gpu.wheels --help"
        )
    found = machine.find()
    if not found["cards"] and not options.rehearse:
        raise NothingToRun(
            "no CUDA GPU is visible here (torch.cuda.is_available() is false); --rehearse runs every stage on the CPU"
        )
    default = Path(tempfile.gettempdir()) / ("robustbert_gpu_rehearsal" if options.rehearse else "robustbert_gpu")
    work = (options.work or default).absolute()
    stale = [folder for folder in work.glob("*") if folder.is_dir() and folder.name in {stage.name for stage in STAGES}]
    for folder in stale:  # runs of an earlier call; the prepared data stays
        shutil.rmtree(folder)
    options.output = options.output.absolute()
    data = options.data.absolute() if options.data else None
    library = options.nccl_library.absolute() if options.nccl_library else None
    return Settings(options.rehearse, work, found | ({"cards": []} if options.rehearse else {}), data, library)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--minutes",
        type=float,
        required=True,
        metavar="N",
        help="all of it, start-up and table included; what does not fit is skipped",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="at most 8 files, each below 16 MB")
    add("--stages", metavar="A,B", help="stages or groups, comma-separated; default: all")
    add("--record", action="store_true", help="also write a dated record under benchmarks/records/")
    add("--rehearse", action="store_true", help="on the CPU, tiny: tries the script itself, says nothing of a GPU")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="prepared data (a run's data folder: tokenizer/, train*, valid*), with glue/ to finetune on",
    )
    add("--work", type=Path, metavar="DIR", help="scratch folder, prepared data is kept in it (default: in the temporary folder)")
    add("--nccl-library", type=Path, metavar="FILE", help="libnccl.so of 2.30 or later, preloaded where two ranks share a card")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends the script ends its stages as well
    sys.exit(main())
