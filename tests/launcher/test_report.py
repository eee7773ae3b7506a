"""`launcher report`: the page tells what the record holds, whatever state a run is in, and opens without an error."""

import re
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs
from run_story import RunStory

from launcher.cli import main
from launcher.report.curves import break_where_repeated, smooth, thin
from launcher.report.findings import find_all
from launcher.report.page import build_page
from launcher.report.picture import _QUIET, find_chromium, take_picture
from launcher.report.record import RunRecord
from launcher.report.timeline import coarsen
from robustbert.config import ConfigError


@pytest.fixture
def chromium():
    try:
        return find_chromium()
    except ConfigError as error:
        pytest.skip(str(error))


def finished_story(folder, name="whole", *overrides) -> RunStory:
    """One with a lost process, a rollback and a checkpoint that could not be written."""
    story = RunStory(folder, name, *overrides)
    story.start()
    story.train(1, 120)
    story.save(50)
    story.event("evaluated", step=100, heldout_loss=4.0, heldout_perplexity=54.6)
    story.event("rank_lost", 1.0, rank=1, host="n1", reason="killed by signal 9", kind="crash")
    story.event("restarted", step=50, restart=1, max_restarts=3, pause_s=1)
    story.start(50)
    story.train(51, 200)
    story.event("checkpoint_failed", step=150, reason="No space left on device", attempt=1, tries_again=True)
    story.save(200)
    story.event("finished", 2.0, step=200, tokens=25600, heldout_perplexity=40.0, unigram_perplexity=80.0)
    return story


def texts(record) -> str:
    return "\n".join(f"{finding.level}: {finding.text}" for finding in find_all(record))


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=4000), st.integers(40, 400))
def test_a_thinned_curve_keeps_its_extremes_and_its_gaps(values, max_points):
    values = np.array(values)
    kept = thin(values, max_points)
    finite = values[np.isfinite(values)]
    assert len(kept) <= max(1.3 * max_points, max_points + 8) and kept[0] == 0 and kept[-1] == len(values) - 1
    if len(finite):
        shown = values[kept][np.isfinite(values[kept])]
        assert shown.min() == finite.min() and shown.max() == finite.max()
    assert np.isfinite(values).all() == np.isfinite(values[kept]).all()


def test_smoothing_is_the_mean_of_the_last_finite_values():
    values = np.array([1.0, 3.0, np.nan, 5.0, np.inf, 7.0])
    assert smooth(values, np.arange(6), 2).tolist() == [1.0, 2.0, 3.0, 5.0, 5.0, 7.0]
    assert smooth(values, np.array([1, 2, 3, 2, 3, 4]), 3).tolist() == [1.0, 2.0, 2.0, 5.0, 5.0, 6.0]


def test_a_curve_breaks_where_the_run_went_back():
    assert break_where_repeated(np.array([1, 2, 3, 2, 3])).tolist() == [0, 1, 2, -1, 3, 4]


def test_coarse_spans_cover_the_same_time():
    spans = [(float(second), second + 1.0, "training" if second % 3 else "checkpointing") for second in range(5000)]
    coarse = coarsen(spans, 100)
    assert len(coarse) == 100 and coarse[0][0] == 0.0 and coarse[-1][1] == 5000.0
    assert all(before[1] == after[0] for before, after in zip(coarse, coarse[1:]))
    assert {activity for _, _, activity in coarse} == {"training"}


def test_the_page_of_a_run_tells_its_record(tmp_path):
    record = RunRecord(finished_story(tmp_path).run)
    page = build_page([record])
    for expected in ("whole", "finished", "killed by signal 9", "No space left on device", "12.5 MB", "0.020 s", "54.6"):
        assert expected in page, expected
    assert [checkpoint.outcome for checkpoint in record.checkpoints] == ["kept", "failed", "kept"]
    assert record.time_account.seconds["lost"] > 0
    assert "warning: 1 failure of the job, last: killed by signal 9" in texts(record)


def test_the_page_refers_to_nothing_outside_of_itself(tmp_path):
    page = build_page([RunRecord(finished_story(tmp_path).run)]).replace(get_plotlyjs(), "")
    assert not re.findall(r"""(?:src|href)=["']?(?!["']?data:)|url\(|@import|fetch\(|https?://""", page)


def test_several_runs_show_where_their_configurations_differ(tmp_path):
    runs = [finished_story(tmp_path, "a").run, finished_story(tmp_path, "b", "optim.lr=5e-4", "run.seed=2").run]
    page = build_page([RunRecord(run) for run in runs])
    assert "Configuration: 2 keys differ" in page
    assert set(re.findall(r'<tr class="differs"><td>([^<]*)</td>', page)) == {"optim.lr", "run.seed"}


