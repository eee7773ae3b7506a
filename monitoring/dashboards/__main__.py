"""`python -m monitoring.dashboards`: write the dashboards as JSON, as they are committed and shipped."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards import fleet_view, run_view

FOLDER = Path(__file__).resolve().parent.parent / "grafana" / "dashboards"
DASHBOARDS = {"robustbert_fleet.json": fleet_view.build, "robustbert_run.json": run_view.build}


def as_json(build) -> str:
    """The file's content: stable, so that a difference is a change."""
    return JSONEncoder(sort_keys=True, indent=2).encode(build()) + "\n"


if __name__ == "__main__":
    for name, build in DASHBOARDS.items():
        (FOLDER / name).write_text(as_json(build), encoding="utf-8")
        print(FOLDER / name)
