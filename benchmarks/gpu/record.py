"""What is left in DIR: a JSON file a group, one log, the record with the table, a trace; and the dated record of the project.

At most eight files, none above LARGEST_FILE bytes, so that they can be carried from a machine that returns little.
"""

import json
import shutil
from datetime import date
from pathlib import Path

from benchmarks.gpu.context import Settings
from benchmarks.gpu.machine import one_line
from benchmarks.gpu.stages import GROUPS, Outcome
from benchmarks.records import write_record

LARGEST_FILE = 15 * 2**20
_LARGEST_LOG = 700_000  # bytes of a stage's log that are kept, its end
RECORDS = Path(__file__).resolve().parents[1] / "records"
_LIBRARIES = ("torch", "megatron-core", "transformers", "numpy")


def write_output(folder: Path, settings: Settings, outcomes: list[Outcome]) -> None:
    """The numbers and logs of the stages so far; numbers of an earlier call for other stages are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for group in GROUPS:
        ended = [outcome for outcome in outcomes if outcome.stage.group == group]
        if ended:
            _merge(folder / f"{group}.json", ended, settings)
    with open(folder / "log.txt", "wb") as log:
        for outcome in outcomes:
            file = settings.logs / f"{outcome.stage.name}.log"
            if file.exists():
                log.write(f"\n===== {outcome.stage.name}: {outcome.result} =====\n".encode())
                log.write(file.read_bytes()[-_LARGEST_LOG:])
    trace = settings.results / "trace.json.gz"
    if trace.exists():
        shutil.copyfile(trace, folder / trace.name)


def write_dated_record(file: Path, settings: Settings, command: str, table: list[str], is_rehearsal: bool) -> None:
    """The table with the card, driver, versions, commit, configuration and command."""
    title = "Rehearsal on CPU: no figures" if is_rehearsal else f"On a GPU: {settings.machine['cards'][0]['name']}"
    configurations = [(settings.work / f"{name}.yaml") for name in ("small", "full")]
    lines = [*table, ""]
    for configuration in configurations:
        if configuration.exists():
            lines += [f"{configuration.name}:", *configuration.read_text().strip().splitlines(), ""]
    write_record(file, title, command, f"; {one_line(settings.machine)}", _LIBRARIES, lines)


def record_file(machine: dict) -> Path:
    """The project's record of this day and card."""
    card = machine["cards"][0]["name"].removeprefix("NVIDIA ").split()[0].lower()
    return RECORDS / f"{date.today().isoformat()}_gpu_{card}.md"


def _merge(file: Path, outcomes: list[Outcome], settings: Settings) -> None:
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept["machine"], kept["rehearsal"] = settings.machine, settings.rehearse
    for outcome in outcomes:
        if outcome.result == "skipped" and outcome.stage.name in kept:
            continue  # an earlier call's numbers say more
        kept[outcome.stage.name] = {
            "result": outcome.result,
            "text": outcome.text,
            "seconds": round(outcome.seconds, 1),
            "values": outcome.values,
        }
    file.write_text(json.dumps(kept, indent=1, default=str))
