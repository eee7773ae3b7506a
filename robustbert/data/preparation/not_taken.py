"""What of a source does not get into its corpus, and why: reported, counted, and told by the manifest."""

from collections.abc import Callable, Iterable

from robustbert.data.errors import DataError
from robustbert.data.text.records import BadInput, LeftOut

_NUM_EXAMPLES = 20  # in the manifest
_NUM_REPORTED = 100  # in one preparation


class NotTaken:
    """Counts of bad input, duplicates, and what readers leave out by their rules.

    on_bad_input: stop or skip. report gets one line for each bad input that is skipped. counts: to go on from.
    """

    def __init__(self, on_bad_input: str, report: Callable[[str], None], counts: dict | None = None):
        self._stops, self._report = on_bad_input == "stop", report
        self._counts = dict(counts or {})

    def check(self, items: Iterable) -> None:
        """DataError where there is bad input among the items and it is not to be skipped."""
        for item in items if self._stops else ():
            if type(item) is BadInput:
                raise DataError(f"{item.message} (--on-bad-input skip goes on without it)")

    def add(self, item: BadInput | LeftOut) -> None:
        """Count an item, and report bad input."""
        if type(item) is LeftOut:
            self._add(f"left out: {item.reason}")
            return
        self._add("bad_input")
        examples = self._counts.get("bad_input_examples", [])
        if len(examples) < _NUM_EXAMPLES:
            self._counts["bad_input_examples"] = [*examples, item.message]
        if self._counts["bad_input"] <= _NUM_REPORTED:
            self._report(f"skipped: {item.message}")
        if self._counts["bad_input"] == _NUM_REPORTED:
            self._report(f"skipped: {_NUM_REPORTED} so far; what follows is counted, not listed")

    def count_duplicate(self, kind: str, num_characters: int) -> None:
        """Count an exact or near duplicate."""
        self._add(f"duplicates, {kind}")
        self._add("duplicates, characters", num_characters)

    def to_dict(self) -> dict:
        """As the manifest tells it: counts by name, and bad_input_examples, the first messages."""
        return dict(self._counts)

    def _add(self, name: str, count: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + count


def summary_of(not_taken: dict) -> str:
    """What a manifest's not_taken says, in one line; empty where everything was taken."""
    return ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in not_taken.items() if isinstance(count, int))
