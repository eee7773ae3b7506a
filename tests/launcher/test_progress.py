"""What the foreground shows, as lines and as a bar."""

import io

import pytest
from rich.console import Console

from launcher.event_text import event_line, step_line
from launcher.prepare_data import ProgressFile, progress_file
from launcher.progress import BarView, LineView, RunFeed
from robustbert.durations import duration
from robustbert.json_lines import JsonTail
from robustbert.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def log_step(run, step):
    run.append_metrics(dict(step=step, loss=5.0, perplexity=148.4, lr=1e-3, tokens_per_s=5000.0, step_time_s=0.5))


def test_lines_show_the_newest_step_and_every_event(run, capsys):
    with LineView(RunFeed(run), 100) as view:
        for step in (10, 20, 30):
            log_step(run, step)
            view.update()
        run.append_event("checkpoint_saved", step=30, seconds=0.5)
        view.update()
    assert capsys.readouterr().out.splitlines() == [
        "step 10/100  loss 5.000  ppl 148.4  lr 1.00e-03  tokens/s 5,000  45 s left",
        "step 30/100  loss 5.000  ppl 148.4  lr 1.00e-03  tokens/s 5,000  35 s left",
        "step 30: checkpoint saved in 0.50 s",
    ]


def test_bar_shows_preparation_then_steps(run):
    view = BarView(RunFeed(run), 100)
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    view._progress.live.console = console
    ProgressFile(progress_file(run))("counting words [3/9]", 25, 100)
    view.update()
    console.print(view._progress)
    progress_file(run).unlink()
    log_step(run, 50)
    view.update()
    console.print(view._progress)
    text = console.file.getvalue()
    for part in ("preparing data", "counting words [3/9]", "step 50/100", "ppl 148.4", "25 s left"):
        assert part in text


def test_tail_gives_every_line_once_and_waits_for_its_end(run):
    tail = JsonTail(run.events_file)
    assert tail.new_lines() == []
    run.events_file.write_text('{"event": "a"}\nnot json\n{"event"')
    assert tail.new_lines() == [{"event": "a"}]
    with open(run.events_file, "a") as file:
        file.write(': "b"}\n')
    assert tail.new_lines() == [{"event": "b"}] and tail.new_lines() == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (273600, "3 d 4 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_event_without_its_fields_and_unknown_event_are_shown():
    assert event_line({"event": "finished", "time": 1}) == "finished at step ?"
    assert event_line({"event": "moon_rises", "time": 1, "step": 3}) == "moon_rises  step 3"
    assert step_line({"step": 3}, 10, None) == "step 3/10"
