"""Refuses a checkpoint whose index would run code: torch reads `.metadata` with pickle, so its contents are checked first."""

import io
import pickle
from pathlib import Path

from robustbert.checkpoint.manifest import CheckpointError

_ALLOWED_NAMES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.planner": {
        "BytesIOWriteData",
        "SavePlan",
        "TensorWriteData",
        "WriteItem",
        "WriteItemType",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch": {"Size", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "strided"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "PurePosixPath"},
}


class _NamesOnly(pickle.Unpickler):
    """Reads a pickle and refuses every name but those of a checkpoint's index."""

    def find_class(self, module, name):
        if name in _ALLOWED_NAMES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def check_metadata(folder: Path) -> None:
    """CheckpointError unless the index of the checkpoint in `folder` holds nothing but an index."""
    path = folder / ".metadata"
    try:
        _NamesOnly(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except Exception as error:  # a damaged pickle fails in many ways
        raise CheckpointError(f"{path} is not the index of a checkpoint: {error}") from None
