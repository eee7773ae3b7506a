"""The dashboard of one run: how it learns, how fast, where its time goes, whether its processes and checkpoints are well."""

from monitoring.dashboards.panels import (
    ACTIVITIES,
    GREEN,
    PARTS,
    RED,
    STATES,
    YELLOW,
    curves,
    dashboard,
    query,
    query_variable,
    row,
    rows_heatmap,
    rows_table,
    states,
    value,
)

RUN = '{run="$run"}'
RANKS = '{run="$run", node=~"$node"}'
_HEARD = f"robustbert_rank_heartbeat_timestamp_seconds{RUN}"


def build():
    variables = [
        query_variable("run", "Run", "label_values(robustbert_run_info, run)"),
        query_variable("node", "Node", 'label_values(robustbert_rank_step{run="$run"}, node)', is_multi=True),
    ]
    parts = [*_head(), *_learning(), *_speed(), *_ranks(), *_time(), *_checkpoints(), *_events()]
    about = "One pretraining run. Alerts are explained where they are defined: monitoring/rules/alerts.yml."
    return dashboard("robustbert: a run", "robustbert-run", about, variables, parts, hours=6)


def _head() -> list:
    # Colours change where the alerts fire (monitoring/rules/alerts.yml says why there); yellow is half-way.
    return [
        value("Progress", f"run:robustbert_progress:ratio{RUN}", "percentunit", decimals=1),
        value("Step", f"robustbert_step{RUN}", "none"),
        value("Time left", f"run:robustbert_left_seconds:estimate{RUN}", "dtdurations", about="At the speed of the last logged steps."),
        value("Loss", f"robustbert_loss_nats{RUN}", "none", decimals=3),
        value("Tokens a second", f"robustbert_tokens_per_second{RUN}", "short"),
        value("Goodput", f"robustbert_goodput_ratio{RUN}", "percentunit", [(None, RED), (0.8, YELLOW), (0.9, GREEN)], decimals=1,
              about="Share of the time since submission in which steps were computed for the first time."),
        value("Last logged step", f"time() - robustbert_report_timestamp_seconds{RUN}", "dtdurations",
              [(None, GREEN), (300, YELLOW), (600, RED)], about="Seconds since it was heard."),
        value("Processes up", f"run:robustbert_ranks_up:sum{RUN} / on (run) robustbert_processes{RUN}", "percentunit",
              [(None, RED), (1, GREEN)], about="Share of the expected processes that give signs of life."),
        states("State", query(f'robustbert_run_state{RUN} == 1', "{{state}}"), height=4, names={1: ("yes", STATES["running"])}),
        rows_table("Alerts", query(f'ALERTS{{alertname=~"Robustbert.*", alertstate="firing", run="$run"}}', is_now=True),
                   renamed={"alertname": "alert", "severity": "severity", "rank": "rank", "node": "node", "host": "host"},
                   hidden=("Value", "alertstate", "run"), height=5, about="Those that fire now; what to do is in their runbook."),
    ]  # fmt: skip


def _learning() -> list:
    return [
        row("Learning"),
        curves("Loss", query(f"robustbert_loss_nats{RUN}", "training"), query(f"robustbert_heldout_loss_nats{RUN}", "held out"),
               about="Nats a masked token."),
        curves("Perplexity", query(f"robustbert_perplexity{RUN}", "training"),
               query(f"exp(robustbert_heldout_loss_nats{RUN})", "held out"), is_log=True),
        curves("Learning rate", query(f"robustbert_learning_rate{RUN}", "rate"), unit="sci"),
        curves("Gradient norm", query(f"robustbert_gradient_norm{RUN}", "before clipping"), is_log=True),
        curves("Loss scale (fp16)", query(f"robustbert_loss_scale{RUN}", "scale"),
               query(f"robustbert_loss_scale_minimum{RUN}", "minimum"), is_log=True),
        curves("Updates left out", query(f"increase(robustbert_skipped_steps_total{RUN}[10m])", "overflows"),
               query(f"increase(robustbert_rollbacks_total{RUN}[10m])", "rollbacks"), is_from_zero=True, about="In ten minutes."),
    ]  # fmt: skip


