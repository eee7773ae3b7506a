"""A new masked-language-model head for an encoder that was saved without one."""

import dataclasses
from collections.abc import Mapping

import torch

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.convert.naming import Naming
from robustbert.convert.whole_model import state_of
from robustbert.model.build import build_model
from robustbert.parallel.mesh import Mesh


def lacks_head(theirs: Mapping[str, torch.Tensor], naming: Naming) -> bool:
    """Whether a model has none of the head's tensors."""
    return not any(name in theirs for name in _names(naming).values())


def new_head(naming: Naming, config: ModelConfig, seed: int, mesh: Mesh) -> dict[str, torch.Tensor]:
    """The head's tensors under the other format's names, as pretraining with this seed would begin with them."""
    smallest = dataclasses.replace(config, num_layers=1, compile=False)  # the draw depends on the seed and the name alone
    state = state_of(build_model(smallest, ParallelConfig(), mesh, seed=seed))
    return {theirs: state[ours][: config.vocab_size] for ours, theirs in _names(naming).items()}


def _names(naming: Naming) -> dict[str, str]:
    return {ours: theirs for ours, theirs in naming.outer.items() if ours.startswith("lm_head.")}
