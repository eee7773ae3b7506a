"""The code of the Grafana dashboards: `python -m monitoring.dashboards` writes them as JSON into monitoring/grafana/dashboards."""
