"""A stage's weights and optimizer state to and from files, in megatron-core's sharded format: any layout reads any other's."""

import contextlib
import warnings
from pathlib import Path

from robustbert.checkpoint.safe_metadata import check_metadata
from robustbert.parallel.mesh import Mesh


def write_shards(folder: Path, model, optimizer, mesh: Mesh) -> list[str]:
    """Every process writes its shards into the empty folder; returns the names of the files this process wrote.

    model: wrapped by build_data_parallel or bare; optimizer: optim.build.Optimizer. A collective call.
    """
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper

    from robustbert.checkpoint.write_strategy import InProcessSaveStrategy

    # Weights that several data-parallel ranks hold are written by all of them, each a part.
    strategy = FullyParallelSaveStrategyWrapper(InProcessSaveStrategy(), mesh.groups.dp_cp)
    with _quiet():
        dist_checkpointing.save(_sharded_state(model, optimizer, is_loading=False), str(folder), strategy)
    mesh.barrier()
    own = [path.name for path in folder.glob(f"__{mesh.rank}_*.distcp")]
    if mesh.is_main:
        own += [path.name for path in folder.iterdir() if not path.name.startswith("__")]
    return own


def read_shards(folder: Path, model, optimizer=None) -> None:
    """Fill the model's weights, and the optimizer where one is given, from a folder of any layout. A collective call."""
    from megatron.core import dist_checkpointing

    check_metadata(folder)
    with _quiet():
        state = dist_checkpointing.load(_sharded_state(model, optimizer, is_loading=True), str(folder))
    bare = getattr(model, "module", model)
    bare.load_state_dict(state["model"], strict=False)
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])


def _sharded_state(model, optimizer, is_loading: bool) -> dict:
    bare = getattr(model, "module", model)
    state = {"model": bare.sharded_state_dict(prefix="model.")}
    state["model"] = {name.removeprefix("model."): shard for name, shard in state["model"].items()}
    if optimizer is not None:
        state["optimizer"] = optimizer.sharded_state_dict(state["model"], is_loading)
    return state


@contextlib.contextmanager
def _quiet():
    """megatron-core and torch warn about their own internals here, at every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="(megatron|torch).*")
        yield