def _speed() -> list:
    return [
        row("Speed"),
        curves("Tokens a second", query(f"robustbert_tokens_per_second{RUN}", "now"),
               query(f"run:robustbert_tokens_per_second:median1h{RUN}", "median of the hour"), is_from_zero=True),
        curves("FLOP/s of a device", query(f"robustbert_flops_per_second{RUN}", "FLOP/s"), unit="flops", is_from_zero=True, width=8),
        curves("Model FLOPs utilization", query(f"robustbert_model_flops_utilization{RUN}", "MFU"), unit="percentunit", is_from_zero=True,
               about="Only where the device's peak is known: not on CPUs."),
        curves("Parts of a step", query(f'avg by (part) (robustbert_rank_step_part_seconds{RANKS})', "{{part}}"), unit="s",
               stacked=PARTS, width=12, about="Mean of the ranks chosen; the parts add up to the step's time."),
        curves("Waiting for data", query(f"run:robustbert_data_wait:ratio{RUN}", "share of the step"), unit="percentunit", width=12,
               is_from_zero=True),
    ]  # fmt: skip


def _ranks() -> list:
    return [
        row("Processes"),
        rows_heatmap("Own time of each rank", query(f"robustbert_rank_own_seconds{RANKS}", "{{rank}}"),
                     about="A step without its collectives: who is slow, not who waits."),
        curves("Own time: slowest, median, fastest", query(f"max(robustbert_rank_own_seconds{RANKS})", "slowest"),
               query(f"quantile(0.5, robustbert_rank_own_seconds{RANKS})", "median"),
               query(f"min(robustbert_rank_own_seconds{RANKS})", "fastest"), unit="s", is_from_zero=True, width=12, height=10),
        curves("Slowest rank, against the median of its stage", query(f"robustbert_slowest_rank_ratio{RUN}", "slowest rank"),
               query(f"robustbert_straggler{RUN}", "straggler: rank {{rank}} on {{host}}"), width=8),
        rows_table("Ten slowest ranks", query(f"topk(10, robustbert_rank_own_seconds{RANKS})", is_now=True), width=8,
                   renamed={"rank": "rank", "node": "node", "Value": "own time"}, hidden=("run",), units={"own time": "s"}),
        curves("Memory", query(f"max by (kind) (robustbert_rank_memory_bytes{RANKS})", "{{kind}}, largest rank"), unit="bytes",
               is_from_zero=True),
        curves("Heartbeats: the oldest",
               query(f"max(timestamp({_HEARD}) - ({_HEARD} > 0))", "age"), unit="s",
               is_from_zero=True, width=12, about="When they were asked; processes beat every second."),
        states("Ranks up", query(f"robustbert_rank_up{RUN}", "{{rank}}"), width=12, height=8,
               names={0: ("silent", STATES["failed"]), 1: ("up", STATES["running"])}),
    ]  # fmt: skip


def _time() -> list:
    return [
        row("Where the time went"),
        curves("Goodput", query(f"robustbert_goodput_ratio{RUN}", "since submission"),
               query(f'run:robustbert_activity:share6h{{run="$run", activity="training"}}', "last 6 hours"), unit="percentunit", width=8),
        curves("Activities", query(f"sum by (activity) (robustbert_run_seconds_total{RUN})", "{{activity}}"), unit="dtdurations",
               stacked=ACTIVITIES, width=16, about="Seconds since submission, added up."),
    ]  # fmt: skip


def _checkpoints() -> list:
    return [
        row("Checkpoints"),
        curves("Steps since the last one", query(f"robustbert_step{RUN} - robustbert_checkpoint_step{RUN}", "steps"),
               query(f"2 * robustbert_checkpoint_interval_steps{RUN}", "alert above"), is_from_zero=True, width=6),
        curves("Duration", query(f"robustbert_checkpoint_seconds{RUN}", "writing"),
               query(f"robustbert_checkpoint_stall_seconds{RUN}", "training stands still"), unit="s", is_from_zero=True, width=6),
        curves("Size", query(f"robustbert_checkpoint_bytes{RUN}", "bytes"), unit="bytes", is_from_zero=True, width=6),
        curves("Failed writes", query(f"robustbert_checkpoint_failures_total{RUN}", "since submission"), is_from_zero=True, width=6),
    ]  # fmt: skip


def _events() -> list:
    return [
        row("Events"),
        curves("Restarts, rollbacks, nodes left out", query(f"robustbert_restarts_total{RUN}", "restarts"),
               query(f"robustbert_rollbacks_total{RUN}", "rollbacks"), query(f"robustbert_nodes_left_out{RUN}", "nodes left out"),
               is_from_zero=True, width=12),
        rows_table("Events since submission", query(f"robustbert_events_total{RUN}", is_now=True), width=6,
                   renamed={"event": "event", "Value": "times"}, hidden=("run", "node")),
        rows_table("Samples by corpus", query(f"robustbert_corpus_samples_total{RUN}", is_now=True), width=6,
                   renamed={"corpus": "corpus", "Value": "samples"}, hidden=("run", "node")),
    ]  # fmt: skip
