"""What people read: one line for an event of a run, one for a logged step."""

from robustbert.durations import duration

# Events that say no more than their neighbours do.
_SILENT = {"preparing"}


def event_line(event: dict) -> str | None:
    """One line for an event; None for one that a reader does not need."""
    name = event.get("event", "")
    if name in _SILENT:
        return None
    writer = _LINES.get(name)
    if writer is None:
        rest = "  ".join(f"{key} {value}" for key, value in event.items() if key not in ("time", "event"))
        return f"{name}  {rest}".rstrip()
    return writer(_Fields(event))


def step_line(record: dict, total_steps: int, left_s: float | None) -> str:
    """One line for a logged step."""
    parts = [f"step {record.get('step')}/{total_steps}"]
    parts += [f"{label} {text}" for label, text in metric_texts(record)]
    if left_s is not None:
        parts.append(f"{duration(left_s)} left")
    return "  ".join(parts)


def metric_texts(record: dict) -> list[tuple[str, str]]:
    """(label, text) of what is shown of a logged step, those that it has."""
    shown = (
        ("loss", "loss", "{:.3f}"),
        ("ppl", "perplexity", "{:,.1f}"),
        ("lr", "lr", "{:.2e}"),
        ("tokens/s", "tokens_per_s", "{:,.0f}"),
    )
    return [
        (label, pattern.format(record[key]))
        for label, key, pattern in shown
        if isinstance(record.get(key), (int, float))
    ]


class _Fields:
    """An event's fields as text; a field that is missing is a question mark rather than an error."""

    def __init__(self, event: dict):
        self._event = event

    def __getattr__(self, name: str) -> str:
        value = self._event.get(name)
        if isinstance(value, dict):
            return " x ".join(f"{key} {item}" for key, item in value.items() if not isinstance(item, bool))
        if isinstance(value, float):
            return f"{value:,.2f}"
        return "?" if value is None else str(value)

    def items(self, name: str) -> list[str]:
        """The items of a list; none where it is missing."""
        return [str(item) for item in self._event.get(name) or ()]

    def has(self, name: str) -> bool:
        return self._event.get(name) is not None


def _started(event: _Fields) -> str:
    layout = f" ({event.layout})" if event.has("layout") else ""  # {"tensor": 2, ...} as `tensor 2 x ...`
    return f"training started at step {event.step} on {event.num_processes} processes{layout}"


def _weights_taken(event: _Fields) -> str:
    lists = (("drawn anew", event.items("drawn")), ("left out, for this run has no pairs", event.items("left_out")))
    return f"begins with the weights of {event.path}" + "".join(f"; {what}: {', '.join(names)}" for what, names in lists if names)


def _rank_lost(event: _Fields) -> str:
    who = f"rank {event.rank} failed" if event.has("rank") else "the job failed"
    return f"{who}{f' on {event.host}' if event.has('host') else ''}: {event.reason}"


def _restarted(event: _Fields) -> str:
    if event.has("by"):
        return f"resumed by {event.by} from step {event.step}"
    return f"restart {event.restart} of {event.max_restarts} from step {event.step}, after {event.pause_s} s"


def _finished(event: _Fields) -> str:
    text = f"finished at step {event.step}"
    if event.has("heldout_perplexity"):
        text += f": held-out perplexity {event.heldout_perplexity}"
    if event.has("heldout_perplexity_before"):
        text += f", {event.heldout_perplexity_before} before training"
    if event.has("unigram_perplexity"):
        text += f", {event.unigram_perplexity} by token frequency alone"
    return text


def _checkpoint_failed(event: _Fields) -> str:
    after = "it is tried again" if event.tries_again == "True" else "training goes on without it"
    return f"step {event.step}: the checkpoint could not be written: {event.reason}; {after}"


def _rolled_back(event: _Fields) -> str:
    return (
        f"step {event.step} went wrong: {event.reason}; back to step {event.to_step}, the data steps {event.skipped_data_steps} are "
        f"left out (rollback {event.rollback} of {event.max_rollbacks})"
    )


_LINES = {
    "submitted": lambda event: "submitted",
    "queued": lambda event: f"in the queue as job {event.job}",
    "text_found": lambda event: event.text,
    "prepared": lambda event: f"data prepared in {event.seconds} s",
    "started": _started,
    "weights_taken": _weights_taken,
    "evaluated": lambda event: (
        f"step {event.step}: held-out loss {event.heldout_loss}, perplexity {event.heldout_perplexity}"
    ),
    "checkpoint_saved": lambda event: f"step {event.step}: checkpoint saved in {event.seconds} s",
    "checkpoint_rejected": lambda event: f"checkpoint {event.path} rejected: {event.reason}",
    "rank_lost": _rank_lost,
    "restarted": _restarted,
    "config_changed": lambda event: f"the configuration changed at step {event.step}: {'; '.join(event.items('changes'))}",
    "preempted": lambda event: f"stopped at step {event.step}: {event.reason}",
    "stopping": lambda event: f"asked to stop: {event.reason}",
    "finished": _finished,
    "checkpoint_failed": _checkpoint_failed,
    "hang": lambda event: f"the job hung: {event.reason}; all stacks: {event.stacks}",
    "node_left_out": lambda event: f"node {event.node} is left out: {event.reason}",
    "straggler": lambda event: (
        f"step {event.step}: rank {event.rank} on {event.host} is slow: {event.own_s} s a step of its own, {event.ratio} times its "
        f"stage's median, most of it in {event.part}"
    ),
    "straggler_over": lambda event: f"step {event.step}: rank {event.rank} keeps up again",
    "replicas_differ": lambda event: f"step {event.step}: the weights of ranks {event.ranks} differ from the other replicas'",
    "rolled_back": _rolled_back,
    "failed": lambda event: f"failed: {event.reason}",
    "summary_failed": lambda event: f"the summary was not written: {event.reason}",
}
