"""What a run begins with: weights drawn from its seed, or those of another run or of a converted model (train.start_from)."""

from pathlib import Path

from robustbert.checkpoint.index import SavedTensors
from robustbert.checkpoint.manifest import CheckpointError
from robustbert.checkpoint.restore import restore_weights, verify_together
from robustbert.checkpoint.retention import held_for_reading
from robustbert.config import RunConfig
from robustbert.model.initialize import initialize_weights
from robustbert.parallel.mesh import Mesh
from robustbert.run_directory import RunDirectory
from robustbert.train.start_from import check_start, find_start

_NEXT_SENTENCE_HEAD = "next_sentence_head."
# Tensors that only a data.format of pairs has: drawn from the seed where the other model has none of them.
_OF_PAIRS = ("embeddings.token_type_embeddings.", _NEXT_SENTENCE_HEAD)


class Start:
    """The beginning of one run: taken at step 0, and again where a run has to go back to it."""

    def __init__(self, config: RunConfig, run: RunDirectory, mesh: Mesh, model, optimizer, tokenizer_sha256: str):
        """model, optimizer: as build_data_parallel and build_optimizer give them; config: with the tokenizer's sizes."""
        self._config, self._run, self._mesh = config, run, mesh
        self._model, self._optimizer = model, optimizer
        self._tokenizer_sha256 = tokenizer_sha256

    def take(self) -> None:
        """Fill model and optimizer as before the first step; every process calls it. CheckpointError: start_from cannot be used."""
        self._model.complete_weights()  # what is still on its way would come on top
        initialize_weights(self._model.module, self._config.run.seed)
        self._optimizer.forget()
        if self._config.train.start_from is not None:
            self._take_weights(find_start(self._config.train.start_from))

    def _take_weights(self, folder: Path) -> None:
        with held_for_reading(folder):
            manifest, error = verify_together(folder, self._mesh)
            if error:
                raise CheckpointError(f"train.start_from: {error}")
            check_start(folder, self._config.model, self._tokenizer_sha256)
            drawn = restore_weights(folder, self._model, self._optimizer, self._mesh, may_be_missing=_OF_PAIRS)
            gathered = self._mesh.gather_on_main(drawn)
            of_head = [name for name in SavedTensors(folder).names if name.startswith(_NEXT_SENTENCE_HEAD)]
        if self._mesh.is_main:
            drawn, left_out = sorted(set().union(*gathered)), [] if self._config.model.next_sentence_head else sorted(of_head)
            self._run.append_event("weights_taken", path=str(folder), of_step=manifest.state["step"], drawn=drawn, left_out=left_out)
