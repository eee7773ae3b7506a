"""The options of every verb of the `launcher` command. Imports nothing that takes time: --help answers at once."""

import argparse
from collections.abc import Callable

from launcher.programs import Programs

DESCRIPTION = "Starts, watches, resumes and stops pretraining runs."
EPILOG = """\
RUN is a run's name (a folder of --dir, by default runs) or its directory.

example:
  launcher submit configs/quickstart.yaml train.steps=300
  launcher status
  launcher resume quickstart
"""
NOT_USABLE = 2  # exit code: the command or the configuration cannot be used, nothing was changed


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        command = self.prog.split()
        self.exit(NOT_USABLE, f"launcher: error: {message}; see {' '.join(command)} --help\n")


def build_parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The command's parser, and that of each verb."""
    parser = _Parser(
        prog="launcher", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(metavar="COMMAND")
    verbs: dict[str, argparse.ArgumentParser] = {}

    def verb(name: str, text: str, example: str) -> argparse.ArgumentParser:
        verbs[name] = subparsers.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return verbs[name]

    _add_submit(verb)
    _add_plan(verb)
    _add_doctor(verb)
    _add_sweep(verb)
    _add_run_verbs(verb)
    _add_monitoring_verbs(verb)
    supervise = verb(
        "supervise",
        "what a scheduler starts: prepare, train and restart a run in the foreground, until it ends",
        "  launcher supervise runs/quickstart      # exit code 0 finished, 1 failed, 75 asked to stop (requeue it), 130 cancelled",
    )
    supervise.add_argument("run_dir", metavar="RUN_DIR", help="the run's directory")
    supervise.add_argument("--lock", type=int, metavar="DESCRIPTOR", help=argparse.SUPPRESS)
    for name, default in vars(Programs()).items():
        supervise.add_argument(f"--{name}", default=default, metavar="MODULE", help=argparse.SUPPRESS)
    return parser, verbs


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the run's YAML file")
    parser.add_argument(
        "overrides", metavar="section.key=value", nargs="*", help="replaces a value of the file; parsed as YAML"
    )


def _add_submit(verb: Callable) -> None:
    submit = verb(
        "submit",
        "start a run from a YAML file and show its progress",
        "  launcher submit configs/quickstart.yaml train.steps=300 optim.lr=4e-4\n"
        "  launcher submit configs/quickstart.yaml --dry-run",
    )
    _add_config(submit)
    submit.add_argument(
        "--scheduler", metavar="NAME", help="where it runs: local, mpi, slurm; default: cluster.scheduler"
    )
    submit.add_argument(
        "--dry-run", action="store_true", help="print the layout, the commands, the configuration; change nothing"
    )
    submit.add_argument("--detach", action="store_true", help="run in the background")


def _add_plan(verb: Callable) -> None:
    plan = verb(
        "plan",
        "the layout of a run, its memory, work and traffic, and projections of its time, cost and failures",
        "  launcher plan configs/large_500k.yaml model.vocab_size=50265\n"
        "  launcher plan configs/large_500k.yaml model.vocab_size=50265 parallel.tensor=8 parallel.pipeline=4 --json\n"
        "  launcher plan configs/large_500k.yaml model.vocab_size=50265 --search --hardware a100",
    )
    _add_config(plan)
    plan.add_argument("--json", action="store_true", help="for a script")
    plan.add_argument("--search", action="store_true", help="look for the fastest layout of these processes that fits")
    plan.add_argument(
        "--hardware",
        default="v100_dgx1",
        metavar="NAME",
        help="v100_dgx1 (default), a100, h100, h200, cpu_2_cores, or a YAML file of their keys",
    )
    plan.add_argument(
        "--node-days", type=float, metavar="N", help="days of a node between its failures (default: 264, of a published run)"
    )


def _add_doctor(verb: Callable) -> None:
    doctor = verb(
        "doctor",
        "are the nodes of a run fit for it? rates, versions, space, data; slow ones are named",
        "  launcher doctor configs/quickstart.yaml\n"
        "  launcher doctor my.yaml --scheduler mpi cluster.hostfile=hosts.txt cluster.nodes=4 --exclude-file unfit.yaml",
    )
    _add_config(doctor)
    doctor.add_argument("--scheduler", metavar="NAME", help="local, mpi, slurm (inside an allocation)")
    doctor.add_argument("--json", action="store_true", help="for a script")
    doctor.add_argument(
        "--slow-below", type=float, default=0.8, metavar="SHARE", help="of the nodes' median rate (default: 0.8)"
    )
    doctor.add_argument("--megabytes", type=int, default=256, metavar="N", help="written and copied as a test (default: 256)")
    doctor.add_argument(
        "--exclude-file", metavar="FILE", help='add unfit nodes to this YAML list, for cluster.exclude="$(cat FILE)"'
    )


def _add_sweep(verb: Callable) -> None:
    sweep = verb(
        "sweep",
        "many runs or commands, each once; going on with a sweep runs what is missing",
        "  launcher sweep configs/quickstart.yaml --over optim.lr=[5e-4,1e-3] --over run.seed=[1,2] train.steps=300\n"
        "  launcher sweep runs/sweep-quickstart                       # go on: failed members are tried again\n"
        "  launcher sweep runs/sweep-quickstart --status\n"
        "  launcher sweep sweeps/glue --scheduler slurm --parallel 16 cluster.partition=gpu cluster.gpus_per_node=1",
    )
    sweep.add_argument("target", metavar="CONFIG|FOLDER", help="a YAML file with --over, or the folder of a sweep (with sweep.json)")
    sweep.add_argument(
        "overrides", metavar="section.key=value", nargs="*", help="replaces a value; of a FOLDER: only of the section cluster"
    )
    sweep.add_argument(
        "--over", action="append", metavar="section.key=[...]", help="values to try; given several times: every combination"
    )
    sweep.add_argument("--scheduler", metavar="NAME", help="where members run: local, mpi (on every host), slurm (a job array)")
    sweep.add_argument(
        "--parallel", type=int, metavar="N", help="members at once, of mpi on each host (default: 1; slurm: as many as it lets)"
    )
    sweep.add_argument("--folder", metavar="FOLDER", help="of a new sweep (default: RUN_DIR/sweep-NAME)")
    sweep.add_argument("--dry-run", action="store_true", help="print the members and the commands; change nothing")
    sweep.add_argument("--detach", action="store_true", help="run in the background, or do not watch the queue")
    sweep.add_argument("--status", action="store_true", help="a table of the members")
    sweep.add_argument("--cancel", action="store_true", help="stop the members that run; the sweep can go on later")


def _add_run_verbs(verb: Callable) -> None:
    status = verb(
        "status", "the state of a run, or a table of all runs", "  launcher status\n  launcher status quickstart"
    )
    logs = verb("logs", "what the processes of a run print", "  launcher logs quickstart --rank 1 --follow")
    cancel = verb("cancel", "stop a run after it has saved a checkpoint", "  launcher cancel quickstart")
    resume = verb(
        "resume",
        "continue a stopped, failed or interrupted run; what a change means is shown, what cannot be changed is refused",
        "  launcher resume quickstart\n  launcher resume quickstart train.steps=3000",
    )
    signals = verb(
        "signal",
        "send the notice that a scheduler sends, or another signal, to the supervisor of a run",
        "  launcher signal quickstart            # save, end with exit code 75; a job of Slurm goes back to the queue\n"
        "  launcher signal quickstart INT        # save and stop, as cancel does, without waiting",
    )
    for parser in (status, logs, cancel, resume, signals):
        optional = {"nargs": "?"} if parser is status else {}
        parser.add_argument("run", metavar="RUN", help="a run's name, or its directory", **optional)
        parser.add_argument("--dir", default="runs", metavar="FOLDER", help="the runs' folder (default: runs)")
    logs.add_argument(
        "--rank", type=int, metavar="N", help="the whole log of one process (default: the end of every log)"
    )
    logs.add_argument(
        "--lines", type=int, default=20, metavar="N", help="of each log, without --rank (default: 20; 0: all)"
    )
    logs.add_argument("--follow", action="store_true", help="go on until the run ends")
    signals.add_argument(
        "signal",
        nargs="?",
        default="notice",
        choices=("notice", "USR1", "TERM", "INT"),
        help="notice (default) is USR1; after USR1 and TERM the exit code is 75, after INT 130",
    )
    cancel.add_argument("--now", action="store_true", help="kill it at once, without a checkpoint")
    resume.add_argument("overrides", metavar="section.key=value", nargs="*", help="changes the run's configuration")
    resume.add_argument("--detach", action="store_true", help="run in the background")


def _add_monitoring_verbs(verb: Callable) -> None:
    report = verb(
        "report",
        "one HTML page with the curves, events and checkpoints of a run, or of several side by side",
        "  launcher report quickstart\n  launcher report first second --output both.html --png both.png",
    )
    report.add_argument("runs", metavar="RUN", nargs="+", help="a run's name, or its directory")
    report.add_argument("--output", metavar="FILE", help="the page (default: report.html in the first run's directory)")
    report.add_argument("--png", metavar="FILE", help="a picture of it, too; needs Chromium")
    top = verb("top", "a run, live in the terminal", "  launcher top quickstart\n  launcher top quickstart --once | head -20")
    top.add_argument("run", metavar="RUN", help="a run's name, or its directory")
    top.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between two looks (default: 2)")
    top.add_argument("--once", action="store_true", help="print how it is now, and leave")
    monitor = verb(
        "monitor",
        "Prometheus with the alerts, and Grafana where it is installed, for the runs of a folder; until Ctrl-C",
        "  launcher monitor\n  launcher monitor --dir /shared/runs --port 9091 --alertmanager 127.0.0.1:9093",
    )
    monitor.add_argument("--port", type=int, default=9090, metavar="N", help="of Prometheus (default: 9090)")
    monitor.add_argument("--grafana-port", type=int, default=3000, metavar="N", help="default: 3000")
    monitor.add_argument("--alertmanager", metavar="HOST:PORT", help="who is told of alerts (default: nobody)")
    monitor.add_argument("--dry-run", action="store_true", help="print the configuration and the commands; start nothing")
    for parser in (report, top, monitor):
        parser.add_argument("--dir", default="runs", metavar="FOLDER", help="the runs' folder (default: runs)")
