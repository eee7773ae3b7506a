"""Who is to blame for a job's failure."""

import time

import pytest

from launcher.error_record import ErrorRecord, error_kind
from launcher.failure import find_failure, set_aside_error_files
from robustbert.config import ConfigError
from robustbert.run_directory import RunDirectory

KILLED = """\
--------------------------------------------------------------------------
prterun noticed that process rank 1 with PID 3221 on node vm exited on
signal 9 (Killed).
--------------------------------------------------------------------------
"""


def caught(error, rank, at=0.0):
    try:
        raise error
    except type(error) as raised:
        record = ErrorRecord.of(raised, rank)
    return ErrorRecord(**{**vars(record), "time": time.time() + at})


def test_earliest_record_is_the_culprits(tmp_path):
    run = RunDirectory(tmp_path)
    caught(RuntimeError("connection closed by peer"), 0, at=1).write(run.rank_error(0))
    caught(RuntimeError("division broke"), 1).write(run.rank_error(1))
    failure = find_failure(run, 1, "")
    assert failure.rank == 1 and failure.reason == "RuntimeError: division broke"
    assert "Traceback" in failure.traceback and failure.is_curable


def test_killed_rank_comes_before_those_who_lost_their_connection_to_it(tmp_path):
    run = RunDirectory(tmp_path)
    caught(RuntimeError("connection closed by peer"), 0).write(run.rank_error(0))
    failure = find_failure(run, 137, KILLED)
    assert failure.rank == 1 and failure.host == "vm" and "signal 9 (Killed)" in failure.reason


def test_rank_that_mpirun_ended_after_its_error_is_judged_by_its_error(tmp_path):
    run = RunDirectory(tmp_path)
    caught(RuntimeError("division broke"), 1).write(run.rank_error(1))
    assert find_failure(run, 137, KILLED).reason == "RuntimeError: division broke"


def test_job_without_a_word_is_a_failure(tmp_path):
    failure = find_failure(RunDirectory(tmp_path), 0, "")
    assert failure.rank is None and "exit code 0" in failure.reason and "without finishing" in failure.reason


def test_records_of_earlier_attempts_are_set_aside(tmp_path):
    run = RunDirectory(tmp_path)
    for _ in range(2):
        caught(RuntimeError("old"), 1).write(run.rank_error(1))
        set_aside_error_files(run)
    assert "old" not in find_failure(run, 0, "").reason
    assert len(list(run.logs.glob("rank_00001.error.0*.json"))) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("x"), "user"),
        (ValueError("x"), "user"),
        (MemoryError(), "oom"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "oom"),
        (RuntimeError("x"), "error"),
        (SystemExit(0), "error"),
    ],
)
def test_kind_of_an_error(error, kind):
    assert error_kind(error) == kind
