"""DataParallel computes what megatron-core's DDP does; communication behind the passes changes no bit."""

import functools

import pytest
import torch

from robustbert.checkpoint.manifest import committed_checkpoints
from robustbert.checkpoint.restore import restore
from robustbert.job import Job
from robustbert.model.build import build_model
from robustbert.parallel import unit_gradients
from robustbert.parallel.data_parallel import build_data_parallel, fused_gradient_accumulation_available
from robustbert.parallel.pipeline import forward_backward
from robustbert.run_directory import RunDirectory
from robustbert.testing import run_on_ranks
from robustbert.train.replicas import check_replicas
from tests.checkpoint.test_sharded import save
from tests.parallel import small_training
from tests.parallel.small_training import Layout, Recipe, batches_of_step, opened, run_step

DP2 = Layout(data=2)
TP2_DP2 = Layout(tensor=2, data=2, sequence=True)
PP2_DP2 = Layout(pipeline=2, data=2)
BUCKET_SIZE = 5000  # elements: less than a layer of the tests' model


def use_small_buckets(monkey):
    """megatron-core's buckets have 40 million elements."""
    from megatron.core.distributed import DistributedDataParallelConfig

    small = functools.partialmethod(DistributedDataParallelConfig.__init__, bucket_size=BUCKET_SIZE)
    monkey.setattr(DistributedDataParallelConfig, "__init__", small)


def plain_ddp(model, mesh, is_distributed):
    """megatron-core's own, with its own finalization; the gradients stay sums."""
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads

    config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True, overlap_grad_reduce=mesh.dp_size > 1, use_distributed_optimizer=is_distributed
    )
    wrapped = DistributedDataParallel(config=model.config, ddp_config=config, module=model, pg_collection=mesh.groups)
    model.config.no_sync_func = wrapped.no_sync
    model.config.finalize_model_grads_func = lambda models, num_tokens, **options: finalize_model_grads(models, None, **options)
    return wrapped


def check_gradients(job, layout, precision, small_numel):
    """Three steps (buckets are reduced on their own from the second on) by both; this rank's reduced gradients of each."""
    recipe = Recipe(precision=precision)
    with pytest.MonkeyPatch.context() as monkey, opened(job, layout, recipe) as (mesh, _, _):
        use_small_buckets(monkey)
        monkey.setattr(unit_gradients, "_SMALL_NUMEL", small_numel)
        kinds = (lambda m: build_data_parallel(m, layout.parallel, mesh), lambda m: plain_ddp(m, mesh, layout.distributed_optimizer))
        found = []
        for wrap in kinds:
            wrapped = wrap(build_model(recipe.model, layout.parallel, mesh, precision, recipe.seed))
            assert len(wrapped.bucket_groups) > (1 if mesh.pp_rank else 3) or mesh.dp_size == 1
            gradients = []
            for step in range(3):
                wrapped.zero_grad_buffer()
                mine = batches_of_step(step)[mesh.dp_rank :: mesh.dp_size]
                forward_backward(wrapped, mine, mesh)
                for group in wrapped.bucket_groups:
                    reduced = group.buckets[0].grad_data
                    gradients.append(reduced.chunk(mesh.dp_size)[mesh.dp_rank].clone() if layout.distributed_optimizer else reduced.clone())
            found.append(gradients)
        ours, plain = found
        assert any(gradient.abs().max() > 0 for gradient in plain)
        return [a.equal(b) for a, b in zip(ours, plain, strict=True)]


