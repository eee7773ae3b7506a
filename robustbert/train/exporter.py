"""The run's last logged step and its events for Prometheus, offered by the main process. Training never waits for it and never ends because of it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from robustbert.config import MonitoringConfig
from robustbert.json_lines import JsonTail, say_error
from robustbert.run_directory import RunDirectory

# Key of metrics.jsonl -> (name, help); base units, as Prometheus wants them.
_GAUGES = {
    "step": ("robustbert_step", "Completed updates."),
    "loss": ("robustbert_loss_nats", "Mean negative log-likelihood of a masked token."),
    "perplexity": ("robustbert_perplexity", "Exponential of the loss."),
    "lr": ("robustbert_learning_rate", "Learning rate of the last update."),
    "grad_norm": ("robustbert_gradient_norm", "Norm of the gradient before clipping."),
    "loss_scale": ("robustbert_loss_scale", "Scale of the loss in fp16."),
    "skipped_steps": ("robustbert_skipped_steps", "Updates skipped for an overflow."),
    "tokens": ("robustbert_tokens", "Real tokens trained on."),
    "tokens_per_s": ("robustbert_tokens_per_second", "Real tokens a second, over all processes."),
    "step_time_s": ("robustbert_step_seconds", "Mean time of a step."),
    "data_wait_s": ("robustbert_data_wait_seconds", "Mean time a step waited for its data."),
    "mfu": ("robustbert_model_flops_utilization", "Share of the hardware's peak."),
    "next_sentence_loss": ("robustbert_next_sentence_loss_nats", "Mean loss of a pair (formats with pairs)."),
    "next_sentence_accuracy": ("robustbert_next_sentence_accuracy", "Share of the pairs told rightly."),
}
# The same of the event checkpoint_saved.
_CHECKPOINT_GAUGES = {
    "step": ("robustbert_checkpoint_step", "Step of the newest checkpoint."),
    "time": ("robustbert_checkpoint_timestamp_seconds", "When the newest checkpoint was committed."),
    "seconds": ("robustbert_checkpoint_seconds", "From the copy of the state to the commit."),
    "stalled_s": ("robustbert_checkpoint_stall_seconds", "How long training stood still for it."),
    "bytes": ("robustbert_checkpoint_bytes", "Size of the newest checkpoint."),
}
_EVENTS = ("robustbert_events", "Events of the run since it was submitted, by name: checkpoint_rejected, hang, rolled_back, ...")
_CORPUS_SAMPLES = ("robustbert_corpus_samples", "Samples trained on, by corpus.")


class Exporter:
    """An HTTP server on monitoring.bind_address:prometheus_port; without a port it does nothing."""

    def __init__(self, config: MonitoringConfig, run: RunDirectory):
        self._gauges, self._server = {}, None
        if config.prometheus_port is None:
            return
        registry = CollectorRegistry()
        run_name = run.path.name

        def build_gauges(table: dict) -> dict:
            return {key: Gauge(*row, ["run"], registry=registry).labels(run_name) for key, row in table.items()}

        self._gauges, self._checkpoint_gauges = build_gauges(_GAUGES), build_gauges(_CHECKPOINT_GAUGES)
        self._events = Counter(*_EVENTS, ["run", "event"], registry=registry)
        self._new_events = JsonTail(run.events_file)  # from the run's beginning: restarts do not reset the counts
        self._corpus_samples = Gauge(*_CORPUS_SAMPLES, ["run", "corpus"], registry=registry)
        self._run_name = run_name
        try:
            self._server, _ = start_http_server(config.prometheus_port, config.bind_address, registry)
        except OSError as error:
            where = f"{config.bind_address}:{config.prometheus_port}"
            say_error(f"no metrics for Prometheus: {where} cannot be opened ({error}); training goes on")

    def show(self, record: dict) -> None:
        """Take a line of metrics.jsonl, and the events since the last one; what has no value keeps its last one."""
        if not self._gauges:
            return
        for event in self._new_events.new_lines():
            self._events.labels(self._run_name, event["event"]).inc()
            if event["event"] == "checkpoint_saved":
                for key, gauge in self._checkpoint_gauges.items():
                    gauge.set(event[key])
        for key, gauge in self._gauges.items():
            if record.get(key) is not None:
                gauge.set(record[key])
        for corpus, num_samples in record.get("corpus_samples", {}).items():
            self._corpus_samples.labels(self._run_name, corpus).set(num_samples)

    def close(self) -> None:
        """Free the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
