"""data.train and data.valid: whether a configuration reads what a checkpoint was trained on, wherever that lies now.

A sample is a function of (seed, number of its corpus, block): another text, order or weight gives other samples under the same numbers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from robustbert.resume.rules import Way

_NO_PLACE = "its place in the order of the samples means nothing there"


@dataclass(frozen=True)
class DataRefusal:
    """Other data than the checkpoint's; `key` is data.train or data.valid."""

    key: str
    text: str
    way: Way


def compare_corpora(
    former: Mapping, recorded: Mapping[str, list[str]] | None, now: Mapping, contents: Mapping[str, list[str | None]], step: int
) -> Iterator[DataRefusal | str]:
    """Refusals, and for held-out text that is another one a line that says so.

    former: the section data of the checkpoint's configuration. recorded: the contents in the checkpoint's state, None in one of
    an older version. now: the new configuration's, with the keys train and valid. contents: of what that reads; None where it is
    not prepared, or made of something else.
    """
    recorded = recorded or {}
    train, valid = ((given(former[kind]), given(now[kind])) for kind in ("train", "valid"))
    yield from _compare_train(*train, recorded.get("train"), contents["train"], step)
    yield from _compare_valid(*valid, _differ(recorded.get("valid"), contents["valid"]), step)


def name_of(entry: Mapping) -> str:
    """An entry of data.train or data.valid in a line: its text or path, and what else is said of it."""
    rest = ", ".join(f"{key} {value}" for key, value in entry.items() if key not in ("path", "text") and value is not None)
    return f"{entry.get('path') or entry.get('text')}{f' ({rest})' if rest else ''}"


def _compare_train(
    former: list[dict], now: list[dict], recorded: list[str] | None, contents: list[str | None], step: int
) -> Iterator[DataRefusal]:
    def refusal(words: str, reason: str) -> DataRefusal:
        return DataRefusal("data.train", f"{words}: {reason}", Way.WEIGHTS)

    both = f"data.train: {_names(former)} -> {_names(now)}"
    if len(former) != len(now):
        learned = f"the run has learned from the former up to step {step}, and {_NO_PLACE}"
        yield refusal(both, f"all corpora together are one order of samples; {learned}")
        return
    if former != now and sorted(map(_names, zip(former))) == sorted(map(_names, zip(now))):
        yield refusal(both, "a corpus is known by its number, and so are its samples; another order of the corpora gives other samples")
        return
    for i, (old, new) in enumerate(zip(former, now)):
        words = f"data.train[{i}]: {name_of(old)} -> {name_of(new)}"
        known = recorded[i] if recorded is not None and i < len(recorded) else None
        if old.get("weight") != new.get("weight"):
            follows = "which samples come from a corpus follows from all weights and from how many came before"
            yield refusal(words, f"{follows}: some would be left out or come again")
        elif old == new:
            if None not in (known, contents[i]) and contents[i] != known:
                reason = f"its indexed data are not those that the checkpoint of step {step} was trained on; bring those back"
                yield refusal(f"data.train[{i}]: {name_of(new)}", reason)
        elif known is None or contents[i] != known or not _may_hold_the_same(old, new):
            yield refusal(words, f"the run has learned from the former up to step {step}, and {_NO_PLACE}")


def _compare_valid(former: list[dict], now: list[dict], is_other: bool, step: int) -> Iterator[DataRefusal | str]:
    words = f"data.valid: {_names(former)} -> {_names(now)}"
    if former == now:
        if is_other:
            what = f"the held-out text is another than at step {step}, under the same name"
            yield f"data.valid: {what}; perplexities before and after cannot be compared"
    elif any("text" in entry and entry not in former[i : i + 1] for i, entry in enumerate(now)):
        reason = "a run that has begun prepares no other held-out text; "
        reason += "prepare it with tools/preprocess and give its path: 'data.valid=[{path: PREFIX}]'"
        yield DataRefusal("data.valid", f"{words}: {reason}", Way.NONE)
    elif is_other:
        yield f"{words} (held-out perplexities before and after are of other texts)"


def _may_hold_the_same(old: dict, new: dict) -> bool:
    """Whether equal contents mean equal data: indexed data in another place, or the same text with its reader spelled out."""
    return "path" in new or old | {"reader": None} == new | {"reader": None}


def _differ(recorded: list[str] | None, contents: list[str | None]) -> bool:
    return recorded is not None and None not in contents and recorded != contents


def given(entries: list[Mapping]) -> list[dict]:
    """Entries without the keys that are left at none: a checkpoint of an older version knows fewer."""
    return [{key: value for key, value in entry.items() if value is not None} for entry in entries]


def _names(entries) -> str:
    return ", ".join(map(name_of, entries)) or "none"
