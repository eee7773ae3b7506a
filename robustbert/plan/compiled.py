"""Compiled layers in a simulation: what torch.compile keeps, moves and starts, without the compiler.

A layer is traced and parted into forward and backward as inductor does it: by inductor's decompositions, dropout by seeds, and the same
choice of what is computed again. The graphs are then run node by node. What inductor fuses, elementwise work and reductions, is one kernel
between two products: a value that nothing else needs takes no memory and moves no bytes.
"""

import contextlib
import functools
import operator
from collections.abc import Callable

import torch
from functorch.compile import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import detect_fake_mode
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.replace_random import replace_random_passes
from torch._inductor.virtualized import V
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves

from robustbert.model.fusion import Fusion, add_and_norm, bias_gelu
from robustbert.parallel.linear_cross_entropy import ChunkKernels, row_statistics, turn_into_gradient
from robustbert.plan.trace import StepTrace, device_tensors

aten = torch.ops.aten
_ALL_ROWS = 2**62
_VIEWS = {
    *(aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.transpose, aten.t, aten.expand, aten.select, aten.slice),
    *(aten.unsqueeze, aten.squeeze, aten.detach, aten.alias, aten.as_strided, aten.split, aten.unbind),
}


def simulated_fusion() -> Fusion:
    """The Fusion of a model whose layers torch.compile would compile, for one tensor-parallel rank."""
    kernels = ChunkKernels(_one_kernel(row_statistics), _one_kernel(turn_into_gradient), chunk_numel=_ALL_ROWS)
    return Fusion(True, _compile_forward, bias_gelu, add_and_norm, kernels)


def _compile_forward(forward: Callable) -> Callable:
    """EncoderLayer.forward, traced once for all layers: they have the same shapes."""
    graphs: dict[tuple[bool, bool], Callable] = {}  # recomputation runs a layer without gradients first

    def run(layer, x_T1H: torch.Tensor, rows) -> torch.Tensor:
        names, values = zip(*layer.named_parameters())
        arguments = (x_T1H, rows.segments_N, *values)
        mode = layer.training, torch.is_grad_enabled()
        if mode not in graphs:

            def traced(x_T1H, segments_N, *values):
                with torch.nn.utils.stateless._reparametrize_module(layer, dict(zip(names, values))):
                    return forward(layer, x_T1H, rows._replace(segments_N=segments_N))

            graphs[mode] = aot_function(
                traced,
                fw_compiler=_as_kernels,
                bw_compiler=_as_kernels,
                partition_fn=_part,
                decompositions=select_decomp_table(),
            )
            with _unseen(arguments):  # the first call traces; what tracing makes is no memory of the step
                graphs[mode](*arguments)
        return graphs[mode](*arguments)

    return run


def _part(graph: torch.fx.GraphModule, inputs, **options):
    with V.set_fake_mode(detect_fake_mode(tree_leaves(inputs))):
        replace_random_passes(graph)
    options.pop("compiler", None)
    return min_cut_rematerialization_partition(graph, inputs, compiler="inductor", **options)


def _as_kernels(graph: torch.fx.GraphModule, inputs) -> Callable:
    def run(arguments: list):
        return _Kernels(graph).boxed_run(arguments)

    run._boxed_call = True  # torch keeps nothing of the list of arguments, so that each is freed after its last use
    return run


def _one_kernel(function: Callable) -> Callable:
    """The function as one fused kernel: it reads its arguments and writes its results, or the first argument where it has none."""

    @functools.wraps(function)
    def run(*arguments):
        trace = _active_trace()
        with _unseen(arguments):
            result = function(*arguments)
        outputs = device_tensors(result) or device_tensors(arguments[:1])
        _count(trace, device_tensors(arguments), outputs)
        return result

    return run


class _Kernels(torch.fx.Interpreter):
    """Runs a graph. Products and attention are operators of their own; what lies between two of them is one kernel."""

    def __init__(self, graph: torch.fx.GraphModule):
        super().__init__(graph)
        self._trace = _active_trace()
        self._region_of = _number_regions(graph.graph.nodes)
        self._reads: dict[int, torch.Tensor] = {}
        self._writes: dict[int, torch.Tensor] = {}
        self._is_stored = {node for node in graph.graph.nodes if self._is_needed_elsewhere(node)}
        self._region = 0

    def run_node(self, node: torch.fx.Node):
        region = self._region_of.get(node)
        if region is None:  # an input, an output, a product
            self._end_kernel()
            return super().run_node(node)
        if region != self._region:
            self._end_kernel()
            self._region = region
        with _unseen(list(self.env.values())):
            result = super().run_node(node)
        if not _is_view(node):
            for source in map(_base, node.all_input_nodes):
                if self._region_of.get(source) != region:
                    self._reads |= {_key(tensor): tensor for tensor in device_tensors(self.env.get(source))}
            if node in self._is_stored:
                self._writes |= {_key(tensor): tensor for tensor in device_tensors(result)}
        return result

    def _end_kernel(self) -> None:
        if self._writes:
            _count(self._trace, list(self._reads.values()), list(self._writes.values()))
        self._reads, self._writes = {}, {}

    def _is_needed_elsewhere(self, node: torch.fx.Node) -> bool:
        """Whether what a fused node makes is used by another kernel or by the caller, itself or a view of it."""
        region = self._region_of.get(node)
        if region is None or _is_view(node):
            return False
        return any(self._is_outside(user, region) for user in node.users)

    def _is_outside(self, user: torch.fx.Node, region: int) -> bool:
        if _is_view(user):
            return any(self._is_outside(other, region) for other in user.users)
        return self._region_of.get(user) != region


def _number_regions(nodes) -> dict[torch.fx.Node, int]:
    """Of each node that inductor fuses or that is a view: the number of its kernel."""
    regions, number = {}, 0
    for node in nodes:
        if node.op != "call_function":
            continue
        if _stands_alone(node):
            number += 1
        else:
            regions[node] = number
    return regions


def _stands_alone(node: torch.fx.Node) -> bool:
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    return name in ("mm", "addmm", "bmm", "baddbmm", "embedding", "index_select") or "attention" in name


def _is_view(node: torch.fx.Node) -> bool:
    return node.target is operator.getitem or getattr(node.target, "overloadpacket", None) in _VIEWS


def _base(node: torch.fx.Node) -> torch.fx.Node:
    while _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _active_trace() -> StepTrace | None:
    return next((mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, StepTrace)), None)


@contextlib.contextmanager
def _unseen(values):
    """Inside, the trace sees nothing, and everything that is made is without memory."""
    fakes = detect_fake_mode([value for value in tree_leaves(values) if isinstance(value, torch.Tensor)])
    with _disable_current_modes(), fakes or contextlib.nullcontext():
        yield


def _count(trace: StepTrace | None, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
    if trace is not None:
        trace.count_kernel(inputs, outputs)


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
