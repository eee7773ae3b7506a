"""The dashboards: what is committed is what the code makes; Grafana's types and PromQL's parser accept it."""

import json
import re
import shutil
import subprocess

import pytest

from tests.monitoring.shipped import DASHBOARDS, FOLDER, panel_queries, panels, rules, substituted

SCHEMA_CHECK = FOLDER / "schema_check"
INSTALL_TIMEOUT_S = 60


def test_the_committed_dashboards_are_what_the_code_makes():
    pytest.importorskip("grafana_foundation_sdk", reason="pip install '.[dashboards]'")
    from monitoring.dashboards.__main__ import DASHBOARDS as BUILDERS
    from monitoring.dashboards.__main__ import FOLDER as WRITTEN, as_json

    assert {path.name for path in DASHBOARDS} == set(BUILDERS)
    for name, build in BUILDERS.items():
        assert (WRITTEN / name).read_text() == as_json(build), f"{name} is not up to date: python -m monitoring.dashboards"


def test_every_query_is_promql():
    parser = pytest.importorskip("promql_parser")
    for dashboard, title, expr in panel_queries():
        try:
            parser.parse(substituted(expr, "some-run"))
        except ValueError as error:
            pytest.fail(f"{dashboard}, {title}: {expr}: {error}")


def test_every_recorded_series_that_a_query_or_an_alert_names_is_recorded():
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for _, _, expr in panel_queries() for name in re.findall(r"\w+:robustbert_\w+:\w+", expr)}
    used |= {name for rule in rules() for name in re.findall(r"\w+:robustbert_\w+:\w+", rule["expr"])}
    assert used and used <= recorded
    assert recorded - used <= {"run:robustbert_step_part_seconds:mean"}  # for dashboards of the user's own


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard):
    everything = json.loads(dashboard.read_text())["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_asks_the_chosen_data_source(dashboard):
    for panel in panels(dashboard):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} and panel["targets"], panel["title"]


@pytest.fixture(scope="module")
def grafana_types():
    """The folder of the check with Grafana's types installed, once."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (Debian: apt install npm)")
    if not (SCHEMA_CHECK / "node_modules" / "@grafana" / "schema").is_dir():
        words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        try:
            subprocess.run(words, cwd=SCHEMA_CHECK, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            pytest.skip(f"Grafana's types could not be installed: {error}")
    return SCHEMA_CHECK


def check_schema(folder, *files) -> subprocess.CompletedProcess:
    return subprocess.run(["node", "check.mjs", *files], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_grafanas_own_types_accept_the_dashboards(grafana_types):
    done = check_schema(grafana_types)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(DASHBOARDS)} dashboards, 0 errors" in done.stdout


@pytest.mark.slow
def test_the_check_of_types_refuses_a_wrong_panel(grafana_types, tmp_path):
    dashboard = json.loads(DASHBOARDS[0].read_text())
    dashboard["panels"][0]["options"]["colorMode"] = "a colour"
    (tmp_path / "wrong.json").write_text(json.dumps(dashboard))
    done = check_schema(grafana_types, str(tmp_path / "wrong.json"))
    assert done.returncode == 1 and "a colour" in done.stdout
