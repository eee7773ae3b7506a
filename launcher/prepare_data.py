"""`python -m launcher.prepare_data RUN_DIR [CONFIG]`: prepares the run's text, in a process that can be stopped at any moment.

CONFIG is the run's config.yaml by default. How far it is stands in RUN/progress.json; an error is left in logs/prepare.error.json.
"""

import json
import os
import sys
import time
from pathlib import Path

from launcher.error_record import ErrorRecord
from launcher.processes import die_with_parent
from robustbert.config import DataConfig, load_config
from robustbert.run_directory import RunDirectory

WRITE_INTERVAL_S = 0.2


class ProgressFile:
    """Called with (what is being done, bytes done, bytes in all); keeps the latest in a file."""

    def __init__(self, path: Path):
        self._path = path
        self._written_at = float("-inf")
        self._text = None

    def __call__(self, text: str, done: int, total: int) -> None:
        if text == self._text and time.monotonic() - self._written_at < WRITE_INTERVAL_S:
            return
        self._text, self._written_at = text, time.monotonic()
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(
            json.dumps({"text": text, "share": min(1.0, done / total) if total else None}) + "\n", encoding="utf-8"
        )
        draft.replace(self._path)


def progress_file(run: RunDirectory) -> Path:
    return run.path / "progress.json"


def prepare_error_file(run: RunDirectory) -> Path:
    return run.logs / "prepare.error.json"


def main(argv: list[str]) -> int:
    die_with_parent()
    run = RunDirectory(Path(argv[0]))
    try:
        prepare(run, Path(argv[1]) if len(argv) > 1 else run.config_file)
    except Exception as error:
        record = ErrorRecord.of(error, rank=None)
        record.write(prepare_error_file(run))
        print(record.traceback, file=sys.stderr)
        return 1
    return 0


def prepare(run: RunDirectory, config_file: Path) -> None:
    """Prepare what the run reads; a run that has a checkpoint keeps the data it was trained on, as long as it is whole.

    OtherData where a run that has a checkpoint would read something else than its configuration names. DataError where some of
    its data is lost and the text is not what it was: nothing is prepared over the rest then.
    """
    from robustbert.data.errors import DataError, OtherData
    from robustbert.data.prepare import changed_sources, prepared_data

    data_config = load_config(config_file).data
    if any(run.checkpoints.glob("step_*/COMMITTED")):
        try:
            prepared_data(data_config, run.data)
            return
        except OtherData:
            raise  # never prepared over what the checkpoint was trained on
        except DataError as error:
            for text, words in changed_sources(data_config, run.data, by_time=False).items():
                raise DataError(
                    f"{text} {words} since the run's data was prepared, and that is damaged ({error}); bring the text or the data back, or "
                    "begin a new run with these weights: train.start_from"
                ) from None
            present = set(run.data.glob("*.json"))
            _prepare(run, data_config)
            _refuse_other_content(run, data_config, present)
            return
    _prepare(run, data_config)


def _prepare(run: RunDirectory, data_config: DataConfig) -> None:
    from robustbert.data.prepare import prepare_run

    prepare_run(data_config, run.data, ProgressFile(progress_file(run)), lambda line: run.append_event("text_found", text=line))


def _refuse_other_content(run: RunDirectory, data_config: DataConfig, present: set[Path]) -> None:
    """DataError if data that was lost and prepared again is not what the newest checkpoint was trained on; it is removed again.

    present: the manifests that were there before.
    """
    from robustbert.checkpoint.manifest import CheckpointError, read_manifest
    from robustbert.data.errors import DataError
    from robustbert.data.prepare import contents_now

    newest = max(run.checkpoints.glob("step_*/COMMITTED")).parent
    try:
        trained_on = (read_manifest(newest).state.get("data") or {}).get("train")
    except CheckpointError:
        return  # the training looks for another one, and asks then
    if trained_on in (None, contents_now(data_config, run.data)["train"]):
        return
    for manifest in set(run.data.glob("*.json")) - present:
        for file in run.data.glob(f"{manifest.stem}.*"):
            file.unlink()
    raise DataError(
        f"{run.data} was lost, and the text of data.train is not what {newest.name} was trained on; bring the text or that folder "
        "back, or begin a new run with these weights: train.start_from"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
