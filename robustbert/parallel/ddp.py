"""DataParallel: megatron-core's DDP, working by units (embeddings, layers, heads) and leaving to the optimizer what it does in passing.

Gradients are accumulated by grouped kernels (unit_gradients.py); their division by the number of masked tokens is left to the update;
weights that the distributed optimizer has changed are gathered behind the next forward pass.
"""

import functools
from collections.abc import Iterator

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.transformer.cuda_graphs import is_graph_capturing

from robustbert.parallel.mesh import Mesh
from robustbert.parallel.unit_gradients import UnitGradients


class DataParallel(DistributedDataParallel):
    """A stage wrapped for training; build_data_parallel makes it.

    gradient_divisor: what the buffer's gradients are still to be divided by, on the device; None: by nothing. Whoever reads `main_grad`
    between the backward pass and the update calls normalise_gradients first.
    Weights outside of a forward pass are complete only after complete_weights. torch.compile does not see the hooks of a unit's
    forward pass: compile `layer.forward`, not the layer. is_recorded: a CUDA graph repeats the backward pass, so that all
    micro-batches do the same: the buffer is cleared, and every gradient added.
    """

    def __init__(self, module: torch.nn.Module, ddp_config, mesh: Mesh):
        super().__init__(config=module.config, ddp_config=ddp_config, module=module, pg_collection=mesh.groups)
        self.gradient_divisor: torch.Tensor | None = None
        self.is_recorded = False
        self._dp_size = mesh.dp_size
        for group in self.bucket_groups:
            group.param_gather_dispatched = True  # every process builds or reads its weights in whole

    @functools.cached_property
    def _unit_gradients(self) -> dict[torch.nn.Parameter, UnitGradients]:
        units = [(list(unit.parameters()), unit) for unit in units_of(self.module)]
        found = {parameter: gradients for parameters, _ in units for gradients in [UnitGradients(parameters)] for parameter in parameters}
        rest = [parameter for parameter in self.module.parameters() if parameter not in found]
        return found | dict.fromkeys(rest, UnitGradients(rest))

    def _distinct_unit_gradients(self) -> list[UnitGradients]:
        return list(dict.fromkeys(self._unit_gradients.values()))

    # Gradients

    def zero_grad_buffer(self) -> None:
        """Begin a step: gradients count from zero."""
        self.gradient_divisor = None
        for unit in self._distinct_unit_gradients():
            unit.begin_step(is_cleared=self.is_recorded)
        if self.config.gradient_accumulation_fusion or self.is_recorded:
            super().zero_grad_buffer()  # what follows only adds
            return
        for group in self.bucket_groups:
            group.reset()

    def finish_grad_sync(self, force_all_reduce: bool | None = False) -> None:
        """Wait until the gradients are reduced over the data-parallel ranks."""
        if not self.config.gradient_accumulation_fusion:
            for unit in self._distinct_unit_gradients():
                unit.finish_step()
        if self._dp_size > 1:
            super().finish_grad_sync(force_all_reduce)

    def normalise_gradients(self) -> None:
        """Divide the buffer by gradient_divisor now."""
        if self.gradient_divisor is not None:
            for buffer in self.buffers:
                buffer.grad_data.div_(self.gradient_divisor)
            self.gradient_divisor = None

    def _make_backward_post_hook(self, parameter: torch.nn.Parameter):
        unit, overlaps = self._unit_gradients[parameter], self.ddp_config.overlap_grad_reduce

        def hook(*_):
            if is_graph_capturing():
                return
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None or not overlaps, "a parameter has no gradient: its bucket would never be reduced"
            group = self.param_to_bucket_group[parameter]
            # The last micro-batch may be over when the gradient is accumulated; what counts is when it came.
            is_awaited = overlaps and group.is_last_microbatch

            def when_accumulated():
                if is_awaited:
                    group.register_grad_ready(parameter, self.force_all_reduce)

            if gradient is None or parameter.grad_added_to_main_grad:
                when_accumulated()
            elif self.config.gradient_accumulation_fusion:
                parameter.main_grad.add_(gradient)
                when_accumulated()
            else:
                unit.arrive(parameter, gradient, when_accumulated)

        return hook

    # Weights

    def begin_weight_gather(self) -> None:
        """After an update: every process gets the parts of the weights that the others have changed. A collective call.

        With overlap_param_gather only the first bucket starts here, each next one when the forward pass needs the one before it.
        """
        if self._dp_size == 1 or not self.ddp_config.use_distributed_optimizer:
            return
        if not self.ddp_config.overlap_param_gather:
            self.start_param_sync()
            return
        for group in self.bucket_groups:
            group.param_gather_dispatched = False
        self.bucket_groups[-1].start_param_sync()

    def complete_weights(self) -> None:
        """Wait until this process has all of its stage's weights. A collective call of the data-parallel ranks."""
        if self.ddp_config.overlap_param_gather:
            for group in reversed(self.bucket_groups):
                group.finish_param_sync()

    def enable_forward_pre_hook(self) -> None:
        """Let each unit wait for its weights before its forward pass; megatron-core does so for every module inside them, too."""
        for unit in units_of(self.module):
            groups = list(dict.fromkeys(self.param_to_bucket_group[parameter] for parameter in unit.parameters()))
            # A bucket begun earlier starts the ones behind it, so they go in the order of the forward pass.
            groups.sort(key=self.bucket_groups.index, reverse=True)
            self.remove_forward_pre_hook_handles[unit] = unit.register_forward_pre_hook(functools.partial(_finish_gathers, groups))

    def disable_forward_pre_hook(self, param_sync: bool = True) -> None:
        """Gather no more behind the forward pass; param_sync: complete the weights."""
        for handle in self.remove_forward_pre_hook_handles.values():
            handle.remove()
        self.remove_forward_pre_hook_handles.clear()
        if param_sync:
            self.complete_weights()


def _finish_gathers(groups: list, *_) -> None:
    assert not torch.compiler.is_compiling(), "hooks are not compiled: compile the layer's forward, not the layer"
    for group in groups:
        group.finish_param_sync()


def units_of(stage: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The parts of a stage that run one after the other: its children, each member of a list or dictionary of modules by itself."""
    for child in stage.children():
        if isinstance(child, (torch.nn.ModuleDict, torch.nn.ModuleList)):
            yield from child.children()
        else:
            yield child


def finalize_gradients(mesh: Mesh, models: list[DataParallel], num_tokens: torch.Tensor | None, **options) -> None:
    """Reduce the gradients, and note the number of masked tokens of the whole job as their divisor, without waiting for the device.

    num_tokens: int, on the device, of this process' micro-batches; known on the last stage.
    """
    finalize_model_grads(models, None, **options)
    if num_tokens is None:
        return
    if mesh.pp_size > 1:
        dist.broadcast(num_tokens, src=mesh.last_stage_rank, group=mesh.groups.pp)
    if mesh.dp_size > 1:
        dist.all_reduce(num_tokens, group=mesh.groups.dp)
    (model,) = models
    model.gradient_divisor = num_tokens.clamp(min=1)  # of no tokens the gradients are zero
