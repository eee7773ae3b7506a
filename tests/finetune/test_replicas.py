"""Sums over micro-batches have the same bits for every number of processes."""

import pytest
import torch

from robustbert.device import Device
from robustbert.finetune.batches import step_micro_batches
from robustbert.finetune.replicas import Replicas, TreeSum
from robustbert.finetune.task import Encoded, Item
from robustbert.testing.ranks import run_on_ranks

NUM_LEAVES = (1, 2, 3, 4, 6, 7)


def check_sums(job, num_leaves):
    replicas, tree = Replicas(job), TreeSum()
    for leaf in replicas.my_leaves(num_leaves):
        tree.add(leaf_of(leaf))
    total = tree.total() or [torch.zeros_like(tensor) for tensor in leaf_of(0)]
    replicas.sum(total)
    taken = replicas.gather({leaf: job.rank for leaf in replicas.my_leaves(num_leaves)})
    return [tensor.tolist() for tensor in total], sorted(taken)


def leaf_of(number):
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(5, 3, generator=generator) * 10.0**number, torch.randn(1, generator=generator)]


def check_all_sums(job):
    with Device.detect(job).joined(job, 60):
        return [check_sums(job, num_leaves) for num_leaves in NUM_LEAVES]


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_sums_are_bitwise_those_of_one_process(num_ranks):
    alone = run_on_ranks(check_all_sums, 1)[0]
    for num_leaves, (_, taken) in zip(NUM_LEAVES, alone):
        assert taken == list(range(num_leaves))
    assert run_on_ranks(check_all_sums, num_ranks) == [alone] * num_ranks


def test_three_processes_are_refused_with_the_numbers_that_go():
    from robustbert.job import Job

    with pytest.raises(ValueError, match="1, 2, 4, 8, ... processes, not 3"):
        Replicas(Job(rank=0, world_size=3))


def test_an_epoch_takes_every_item_once_in_another_order_each_time():
    import numpy as np

    items = [Item(i, (Encoded(np.zeros(3 + i % 5, np.int32)),)) for i in range(21)]
    orders = []
    for epoch in range(2):
        steps = [step_micro_batches(items, 3 * epoch + step, 8, 4, seed=1) for step in range(3)]
        assert [[len(part) for part in step] for step in steps] == [[4, 4], [4, 4], [4, 1]]
        orders.append([item.example for step in steps for part in step for item in part])
        assert sorted(orders[-1]) == list(range(21))
    assert orders[0] != orders[1]
    assert [item.example for part in step_micro_batches(items, 0, 8, 4, seed=2) for item in part] != orders[0][:8]
