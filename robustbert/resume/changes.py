"""Compares what a checkpoint was trained on with the configuration that would continue from it, key by key, by the table in rules.py."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from robustbert.checkpoint.manifest import CheckpointError, Manifest, committed_checkpoints, read_manifest, step_of
from robustbert.config import RunConfig, config_to_dict
from robustbert.optim.schedule import learning_rate
from robustbert.resume.corpora import DataRefusal, compare_corpora, given, name_of
from robustbert.resume.rules import RULES, Kind, Way

_OF_FORMAT = ("model.num_token_types", "model.next_sentence_head")  # set by a data.format of pairs
# Keys that are one value to the table, however they are built.
_WHOLE = ("data.tokenizer", "data.train", "data.valid")


@dataclass(frozen=True)
class Trained:
    """What a checkpoint says of itself: its step, the configuration that it was trained with, what training had counted."""

    step: int
    config: Mapping
    state: Mapping

    @classmethod
    def of(cls, manifest: Manifest) -> "Trained":
        return cls(manifest.state["step"], manifest.config, manifest.state)


@dataclass(frozen=True)
class Change:
    """A change that is taken: `text` is one line about it."""

    key: str
    text: str
    measures: bool = False  # held-out perplexities before and after it cannot be compared


@dataclass(frozen=True)
class Refusal:
    """A change that cannot be had within the run. `former`: the key's value in the checkpoint's configuration; None where it is the same."""

    key: str
    text: str
    way: Way
    former: object


@dataclass
class Comparison:
    """All that a configuration changes. hints: choices that a user may not know of, a line each."""

    changes: list[Change] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    @property
    def measures(self) -> bool:
        return any(change.measures for change in self.changes)


def newest_trained(checkpoints: Path) -> Trained | None:
    """The newest of a run's complete checkpoints whose manifest is whole; None where there is none. Reads no weights."""
    for folder in reversed(committed_checkpoints(checkpoints)):
        try:
            return Trained.of(read_manifest(folder))
        except CheckpointError:
            continue  # the processes will set it aside and take the one before it
    return None


def newest_step(checkpoints: Path) -> int:
    """The step of the newest complete checkpoint, whatever its files are like; 0 where there is none."""
    return max(map(step_of, committed_checkpoints(checkpoints)), default=0)


def compare(
    trained: Trained, config: RunConfig, contents: Mapping[str, list[str | None]], tokenizer_sha256: str | None = None
) -> Comparison:
    """What `config` changes of what `trained` was trained with.

    contents: of the data that `config` would read, by prepare.contents_now. tokenizer_sha256: of the tokenizer that
    data.tokenizer names now, where it is another entry than the checkpoint's and it is known.
    """
    found, before, after = Comparison(), flatten(trained.config), flatten(config_to_dict(config))
    follows = _OF_FORMAT if before["data.format"] != after["data.format"] else ()
    for key, new in after.items():
        if key not in before or _is_same(key, before[key], new) or key in follows:
            continue
        rule, old = RULES[key], before[key]
        words = f"{key}: {shown(key, old)} -> {shown(key, new)}"
        if key == "data.tokenizer":
            _compare_tokenizers(found, trained, words, old, tokenizer_sha256)
        elif rule.kind is Kind.FIXED:
            found.refusals.append(Refusal(key, f"{words}: {rule.why}", rule.way, old))
        elif rule.by_schedule:
            _compare_schedules(found, trained, config, key, words)
        elif rule.kind is Kind.LEARNS:
            _take(found, trained, key, words, rule.why, rule.measures)
    now = {kind: after[f"data.{kind}"] for kind in ("train", "valid")}
    for difference in compare_corpora(trained.config["data"], trained.state.get("data"), now, contents, trained.step):
        if isinstance(difference, DataRefusal):
            old = before[difference.key]
            former = None if given(old) == given(after[difference.key]) else old
            found.refusals.append(Refusal(difference.key, difference.text, difference.way, former))
        else:
            found.changes.append(Change("data.valid", difference, measures=True))
    return found


def own_refusals(former: RunConfig, config: RunConfig) -> list[Refusal]:
    """The keys that no `resume` changes, whether the run has learned something or not."""
    before, after = flatten(config_to_dict(former)), flatten(config_to_dict(config))
    own = [key for key, rule in RULES.items() if rule.kind is Kind.OWN and before[key] != after[key]]
    texts = {key: f"{key}: {shown(key, before[key])} -> {shown(key, after[key])}: {RULES[key].why}" for key in own}
    return [Refusal(key, text, RULES[key].way, before[key]) for key, text in texts.items()]


