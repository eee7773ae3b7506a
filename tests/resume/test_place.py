"""The place in the order of the data, and the data themselves, as a checkpoint's state keeps them."""

import numpy as np
import pytest

from robustbert.checkpoint.manifest import CheckpointError
from robustbert.data.batches import TrainBatches
from robustbert.train.state import TrainState


class Blocks:
    """Gives the numbers of the samples back."""

    has_fixed_width = True

    def micro_batches(self, samples, micro_batch_size):
        return [samples]


class Numbers:
    """A sampler whose samples are their numbers."""

    def __call__(self, numbers_N):
        return np.asarray(numbers_N)

    def shares(self, num_samples):
        return np.array([num_samples])


def batches(samples_per_step: int, num_workers: int = 0) -> TrainBatches:
    return TrainBatches(Blocks(), Numbers(), samples_per_step, 1, 0, 1, num_workers, ["a.txt"])


def state(samples_per_step: int, **counted) -> TrainState:
    return TrainState(tokenizer_sha256="t", data={"train": ["a"], "valid": []}, samples_per_step=samples_per_step, **counted)


def read(own: TrainBatches, progress: TrainState, num_steps: int) -> list[int]:
    """The samples of the next steps, which are counted as training counts them."""
    own.begin_at(progress.first_data_step, progress.first_sample)
    found = []
    for _ in range(num_steps):
        found += np.concatenate(own.micro_batches(progress.data_step)).tolist()
        progress.advance(tokens=1, applied=True)
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_sample_comes_once_however_often_the_batch_size_changes(num_workers):
    seen, saved = [], None
    for samples_per_step, num_steps in ((8, 3), (16, 2), (4, 5), (4, 1)):
        progress = state(samples_per_step)
        if saved is not None:
            progress.restore(saved)
        own = batches(samples_per_step, num_workers)
        seen += read(own, progress, num_steps)
        assert own.corpus_samples(progress.data_step) == {"a.txt": len(seen)}, "what was read is counted"
        own.close()
        saved = progress.to_dict()
    assert seen == list(range(8 * 3 + 16 * 2 + 4 * 6))


def test_without_a_change_a_step_has_the_samples_that_it_always_had():
    progress = state(8)
    progress.restore(state(8, step=5, data_step=7).to_dict())  # two steps of the data were left out
    assert read(batches(8), progress, 1) == list(range(56, 64))


def test_a_checkpoint_of_an_older_version_is_taken_up():
    old = state(8, step=5, data_step=5).to_dict()
    for key in ("data", "samples_per_step", "first_data_step", "first_sample"):
        del old[key]
    progress = state(8)
    progress.restore(old)
    assert (progress.step, progress.samples_per_step, progress.first_sample, progress.data) == (5, 8, 0, {"train": ["a"], "valid": []})


def test_a_checkpoint_trained_on_other_data_is_refused():
    saved = state(8, step=5).to_dict() | {"data": {"train": ["b"], "valid": []}}
    with pytest.raises(CheckpointError, match="step 5 was trained on other indexed data .* train.start_from"):
        state(8).restore(saved)


def test_starting_over_keeps_what_is_read():
    progress = state(8, step=5, first_data_step=3, first_sample=9)
    progress.start_over()
    assert progress == state(8)
