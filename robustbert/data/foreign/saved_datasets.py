"""Folders that Hugging Face `datasets` saved (save_to_disk): which of them a folder is, its splits, and rows of `input_ids`.

A Dataset is a folder with state.json (which names its .arrow files in order), dataset_info.json and the files, each a stream of
record batches; a DatasetDict has dataset_dict.json and a folder a split (datasets 5.2.0, arrow_dataset.py, dataset_dict.py).
"""

import json
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.text.byte_streams import import_for

DATASETS = "Hugging Face datasets"
_ROWS_AT_ONCE = 1 << 15
_VALID_NAMES = ("valid", "validation", "dev")


def is_saved_dataset(folder: str | Path) -> bool:
    """Whether a folder is a Dataset or a DatasetDict that was saved."""
    return any((Path(folder) / name).is_file() for name in ("dataset_dict.json", "state.json"))


def saved_splits(folder: Path, split: str) -> list[Path]:
    """The folder of the Dataset that `train` or `valid` means: itself, or of a DatasetDict that split's.

    DataError: there is no such split.
    """
    if (folder / "state.json").is_file():
        return [folder]
    names = _read_json(folder / "dataset_dict.json").get("splits", [])
    wanted = _VALID_NAMES if split == "valid" else (split,)
    found = [folder / name for name in names if name in wanted]
    if len(found) != 1:
        raise DataError(f"{folder}: has the splits {', '.join(names)}, and none is plainly {split}; name one, for instance {folder}/{names[0]}")
    return found


def dataset_files(folder: Path) -> list[Path]:
    """The .arrow files of a saved Dataset, in order. DataError: a file is missing, rows are chosen by an index of their own."""
    state = _read_json(folder / "state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(f"{folder}: its rows are chosen by a separate index; flatten_indices() and save it again")
    files = [folder / entry["filename"] for entry in state.get("_data_files", [])]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise DataError(f"{folder}: {missing[0].name if missing else 'every .arrow file'} is missing; copy the folder again")
    return files


class SavedDatasetIndex:
    """Rows of `input_ids`, each a document, with the questions that ForeignIndex answers; the files stay mapped, not copied.

    DataError: no such column, rows without ids, a damaged file.
    """

    kind, id_shift, sequence_modes = DATASETS, 0, None

    def __init__(self, folder: str | Path):
        self.prefix = self.path = self.bin_path = Path(folder)
        self._offsets, self._values = [], []
        for file in dataset_files(self.prefix):
            for offsets, values in _lists(file):
                self._offsets.append(offsets)
                self._values.append(values[offsets[0] : offsets[-1]])
        self._row_starts = np.cumsum([0, *(len(offsets) - 1 for offsets in self._offsets)], dtype=np.int64)
        self._item_starts = np.cumsum([0, *map(len, self._values)], dtype=np.int64)
        self.num_sequences, self.num_tokens = int(self._row_starts[-1]), int(self._item_starts[-1])
        if self.num_sequences == 0:
            raise DataError(f"{folder}: holds no row")
        self.dtype = self._values[0].dtype
        self.document_bounds = np.arange(self.num_sequences + 1)
        self.idx_size = 0
        self.bin_size = self.num_tokens * self.dtype.itemsize

    def lengths(self, start: int, stop: int) -> np.ndarray:
        """See ForeignIndex."""
        return np.diff(self._bounds(start, stop))

    def starts(self, start: int, stop: int) -> np.ndarray:
        """See ForeignIndex."""
        return self._bounds(start, stop)[:-1]

    def starts_at(self, numbers: np.ndarray) -> np.ndarray:
        """See ForeignIndex."""
        starts = np.full(len(numbers), self.num_tokens)
        batches = np.searchsorted(self._row_starts, numbers, side="right") - 1
        for batch in np.unique(batches[batches < len(self._offsets)]).tolist():
            here, offsets = batches == batch, self._offsets[batch]
            starts[here] = self._item_starts[batch] + offsets[numbers[here] - self._row_starts[batch]] - offsets[0]
        return starts

    def starts_in_order(self, numbers: np.ndarray) -> np.ndarray:
        """See ForeignIndex."""
        parts = [self.starts_at(numbers[i : i + _ROWS_AT_ONCE]) for i in range(0, len(numbers), _ROWS_AT_ONCE)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def items(self) -> "_Items":
        """All ids, one row after another."""
        return _Items(self._values, self._item_starts)

    def _bounds(self, start: int, stop: int) -> np.ndarray:
        """Where the rows start .. stop - 1 start, and where the last one ends: int64."""
        stop = min(stop, self.num_sequences)
        if start >= stop:
            return np.array([self.num_tokens], np.int64)
        parts = []
        for batch in range(int(np.searchsorted(self._row_starts, start, side="right")) - 1, len(self._offsets)):
            first = self._row_starts[batch]
            if first >= stop:
                break
            offsets = self._offsets[batch].astype(np.int64) - int(self._offsets[batch][0]) + self._item_starts[batch]
            parts.append(offsets[max(0, start - first) : stop - first + 1][: None if stop <= self._row_starts[batch + 1] else -1])
        return np.concatenate(parts)


class _Items:
    """The ids of all record batches as one vector that is sliced, or asked for one."""

    def __init__(self, values: list[np.ndarray], starts: np.ndarray):
        self._values, self._starts, self.dtype = values, starts, values[0].dtype

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, part: slice | int):
        if not isinstance(part, slice):
            return self[part : part + 1][0]
        start, stop, _ = part.indices(len(self))
        if start >= stop:
            return np.empty(0, self.dtype)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        for batch in range(first, len(self._values)):
            begin = int(self._starts[batch])
            if begin >= stop:
                break
            pieces.append(self._values[batch][max(0, start - begin) : stop - begin])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _lists(file: Path):
    """Of every record batch of a file the offsets (int) and values of its `input_ids`, both mapped."""
    arrow = import_for("pyarrow", "a saved data set")
    import pyarrow.ipc

    try:
        table = pyarrow.ipc.open_stream(arrow.memory_map(str(file))).read_all()
    except (arrow.ArrowException, OSError) as error:
        what = str(error).partition("\n")[0]
        raise DataError(f"{file}: damaged, or no stream of record batches ({what}); copy or save it again") from None
    if "input_ids" not in table.column_names:
        names = ", ".join(table.column_names)
        way = f"; name it as `text: {file.parent}`" if "text" in table.column_names else ""
        raise DataError(f"{file.parent}: has no column `input_ids` (its columns: {names}){way}")
    column = table.column("input_ids")
    if not getattr(column.type, "value_type", None) or not arrow.types.is_integer(column.type.value_type):
        raise DataError(f"{file.parent}: its `input_ids` are {column.type}; lists of whole numbers are read")
    for chunk in column.chunks:
        if chunk.null_count or chunk.values.null_count:
            raise DataError(f"{file}: has rows or ids that are null; drop them and save it again")
        if len(chunk) == 0:
            continue
        if arrow.types.is_fixed_size_list(chunk.type):
            offsets = (np.arange(len(chunk) + 1) + chunk.offset) * chunk.type.list_size
        else:
            offsets = chunk.offsets.to_numpy()
        yield offsets, chunk.values.to_numpy()


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy the folder again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: damaged; copy the folder again")
    return content
