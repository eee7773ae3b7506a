"""Folders that Hugging Face `datasets` saved (save_to_disk): which of them a folder is, and its splits."""

from pathlib import Path


def is_saved_dataset(folder: str | Path) -> bool:
    """Whether a folder is a Dataset (state.json, .arrow files) or a DatasetDict (dataset_dict.json) that was saved."""
    return (Path(folder) / "dataset_dict.json").is_file() or (Path(folder) / "state.json").is_file()


def saved_splits(folder: Path, split: str) -> list[Path]:
    return [folder]
