"""Importing fairseq, where it is installed.

fairseq 0.12.2, the last release, cannot be imported as it is: Python 3.11 refuses its dataclasses' defaults, and numpy 1.24
took away the aliases that it uses. Both are mended here while it is imported and used, and only then.
"""

import builtins
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import logging

import numpy as np


@contextlib.contextmanager
def mended_for_fairseq():
    """Inside, fairseq 0.12.2 can be imported and its models can be built; it logs warnings only."""
    real = dataclasses.dataclass

    def hashable(cls=None, **options):
        if cls is None:
            return functools.partial(hashable, **options)
        return real(cls, **{"unsafe_hash": "__hash__" not in vars(cls)} | options)

    aliases = [name for name in ("float", "int", "bool", "object") if name not in vars(np)]
    for name in aliases:
        setattr(np, name, getattr(builtins, name))
    dataclasses.dataclass = hashable
    logging_was_off_below = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging_was_off_below)
        dataclasses.dataclass = real
        for name in aliases:
            delattr(np, name)


def why_fairseq_is_not_importable() -> str | None:
    """None where it is, else the reason in a few words."""
    if importlib.util.find_spec("fairseq") is None:
        return "fairseq is not installed"
    try:
        with mended_for_fairseq():
            import fairseq.models.roberta  # noqa: F401
            import fairseq.tasks.masked_lm  # noqa: F401
    except Exception as error:  # whatever its many requirements raise
        return f"fairseq cannot be imported: {' '.join(str(error).split())[:100]}"
    return None


def fairseq_version() -> str:
    """The version that is installed."""
    return importlib.metadata.version("fairseq")
