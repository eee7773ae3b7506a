"""The modes of files that libraries make readable for their owner alone."""

import shutil
from pathlib import Path


def share_weights_like(beside: Path) -> None:
    """Give the safetensors of a folder the mode of `beside`, a file of the folder that was made by open().

    safetensors 0.8.0 makes its files 0600 whatever the umask is, and transformers' save_pretrained writes through it: without
    this nobody else of the group could read a model whose other files they can.
    """
    for path in beside.parent.glob("*.safetensors"):
        shutil.copymode(beside, path)
