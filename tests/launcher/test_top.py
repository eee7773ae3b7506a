"""`launcher top`: one frame tells the state, the figures, what is wrong and what has happened."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from rich.console import Console
from run_story import RunStory

from launcher.cli import main
from launcher.live_metrics import scrape_supervisor
from launcher.report.record import RunRecord
from launcher.top import frame

EXPORTED = """\
# TYPE robustbert_processes gauge
robustbert_processes 4
# TYPE robustbert_rank_up gauge
robustbert_rank_up{rank="0"} 1
robustbert_rank_up{rank="1"} 1
robustbert_rank_up{rank="2"} 0
robustbert_rank_up{rank="3"} 1
# TYPE robustbert_nodes gauge
robustbert_nodes 2
# TYPE robustbert_nodes_left_out gauge
robustbert_nodes_left_out 1
# TYPE robustbert_slowest_rank gauge
robustbert_slowest_rank 3
# TYPE robustbert_slowest_rank_ratio gauge
robustbert_slowest_rank_ratio 1.25
"""


@pytest.fixture
def exporter(tmp_path):
    """Something that answers as a supervisor's exporter does, made known as that of the run `run`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(EXPORTED.encode())

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / ".prometheus").mkdir()
        group = {"targets": [f"127.0.0.1:{server.server_port}"], "labels": {"run": "run", "node": "n1", "role": "supervisor"}}
        (tmp_path / ".prometheus" / "run.json").write_text(json.dumps([group]))
        yield server
        server.shutdown()


def shown(record, live=None) -> str:
    console = Console(width=150, record=True, file=open("/dev/null", "w"))
    console.print(frame(record, live))
    return console.export_text()


def test_a_frame_shows_the_figures_of_the_last_logged_step(tmp_path):
    story = RunStory(tmp_path, "run")
    story.start()
    story.train(1, 60)
    story.save(50)
    text = shown(RunRecord(story.run))
    figures = ("6.0%", "tokens/s", "256", "forward and backward", "0.300 s", "60%", "300.00 at step 0")
    for expected in ("step 60 of 1,000", "step 50", "interrupted", *figures):
        assert expected in text, expected


def test_a_frame_of_a_run_without_a_step(tmp_path):
    assert "no step has been logged yet" in shown(RunRecord(RunStory(tmp_path, "run").run))


def test_processes_come_from_the_runs_exporter(tmp_path, exporter):
    story = RunStory(tmp_path, "run")
    live = scrape_supervisor(story.run)
    text = shown(RunRecord(story.run), live)
    assert "3 of 4" in text and "rank 3, 1.25 x" in text and "2, 1 left out" in text
    assert live.silent == [2]


def test_an_exporter_that_is_gone_costs_only_its_figures(tmp_path, exporter):
    story = RunStory(tmp_path, "run")
    exporter.shutdown()
    exporter.server_close()
    assert scrape_supervisor(story.run) is None and "processes up" not in shown(RunRecord(story.run), None)


def test_once_prints_one_frame(tmp_path, capsys):
    story = RunStory(tmp_path, "run")
    story.start()
    story.train(1, 3)
    assert main(["top", "run", "--dir", str(tmp_path), "--once"]) == 0
    assert capsys.readouterr().out.count("step 3 of 1,000") == 1


def test_a_run_that_has_ended_is_shown_once_and_left(tmp_path, capsys):
    story = RunStory(tmp_path, "run")
    story.event("failed", reason="no space")
    assert main(["top", "run", "--dir", str(tmp_path), "--interval", "0.2"]) == 0
    assert "no space" in capsys.readouterr().out


def test_an_interval_below_a_moment_is_refused(tmp_path, capsys):
    assert main(["top", "run", "--dir", str(tmp_path), "--interval", "0"]) == 2
    assert "--interval must be at least" in capsys.readouterr().err
