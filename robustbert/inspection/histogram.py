"""Lengths counted as they stream by: exact mean and percentiles, and bars over bins that double in size."""

from collections.abc import Iterable

import numpy as np

_EXACT_BITS = 16
_EXACT = 1 << _EXACT_BITS  # lengths below are counted one by one, longer ones in _STEPS bins from one power of two to the next
_STEPS = 64
_BAR_CHARS = 50
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class LengthHistogram:
    """Counts of lengths (whole numbers from 0 on), in fixed memory."""

    def __init__(self, parts: Iterable[np.ndarray]):
        self._exact = np.zeros(_EXACT, np.int64)
        self._longer = np.zeros(64 * _STEPS, np.int64)
        self.count = self.total = self.longest = 0
        for lengths in parts:
            if len(lengths) == 0:
                continue
            lengths = lengths.astype(np.int64)
            short = lengths[lengths < _EXACT]
            self._exact += np.bincount(short, minlength=_EXACT)
            places = (np.log2(lengths[lengths >= _EXACT]) * _STEPS).astype(np.int64)
            self._longer += np.bincount(places, minlength=len(self._longer))
            self.count += len(lengths)
            self.total += int(lengths.sum())
            self.longest = max(self.longest, int(lengths.max()))

    @property
    def mean(self) -> float:
        """The mean length; 0 where there is none."""
        return self.total / max(1, self.count)

    def percentile(self, share: float) -> int:
        """The length that `share` of them do not exceed; beyond 65,535 one that is up to 1% below."""
        wanted = max(1, int(np.ceil(share * self.count)))
        place = int(np.searchsorted(np.cumsum(self._exact), wanted))
        if place < _EXACT:
            return place
        above = wanted - int(self._exact.sum())
        return int(2 ** (int(np.searchsorted(np.cumsum(self._longer), above)) / _STEPS))

    def bins(self) -> list[tuple[int, int, int]]:
        """(first length, last length, count) of bins 0, 1, 2-3, 4-7 and so on, from the first to the last that is not empty."""
        counts = [int(self._exact[0])] + [int(self._exact[1 << i : 2 << i].sum()) for i in range(_EXACT_BITS)]
        counts += self._longer.reshape(-1, _STEPS).sum(1)[_EXACT_BITS:].tolist()
        bounds = [(0, 0)] + [(1 << i, (2 << i) - 1) for i in range(len(counts) - 1)]
        used = [i for i, count in enumerate(counts) if count]
        return [(*bounds[i], counts[i]) for i in range(used[0], used[-1] + 1)] if used else []

    def plot(self, title: str) -> list[str]:
        """The histogram as lines of text."""
        lines = [
            f"{title}: mean {self.mean:,.1f}, median {self.percentile(0.5):,}, 90% up to {self.percentile(0.9):,}, "
            f"99% up to {self.percentile(0.99):,}, longest {self.longest:,}"
        ]
        bins = self.bins()
        most = max((count for _, _, count in bins), default=1)
        for first, last, count in bins:
            name = f"{first:,}" if first == last else f"{first:,} - {last:,}"
            lines.append(f"{name:>25} {count:>15,} {_bar(count / most)}".rstrip())
        return lines


def _bar(share: float) -> str:
    eighths = round(share * _BAR_CHARS * 8)
    if share > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
