"""The dashboard of all runs: which ones run, which are in trouble, how fast they are."""

from monitoring.dashboards.panels import GREEN, RED, STATES, curves, dashboard, query, row, rows_table, states, value

_RUN_LINK = "/d/robustbert-run?var-run=${__data.fields.run}&${__url_time_range}"
# Column letter of the table of runs -> (heading, expression, unit); in the order of the columns.
_COLUMNS = {
    "A": ("progress", "max by (run) (run:robustbert_progress:ratio)", "percentunit"),
    "B": ("step", "max by (run) (robustbert_step)", "none"),
    "C": ("time left", "max by (run) (run:robustbert_left_seconds:estimate)", "dtdurations"),
    "D": ("loss", "max by (run) (robustbert_loss_nats)", "none"),
    "E": ("tokens/s", "max by (run) (robustbert_tokens_per_second)", "short"),
    "F": ("goodput", "max by (run) (robustbert_goodput_ratio)", "percentunit"),
    "G": ("last logged step", "max by (run) (time() - robustbert_report_timestamp_seconds)", "dtdurations"),
    "H": ("last checkpoint", "max by (run) (time() - robustbert_checkpoint_timestamp_seconds)", "dtdurations"),
    "I": ("restarts", "max by (run) (robustbert_restarts_total)", "none"),
    "J": ("processes", "max by (run) (robustbert_processes)", "none"),
}


def build():
    return dashboard(
        "robustbert: all runs", "robustbert-fleet", "Every run that Prometheus sees; a run's name leads to its own dashboard.", [], _parts(), 24
    )


def _parts() -> list:
    columns = [query(expr, is_now=True) for _, expr, _ in _COLUMNS.values()]
    headings = {f"Value #{letter}": heading for letter, (heading, _, _) in _COLUMNS.items()}
    return [
        value("Runs", "count(robustbert_run_info)", "none", width=4),
        value("Running", 'sum(robustbert_run_state{state="running"})', "none", width=4),
        value("Processes", "sum(robustbert_processes)", "none", width=4),
        value("Tokens a second", "sum(robustbert_tokens_per_second)", "short", width=4),
        value("Alerts", 'count(ALERTS{alertname=~"Robustbert.*", alertstate="firing"}) or vector(0)', "none", [(None, GREEN), (1, RED)],
              width=4, about="That fire now."),
        value("Lowest goodput", "min(robustbert_goodput_ratio)", "percentunit", [(None, RED), (0.8, GREEN)], width=4, decimals=1,
              about="Red below 0.8, where RobustbertGoodputLow fires."),
        rows_table("Runs", *columns, renamed={"run": "run"} | headings, units={heading: unit for heading, _, unit in _COLUMNS.values()},
                   link=("run", _RUN_LINK)),
        rows_table("Alerts", query('ALERTS{alertname=~"Robustbert.*", alertstate="firing"}', is_now=True), height=6, width=14,
                   renamed={"run": "run", "alertname": "alert", "severity": "severity", "rank": "rank", "node": "node", "host": "host"},
                   hidden=("Value", "alertstate"), link=("run", _RUN_LINK)),
        rows_table("What they are", query("robustbert_run_info", is_now=True), hidden=("Value",), height=6, width=10,
                   renamed={"run": "run", "layout": "layout", "precision": "precision", "scheduler": "scheduler", "node": "supervised on"},
                   link=("run", _RUN_LINK)),
        states("States", query("robustbert_run_state == 1", "{{run}}: {{state}}"), names={1: ("yes", STATES["running"])}),
        row("Curves"),
        curves("Loss", query("max by (run) (robustbert_loss_nats)", "{{run}}")),
        curves("Tokens a second", query("max by (run) (robustbert_tokens_per_second)", "{{run}}"), is_from_zero=True),
        curves("Model FLOPs utilization", query("max by (run) (robustbert_model_flops_utilization)", "{{run}}"), unit="percentunit",
               is_from_zero=True, about="Only where the device's peak is known: not on CPUs."),
        curves("Goodput", query("max by (run) (robustbert_goodput_ratio)", "{{run}}"), unit="percentunit"),
        curves("Restarts", query("max by (run) (robustbert_restarts_total)", "{{run}}"), is_from_zero=True),
        curves("Exporters that do not answer", query('sum by (run) (up{job="robustbert"} == bool 0)', "{{run}}"), is_from_zero=True),
    ]  # fmt: skip
