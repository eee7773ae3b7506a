"""The run's last logged step for Prometheus, offered by the main process. Training never waits for it and never ends because of it."""

import sys

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from robustbert.config import MonitoringConfig

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
_CORPUS_SAMPLES = ("robustbert_corpus_samples", "Samples trained on, by corpus.")


class Exporter:
    """An HTTP server on monitoring.bind_address:prometheus_port; without a port it does nothing."""

    def __init__(self, config: MonitoringConfig, run_name: str):
        self._gauges, self._server = {}, None
        if config.prometheus_port is None:
            return
        registry = CollectorRegistry()
        for key, (name, text) in _GAUGES.items():
            self._gauges[key] = Gauge(name, text, ["run"], registry=registry).labels(run_name)
        self._corpus_samples = Gauge(*_CORPUS_SAMPLES, ["run", "corpus"], registry=registry)
        self._run_name = run_name
        try:
            self._server, _ = start_http_server(config.prometheus_port, config.bind_address, registry)
        except OSError as error:
            where = f"{config.bind_address}:{config.prometheus_port}"
            print(f"no metrics for Prometheus: {where} cannot be opened ({error}); training goes on", file=sys.stderr)

    def show(self, record: dict) -> None:
        """Take a line of metrics.jsonl; what it has no value for keeps its last one."""
        for key, gauge in self._gauges.items():
            if record.get(key) is not None:
                gauge.set(record[key])
        for corpus, num_samples in record.get("corpus_samples", {}).items() if self._gauges else ():
            self._corpus_samples.labels(self._run_name, corpus).set(num_samples)

    def close(self) -> None:
        """Free the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
