"""The file of a split of GLUE: as GLUE publishes it, or as pandas and Hugging Face's datasets export it."""

import re
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.tables import ENDINGS

DIAGNOSTIC_SPLIT = "diagnostic"  # AX: GLUE's diagnostic set, answered by the model of MNLI
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


def split_file(folder: Path, split: str) -> Path:
    """train.tsv as published, or the one file of that split with another ending or name.

    dev is Hugging Face's validation and SuperGLUE's val. DataError where there are several, or a folder of datasets' save_to_disk;
    FileNotFoundError, with the published name, where there is none.
    """
    if split == DIAGNOSTIC_SPLIT:  # published in a folder of its own, beside MNLI's
        folders = (folder, *(folder.parent / name for name in ("diagnostic", "AX")))
        places = [place / name for place in folders for name in ("diagnostic.tsv", "AX.tsv")]
        return next((path for path in places if path.exists()), places[0])
    official = folder / f"{split}.tsv"
    names = (split, re.sub("^dev", "validation", split), re.sub("^dev", "val", split))
    found = [folder / f"{name}{ending}" for name in dict.fromkeys(names) for ending in ENDINGS]
    found = [path for path in found if path.is_file()]
    for name in dict.fromkeys(names):
        found += sorted(path for path in folder.glob(f"{name}-*.parquet") if _SHARD.fullmatch(path.stem[len(name) :]))
    if len(found) > 1:
        listed = " and ".join(path.name for path in found[:3])
        raise DataError(f"{folder}: has {listed} for {split}; leave one (join the parts of a set)")
    if found:
        return found[0]
    if (folder / "dataset_dict.json").exists() or (folder / split / "dataset_info.json").exists():
        raise DataError(f"{folder}: is a folder of datasets' save_to_disk; export each split: dataset['train'].to_parquet('train.parquet')")
    raise FileNotFoundError(2, "No such file", str(official))