def flatten(tree: Mapping, where: str = "") -> dict[str, object]:
    """A configuration of plain values as {section.key: value}; what _WHOLE names stays in one piece."""
    flat: dict[str, object] = {}
    for name, value in tree.items():
        key = f"{where}.{name}" if where else name
        if isinstance(value, Mapping) and key not in _WHOLE:
            flat |= flatten(value, key)
        else:
            flat[key] = value
    return flat


def shown(key: str, value: object) -> str:
    """A value as it stands in a line: a corpus by its name, a number as short as it is exact."""
    if key in ("data.train", "data.valid"):
        return ", ".join(name_of(entry) for entry in value) or "none"
    if isinstance(value, Mapping):  # data.tokenizer: {train: {...}}
        return "trained on the run's text (" + ", ".join(f"{k} {v}" for k, v in value["train"].items() if v is not None) + ")"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return repr(value) if len(repr(value)) <= 8 else f"{value:.6g}"
    return str(value)


def _is_same(key: str, old: object, new: object) -> bool:
    # vocab_size: none is the tokenizer's, which is compared itself; the corpora are compared by what they hold.
    return old == new or key in ("data.train", "data.valid") or (key == "model.vocab_size" and new is None)


def _take(found: Comparison, trained: Trained, key: str, words: str, why: str, measures: bool) -> None:
    if key == "train.global_batch_size" and "samples_per_step" not in trained.state:
        reason = "this checkpoint was saved before the place in the order of the data was kept with it: samples would be left out or seen again"
        found.refusals.append(Refusal(key, f"{words}: {reason}", Way.WEIGHTS, flatten(trained.config)[key]))
        return
    found.changes.append(Change(key, f"{words} ({why})", measures))


def _compare_tokenizers(found: Comparison, trained: Trained, words: str, old: object, sha256: str | None) -> None:
    if sha256 is not None and sha256 == trained.state.get("tokenizer_sha256"):
        return  # the same one in another place
    found.refusals.append(Refusal("data.tokenizer", f"{words}: the embeddings are those of the former's ids", Way.NEW, old))


def _compare_schedules(found: Comparison, trained: Trained, config: RunConfig, key: str, words: str) -> None:
    """The keys that the learning rate follows from; the first of them tells how it moves, and what the choices are."""
    step, steps = trained.step, config.train.steps
    if key == "train.steps" and steps < step:
        reason = f"the run has done {step} steps; give more, or convert what it has learned"
        found.refusals.append(Refusal(key, f"{words}: {reason}", Way.NONE, trained.config["train"]["steps"]))
        return
    if any(RULES[change.key].by_schedule for change in found.changes if change.key in RULES):
        found.changes.append(Change(key, f"{words} (in the same schedule)"))
        return
    found.changes.append(Change(key, f"{words} ({rate_words(trained, config)})"))
    found.hints += rate_hints(trained, config)


def rate_words(trained: Trained, config: RunConfig) -> str:
    """How the learning rate moves between the last step that was done and the next one."""
    step, steps = trained.step, config.train.steps
    if step >= steps:
        return f"the run ends at step {step}, where it is"
    last, after = _rates(trained, config)
    former_steps = trained.config["train"]["steps"]
    end = f"falls to 0 at step {steps}"
    if step >= former_steps:
        return f"the learning rate goes from {last:.3g} at step {step}, the end of its schedule, to {after:.3g} at step {step + 1} and {end}"
    without = learning_rate(_former_optim(trained, config), step, former_steps)
    return f"the learning rate at step {step + 1} goes from {without:.3g} to {after:.3g}, at step {step} it was {last:.3g}; it {end}"


def rate_hints(trained: Trained, config: RunConfig) -> list[str]:
    """The value of optim.lr with which the rate does not jump upwards, where it would and there is one."""
    step, steps, warmup = trained.step, config.train.steps, config.optim.warmup_steps
    if step >= steps or step == 0:
        return []
    last, after = _rates(trained, config)
    # A warm-up under way rises by itself, and who gives another peak means it.
    if after <= last * (1 + 1e-6) or step < warmup or config.optim.lr != trained.config["optim"]["lr"]:
        return []
    lr = last * (steps - warmup) / (steps - step)
    return [f"the learning rate jumps to {after / last:.3g} times what it was; for one that continues to fall from {last:.3g}: optim.lr={lr:.6g}"]


def _rates(trained: Trained, config: RunConfig) -> tuple[float, float]:
    """Of the last step that was done, and of the next one by the new schedule."""
    last = learning_rate(_former_optim(trained, config), max(0, trained.step - 1), trained.config["train"]["steps"])
    return last, learning_rate(config.optim, trained.step, config.train.steps)


def _former_optim(trained: Trained, config: RunConfig):
    former = trained.config["optim"]
    return dataclasses.replace(config.optim, lr=former["lr"], warmup_steps=former["warmup_steps"])
