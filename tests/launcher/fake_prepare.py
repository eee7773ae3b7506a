"""Stands in for the data preparation. FAKE_PREPARE: unset (well), user_error, slow."""

import os
import sys
import time
from pathlib import Path

from launcher.error_record import ErrorRecord
from launcher.prepare_data import ProgressFile, prepare_error_file, progress_file
from robustbert.run_directory import RunDirectory

run = RunDirectory(Path(sys.argv[1]))
ProgressFile(progress_file(run))("reading text", 1, 2)
behaviour = os.environ.get("FAKE_PREPARE")
if behaviour == "user_error":
    try:
        raise ValueError("text.txt: the text is empty; name a file with text")
    except ValueError as error:
        ErrorRecord.of(error, rank=None).write(prepare_error_file(run))
    sys.exit(1)
if behaviour == "slow":
    time.sleep(30)