@pytest.mark.slow
def test_100_000_logged_steps_stay_below_8_megabytes(tmp_path):
    story = RunStory(tmp_path, "long", "train.steps=200000")
    story.start()
    story.train(1, 100_000)
    page = build_page([RunRecord(story.run)])
    assert len(page.encode()) < 8e6


@pytest.mark.parametrize("name", ["queued at once", "only events", "not finite", "failed", "cut off", "no configuration"])
def test_whatever_state_a_run_is_in_the_page_can_be_made(tmp_path, name):
    story = RunStory(tmp_path, "run")
    expected = {
        "queued at once": "no step has been logged yet",
        "only events": "no step has been logged yet",
        "not finite": "bad: the loss is not finite at step 30 (10 logged steps)",
        "failed": "bad: failed: <b>rank 0</b> & others gave up",
        "cut off": "its supervisor is gone",
        "no configuration": "its configuration cannot be read",
    }[name]
    if name != "queued at once":
        story.start()
    if name in ("not finite", "failed", "cut off"):
        story.train(1, 20)
    if name == "not finite":
        story.train(21, 30, loss=float("nan"), perplexity=float("nan"), grad_norm=float("inf"))
    elif name == "failed":
        story.event("failed", reason="<b>rank 0</b> & others gave up")
    elif name == "cut off":
        for path in (story.run.events_file, story.run.metrics_file):
            with open(path, "a") as file:
                file.write('{"time": 17, "st\nnull\n[1, 2]\n{"time": 1700000100.0, "ste')
    elif name == "no configuration":
        story.run.config_file.write_text("modl: {}\n")
    record = RunRecord(story.run)
    page = build_page([record])
    assert expected in texts(record)
    assert "<b>rank 0</b>" not in page


def test_findings_name_slow_steps_and_waiting_for_data(tmp_path):
    story = RunStory(tmp_path, "run")
    story.start()
    story.train(1, 100)
    story.train(101, 140, tokens_per_s=100.0, data_wait_s=0.2)
    assert "100 tokens/s at the end, its median is 256" in texts(RunRecord(story.run))
    assert "40% of a step is waiting for data" in texts(RunRecord(story.run))


def test_a_straggler_is_named_until_it_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr("launcher.run_status.is_supervised", lambda run: True)
    story = RunStory(tmp_path, "run")
    story.start()
    story.event("straggler", rank=3, host="n2", ratio=1.5, own_s=0.3, median_s=0.2, part="forward_backward", step=8)
    record = RunRecord(story.run)
    assert "rank 3 on n2 takes 1.50 times as long as its stage's median (forward_backward)" in texts(record)
    story.event("straggler_over", rank=3, step=9)
    record.refresh()
    assert "rank 3" not in texts(record)


def test_the_command_writes_the_page_into_the_run(tmp_path, capsys):
    story = finished_story(tmp_path)
    assert main(["report", "whole", "--dir", str(tmp_path)]) == 0
    assert (story.run.path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert str(story.run.path / "report.html") in capsys.readouterr().out


def test_without_chromium_the_picture_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    story = finished_story(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["report", str(story.run.path), "--png", str(tmp_path / "x.png")]) == 2
    assert "needs Chromium" in capsys.readouterr().err and not (story.run.path / "report.html").exists()


@pytest.mark.slow
def test_the_page_opens_in_a_browser_without_an_error(tmp_path, chromium):
    runs = [finished_story(tmp_path, "a").run, finished_story(tmp_path, "b<script>&", "optim.lr=5e-4").run]
    file = tmp_path / "report.html"
    file.write_text(build_page([RunRecord(run) for run in runs]))
    click_all = "<script>document.querySelectorAll('nav button').forEach(button => button.click());</script>"
    clicked = tmp_path / "clicked.html"
    clicked.write_text(file.read_text().replace("</body>", f"{click_all}</body>"))
    for page in (file, clicked):
        done = subprocess.run(
            [chromium, *_QUIET, f"--user-data-dir={tmp_path / page.stem}", "--enable-logging=stderr", "--dump-dom",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000", page.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        num_figures = done.stdout.count("class=\"plot") + done.stdout.count("class=\"panel wide")
        assert num_figures > 8 and done.stdout.count("main-svg") >= 8 and re.search(r'data-height="\d{4}"', done.stdout)


@pytest.mark.slow
def test_the_picture_is_a_png_of_the_whole_page(tmp_path, chromium):
    file = tmp_path / "report.html"
    file.write_text(build_page([RunRecord(finished_story(tmp_path).run)]))
    take_picture(file, tmp_path / "report.png")
    data = (tmp_path / "report.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20]) == 1400 and int.from_bytes(data[20:24]) > 2000
