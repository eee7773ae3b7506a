"""What of a source does not get into its corpus, and why, and remarks about what does: reported, counted, in the manifest."""

from collections.abc import Callable, Iterable

from robustbert.data.errors import DataError
from robustbert.data.text.records import BadInput, Lacking, LeftOut, Remark

_NUM_EXAMPLES = 20  # in the manifest
_NUM_REPORTED = 100  # in one preparation
_NUM_NAMES = 20  # of what stood for missing words, in the manifest
_MAX_NAMES = 2000  # counted; beyond that the rarer half is dropped, and its counts start again
_NUM_SHOWN = 5  # of them, in a line
INCOMPLETE, MISSING_WORDS = "incomplete_sentences", "missing_words_of"
_NUM_REMARKS_REPORTED = 3


class NotTaken:
    """Counts of bad input, duplicates, and what readers leave out by their rules; and the readers' remarks.

    on_bad_input: stop or skip. report gets one line for each bad input that is skipped, and the first remarks. counts and
    remarks: to go on from.
    """

    def __init__(
        self, on_bad_input: str, report: Callable[[str], None], counts: dict | None = None, remarks: dict | None = None
    ):
        self._stops, self._report = on_bad_input == "stop", report
        self._counts = dict(counts or {})
        self.remarks = dict(remarks or {})  # count, and examples: the first messages

    def check(self, items: Iterable) -> None:
        """DataError where there is bad input among the items and it is not to be skipped."""
        for item in items if self._stops else ():
            if type(item) is BadInput:
                raise DataError(f"{item.message} (--on-bad-input skip goes on without it)")

    def add(self, item: BadInput | LeftOut | Lacking | Remark) -> None:
        """Count an item, and report bad input and remarks."""
        if type(item) is Remark:
            self._add_remark(item.message)
            return
        if type(item) is Lacking:
            self._add(INCOMPLETE, item.num_sentences)
            self._add_names(item.names)
            return
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
        """The counts by name, to continue from."""
        return dict(self._counts)

    def for_manifest(self) -> dict:
        """The counts by name; bad_input_examples, the first messages; missing_words_of, the most frequent names."""
        names = self._counts.get(MISSING_WORDS)
        return self._counts | {MISSING_WORDS: dict(_most_frequent(names, _NUM_NAMES))} if names else dict(self._counts)

    def _add_names(self, names: Iterable[str]) -> None:
        counts = dict(self._counts.get(MISSING_WORDS, {}))  # a copy: a state that is not written yet may hold the old one
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        self._counts[MISSING_WORDS] = dict(_most_frequent(counts, _MAX_NAMES // 2)) if len(counts) > _MAX_NAMES else counts

    def _add_remark(self, message: str) -> None:
        count, examples = self.remarks.get("count", 0) + 1, self.remarks.get("examples", [])
        self.remarks = {"count": count, "examples": [*examples, message][:_NUM_EXAMPLES]}
        if count <= _NUM_REMARKS_REPORTED:
            self._report(f"note: {message}")
        elif count == _NUM_REMARKS_REPORTED + 1:
            self._report("note: the same of further files; the manifest counts them")

    def _add(self, name: str, count: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + count


def summary_of(not_taken: dict) -> str:
    """What a manifest's not_taken says, in one line; empty where everything was taken."""
    return ", ".join(
        f"{name.replace('_', ' ')}: {count:,}"
        for name, count in not_taken.items()
        if isinstance(count, int) and name != INCOMPLETE
    )


def incomplete_summary(not_taken: dict, num_sentences: int | None = None) -> str:
    """How many sentences lack words (the share, if it is told of how many), and of which templates; empty where none does."""
    count = not_taken.get(INCOMPLETE, 0)
    if not count:
        return ""
    names = ", ".join(f"{name} {times:,}" for name, times in _most_frequent(not_taken.get(MISSING_WORDS, {}), _NUM_SHOWN))
    share = f" ({count / num_sentences:.2%})" if num_sentences else ""
    return f"{count:,} sentences{share} lack words of templates or formulas that are not known: {names}"


def _most_frequent(counts: dict[str, int], number: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]
