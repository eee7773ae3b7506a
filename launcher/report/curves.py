"""Long curves made short: what a person sees of 10^5 logged steps in a few thousand points, peaks and gaps included."""

import numpy as np

MAX_POINTS = 2000  # of one curve: about two a pixel of a wide screen


def thin(values: np.ndarray, max_points: int = MAX_POINTS) -> np.ndarray:
    """The indices of at most about `max_points` values that keep each stretch's first, lowest, highest and last one.

    Values that are not finite are kept one a stretch, so that a gap stays a gap.
    """
    if len(values) <= max_points:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), max_points // 4 + 1).astype(int)
    kept = set()
    for start, stop in zip(edges[:-1], edges[1:]):
        part = values[start:stop]
        finite = np.flatnonzero(np.isfinite(part))
        kept.update((start, stop - 1))
        if len(finite):
            kept.update((start + finite[part[finite].argmin()], start + finite[part[finite].argmax()]))
        if len(finite) < len(part):
            kept.add(start + int(np.flatnonzero(~np.isfinite(part))[0]))
    return np.array(sorted(kept))


def smooth(values: np.ndarray, steps: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` finite values at each place, none from before a return to an earlier step; NaN where there is none."""
    parts = np.split(values, np.flatnonzero(np.diff(steps) <= 0) + 1)
    return np.concatenate([_running_mean(part, window) for part in parts])


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    finite = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(finite, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(finite)))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - window)
    count = counts[stop] - counts[start]
    return np.where(count > 0, (sums[stop] - sums[start]) / np.maximum(count, 1), np.nan)


def break_where_repeated(steps: np.ndarray) -> np.ndarray:
    """Indices into `steps` with -1 before every place where the run went back to an earlier step (after a restart)."""
    back = np.flatnonzero(np.diff(steps) <= 0) + 1
    return np.insert(np.arange(len(steps)), back, -1)
