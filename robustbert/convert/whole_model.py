"""A whole model on one process: read from a checkpoint of any layout, or written as one."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from robustbert.checkpoint.manifest import CheckpointError, Manifest, read_manifest, verify
from robustbert.checkpoint.pieces import own_pieces
from robustbert.checkpoint.restore import restore
from robustbert.checkpoint.retention import held_for_reading
from robustbert.checkpoint.saving import write_alone
from robustbert.config import ConfigError, ModelConfig, ParallelConfig
from robustbert.config.yaml_file import build_section
from robustbert.device import Device
from robustbert.job import Job
from robustbert.model.build import build_model
from robustbert.model.roberta import RobertaStage
from robustbert.parallel.mesh import Mesh, open_mesh


@dataclass(frozen=True)
class WholeModel:
    """A model apart from any layout. state: fp32 tensors on the CPU, named as RobertaStage names them."""

    config: ModelConfig
    state: dict[str, torch.Tensor]

    @property
    def num_parameters(self) -> int:
        """Of all tensors, without the rows that pad the vocabulary."""
        padding = (self.config.padded_vocab_size - self.config.vocab_size) * (self.config.hidden_size + 1)
        return sum(tensor.numel() for tensor in self.state.values()) - padding


@contextlib.contextmanager
def one_process_mesh():
    """A mesh of this process alone, on the CPU or its first GPU."""
    device = Device.detect(Job())
    with device.joined(Job(), timeout_s=600), open_mesh(device, ParallelConfig()) as mesh:
        yield mesh


def load_checkpoint(folder: Path, mesh: Mesh) -> tuple[WholeModel, Manifest]:
    """The model of a checkpoint, after its files were verified. CheckpointError, ConfigError: it cannot be used."""
    with held_for_reading(folder):
        manifest = verify(folder)
        config = model_config_of_run(manifest.config)
        model = build_model(config, ParallelConfig(), mesh)
        restore(folder, model, None, mesh)
    return WholeModel(config, state_of(model)), manifest


def save_checkpoint(folder: Path, whole: WholeModel, mesh: Mesh, origin: str) -> None:
    """Write the model as a checkpoint of step 0 without optimizer state. FileExistsError where the folder exists."""
    config = {"model": dataclasses.asdict(whole.config)}
    manifest = Manifest({"step": 0, "origin": origin}, config, mesh.describe(), files={})
    write_alone(folder, manifest, own_pieces(model_with(whole, mesh), None, mesh))


def model_with(whole: WholeModel, mesh: Mesh) -> RobertaStage:
    """A RobertaStage that holds the whole model's weights, in evaluation mode."""
    model = build_model(dataclasses.replace(whole.config, compile=False), ParallelConfig(), mesh)
    with torch.no_grad():
        for name, parameter in model.named_shards():
            parameter.copy_(whole.state[name])
    return model.eval()


def state_of(model: RobertaStage) -> dict[str, torch.Tensor]:
    """The weights of a model on one process."""
    return {name: parameter.detach().float().cpu().clone() for name, parameter in model.named_shards()}


def model_config_of_run(run_config: dict) -> ModelConfig:
    """The ModelConfig inside a manifest's configuration. CheckpointError where there is none."""
    try:
        return build_section(ModelConfig, run_config["model"], "model")
    except (KeyError, ConfigError) as error:
        raise CheckpointError(f"the checkpoint's configuration cannot be read: {error}") from None


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder is a committed checkpoint with a readable manifest."""
    try:
        return bool(read_manifest(folder))
    except CheckpointError:
        return False
