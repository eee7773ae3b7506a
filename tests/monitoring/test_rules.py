"""The alerts and recording rules: Prometheus accepts them, each fires where it should, each says what to do."""

import re
import shutil
import subprocess

import pytest

from launcher.parsers import build_parsers
from launcher.monitor import build_configuration
from tests.monitoring.shipped import FOLDER, alerts

NAMES = {
    "TrainingStalled", "LossNotFinite", "LossSpike", "LossScaleAtMinimum", "Straggler", "CheckpointStale", "CheckpointFailing",
    "RankMissing", "ThroughputDown", "DataStarvation", "NodesLost", "GoodputLow", "ExporterDown",
}  # fmt: skip


def promtool(*words) -> str:
    """What promtool says; AssertionError with it where it is not content."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules():
    assert "rules found" in promtool("check", "rules", *sorted((FOLDER / "rules").glob("*.yml")))


def test_prometheus_accepts_the_configuration_of_any_folder(tmp_path):
    config = tmp_path / "prometheus.yml"
    config.write_text(build_configuration(tmp_path / 'runs "of" mine', "127.0.0.1:9093"))
    assert "2 rule files found" in promtool("check", "config", config)
    assert "valid prometheus config" in promtool("check", "config", FOLDER / "prometheus.yml")


def test_each_alert_fires_where_it_should_and_only_there():
    promtool("test", "rules", *sorted((FOLDER / "rules" / "tests").glob("*.yml")))


def test_each_alert_has_a_case_that_fires_and_one_that_does_not():
    text = "\n".join(path.read_text() for path in (FOLDER / "rules" / "tests").glob("*.yml"))
    for name in {alert["alert"] for alert in alerts()}:
        cases = re.findall(rf"{name}\W.*?(?=- expr|- eval_time|- \{{eval_time|- name|\Z)", text, re.DOTALL)
        fires = [case for case in cases if re.search(r"exp_(samples: \[\{|alerts:\s+- exp)", case)]
        assert fires, f"{name} never fires in rules/tests"
    # Where an alert has one case only, other series beside the one that fires are the case that does not.
    assert text.count('run="good"') > 10


def test_the_alerts_are_those_that_were_agreed_on():
    assert {alert["alert"].removeprefix("Robustbert") for alert in alerts()} == NAMES


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_names_its_run_its_value_and_what_to_type(alert):
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert "{{ $labels.run }}" in alert["annotations"]["summary"] and "$value" in alert["annotations"]["summary"]
    _, verbs = build_parsers()
    commands = re.findall(r"`launcher (\w+) ([^`]*)`", alert["annotations"]["runbook"])
    assert commands and all(verb in verbs for verb, _ in commands), commands
    for verb, words in commands:
        for option in re.findall(r"--[a-z-]+", words):
            assert option in verbs[verb].format_help(), f"launcher {verb} has no {option}"