CASES = {
    "one-process-fp32": (Layout(), "fp32", 0),
    "dp2-fp32": (DP2, "fp32", 0),
    "dp2-bf16": (DP2, "bf16", 0),
    "dp2-bf16-small-grouped": (DP2, "bf16", 1000),
    "dp2-whole-optimizer-bf16": (Layout(data=2, distributed_optimizer=False), "bf16", 1000),
    "tp2-dp2-sequence-parallel-bf16": (TP2_DP2, "bf16", 1000),
    "pp2-dp2-bf16": (PP2_DP2, "bf16", 1000),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_megatrons_ddp(name):
    layout, precision, small_numel = CASES[name]
    for equal in run_on_ranks(check_gradients, layout.num_ranks, layout, precision, small_numel):
        assert all(equal)


def check_training(job, layout, overlaps, folder=None):
    """Eight steps; the loss and the norm of each, held-out losses on the way, the weights at the end. Goes back once to a checkpoint."""
    recipe = Recipe(precision="bf16", num_steps=8)
    with pytest.MonkeyPatch.context() as monkey:
        use_small_buckets(monkey)
        monkey.setattr(small_training, "build_data_parallel", functools.partial(build_data_parallel, overlaps_gather=overlaps))
        with opened(job, layout, recipe) as (mesh, model, optimizer):
            assert len(model.bucket_groups) > (1 if mesh.pp_rank else 3) and model.use_forward_hook == overlaps
            history = []
            for step in (0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7):
                if step == 2 and len(history) == 2:
                    save(folder, mesh, model, optimizer, 2)
                elif step == 2:  # straight after an update, as a rollback
                    model.complete_weights()
                    restore(committed_checkpoints(folder / "checkpoints")[-1], model, optimizer, mesh)
                loss, update = run_step(mesh, model, optimizer, recipe, step)
                if step == 3:
                    check_replicas(model, mesh, RunDirectory(folder), step)
                heldout = None
                if step % 3 == 0:
                    model.eval()
                    with torch.no_grad():
                        report = forward_backward(model, batches_of_step(99)[:2], mesh, forward_only=True)
                    heldout = report.over_data_parallel(mesh).mean
                    model.train()
                history.append((step, loss, update.grad_norm, heldout))
            model.complete_weights()
            return history, [parameter.detach().float().numpy().copy() for parameter in model.parameters()]


@pytest.mark.parametrize("layout", [DP2, pytest.param(TP2_DP2, marks=pytest.mark.slow), pytest.param(PP2_DP2, marks=pytest.mark.slow)], ids=["dp2", "tp2-dp2", "pp2-dp2"])
def test_gathering_weights_behind_the_forward_pass_changes_no_bit(layout, tmp_path):
    behind = run_on_ranks(check_training, layout.num_ranks, layout, True, tmp_path / "behind")
    before = run_on_ranks(check_training, layout.num_ranks, layout, False, tmp_path / "before")
    for (history, weights), (expected, expected_weights) in zip(behind, before):
        assert history == expected
        assert history[5:8] == history[2:5]  # after the way back
        assert all((a == b).all() for a, b in zip(weights, expected_weights, strict=True))


def check_hooks(job):
    with opened(job, DP2, Recipe()) as (_, model, _):
        stage = model.module
        hooked = [module for module in stage.modules() if module._forward_pre_hooks]
        return hooked == [stage.embeddings, *stage.layers.values(), stage.lm_head]


def test_only_whole_units_have_a_hook():
    assert all(run_on_ranks(check_hooks, 2))


def test_the_norm_counts_every_gradient_once():
    """Against the parameters' own gradients, at one process; the layouts' tests compare the others with it."""
    with opened(Job(), Layout(), Recipe()) as (mesh, model, optimizer):
        forward_backward(model, batches_of_step(0), mesh)
        divisor = int(model.gradient_divisor)
        assert divisor == sum(len(batch.targets_M) for batch in batches_of_step(0))
        squares = sum(float(parameter.main_grad.double().square().sum()) for parameter in model.parameters())
        assert optimizer.step(0).grad_norm == pytest.approx(squares**0.5 / divisor, rel=1e-12)


def test_with_kernels_that_add_to_the_buffer_themselves_it_is_cleared():
    """gradient_accumulation_fusion: one weight's kernel adds and leaves an empty gradient, as Apex's does; the others are added here."""
    batches = batches_of_step(0)[:2]
    with opened(Job(), Layout(), Recipe(precision="bf16")) as (mesh, model, _):
        forward_backward(model, batches, mesh)
        expected = [parameter.main_grad.clone() for parameter in model.parameters()]
        weight = model.module.layers["0"].ffn.up.weight

        def add_itself(gradient):
            weight.main_grad.add_(gradient)
            weight.grad_added_to_main_grad = True
            return torch.full_like(gradient, float("nan"))

        model.config.gradient_accumulation_fusion = True
        weight.register_hook(add_itself)
        model.zero_grad_buffer()
        forward_backward(model, batches, mesh)
        assert all(parameter.main_grad.equal(right) for parameter, right in zip(model.parameters(), expected))
        assert not fused_gradient_accumulation_available()


def test_a_layers_forward_can_be_compiled_beside_its_hook():
    assert all(run_on_ranks(check_compiled_forward, 2))


def check_compiled_forward(job):
    with opened(job, DP2, Recipe()) as (mesh, model, optimizer):
        for layer in model.module.layers.values():
            layer.forward = torch.compile(layer.forward, backend="eager")
        first, second = (run_step(mesh, model, optimizer, Recipe(), step)[0] for step in range(2))
        model.module.layers["0"].compile(backend="eager", fullgraph=True)  # in whole, with its hook
        with pytest.raises(Exception, match="compile the layer's forward"):
            run_step(mesh, model, optimizer, Recipe(), 2)
        return first != second
