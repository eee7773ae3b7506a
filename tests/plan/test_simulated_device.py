"""A simulated device: every collective is answered and counted; a simulated GPU tells waits of the host; no real one is touched."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from robustbert.config import ParallelConfig, load_config
from robustbert.cpu_megatron import CudaMeansCpu
from robustbert.hardware import load_profile
from robustbert.parallel.mesh import open_mesh
from robustbert.plan.report import build_plan
from robustbert.plan.simulated_cuda import ASYNCHRONOUS_COPY, BLOCKING_COPY, READ, SYNCHRONIZE
from robustbert.plan.simulated_device import Answers, SimulatedDevice
from robustbert.plan.simulation import fake_job, first_rank_of_stage, simulate_step
from robustbert.plan.trace import StepTrace

SMALL = (
    "model: {num_layers: 4, hidden_size: 64, ffn_hidden_size: 128, num_attention_heads: 4, vocab_size: 1000}\n"
    "train: {micro_batch_size: 2, global_batch_size: 32}\n"
    "data: {tokenizer: t, train: [{path: p}], sequence_length: 32}\n"
)
SIZE = 4 * 8  # bytes of whole(): a message of four ranks, two numbers each


def configured(tmp_path, *overrides):
    (tmp_path / "run.yaml").write_text(SMALL)
    return load_config(tmp_path / "run.yaml", overrides)


def whole():
    return torch.ones(8)


def part():
    return torch.ones(2)


def parts():
    return [part() for _ in range(4)]


def coalesced(call):
    with dist._coalescing_manager(dist.group.WORLD, async_ops=True) as manager:
        call()
    manager.wait()


def exchange():
    requests = dist.batch_isend_irecv([dist.P2POp(dist.isend, whole(), 1), dist.P2POp(dist.irecv, whole(), 1)])
    for request in requests:
        request.wait()


COLLECTIVES = {
    "all_reduce": (lambda: dist.all_reduce(whole(), async_op=True), [("all_reduce", SIZE)]),
    "all_reduces as one": (lambda: coalesced(lambda: [dist.all_reduce(p) for p in parts()]), [("all_reduce", SIZE)]),
    "all_reduce_coalesced": (lambda: dist.all_reduce_coalesced(parts(), async_op=True), [("all_reduce", SIZE)]),
    "all_gather": (lambda: dist.all_gather(parts(), part(), async_op=True), [("all_gather", SIZE)]),
    "all_gather_coalesced": (
        lambda: dist.all_gather_coalesced([parts() for _ in range(4)], parts(), async_op=True),
        [("all_gather", 4 * SIZE)],
    ),
    "all_gather_into_tensor": (lambda: dist.all_gather_into_tensor(whole(), part(), async_op=True), [("all_gather", SIZE)]),
    "all_gathers as one": (
        lambda: coalesced(lambda: [dist.all_gather_into_tensor(whole(), part()) for _ in range(3)]),
        [("all_gather", 3 * SIZE)],
    ),
    "reduce_scatter": (lambda: dist.reduce_scatter(part(), parts(), async_op=True), [("reduce_scatter", SIZE)]),
    "reduce_scatter_tensor": (lambda: dist.reduce_scatter_tensor(part(), whole(), async_op=True), [("reduce_scatter", SIZE)]),
    "reduce_scatters as one": (
        lambda: coalesced(lambda: [dist.reduce_scatter_tensor(part(), whole()) for _ in range(3)]),
        [("reduce_scatter", 3 * SIZE)],
    ),
    "broadcast": (lambda: dist.broadcast(whole(), 1, async_op=True), [("broadcast", SIZE)]),
    "reduce": (lambda: dist.reduce(whole(), 1, async_op=True), [("reduce", SIZE)]),
    "gather on the root": (lambda: dist.gather(part(), parts(), 0, async_op=True), [("gather", SIZE)]),
    "gather elsewhere": (lambda: dist.gather(part(), None, 1, async_op=True), [("gather", SIZE)]),
    "scatter on the root": (lambda: dist.scatter(part(), parts(), 0, async_op=True), [("scatter", SIZE)]),
    "scatter elsewhere": (lambda: dist.scatter(part(), None, 1, async_op=True), [("scatter", SIZE)]),
    "all_to_all": (lambda: dist.all_to_all(parts(), parts(), async_op=True), [("all_to_all", SIZE)]),
    "all_to_all_single": (lambda: dist.all_to_all_single(whole(), whole(), async_op=True), [("all_to_all", SIZE)]),
    "send": (lambda: dist.isend(whole(), 1), [("send", SIZE)]),
    "receive": (lambda: dist.irecv(whole(), 1), [("receive", SIZE)]),
    "receive from any": (lambda: dist.irecv(whole()), [("receive", SIZE)]),
    "send and receive": (exchange, [("send", SIZE), ("receive", SIZE)]),
    "barrier": (lambda: dist.barrier(async_op=True), [("barrier", 0)]),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_every_collective_is_answered_and_counted(name):
    call, expected = COLLECTIVES[name]
    with fake_job(0, 4), FakeTensorMode(allow_non_fake_inputs=True), Answers(), StepTrace() as trace:
        work = call()
        if work is not None:
            work.wait()
    assert [(collective.kind, collective.num_bytes) for collective in trace.work.collectives] == expected
    assert all(collective.ranks == (0, 1, 2, 3) for collective in trace.work.collectives)


LAYOUTS = {
    "1": [],
    "2 data": ["cluster.processes_per_node=2"],
    "8 data": ["cluster.processes_per_node=8"],
    "2 tensor": ["cluster.processes_per_node=2", "parallel.tensor=2"],
    "2 pipeline": ["cluster.processes_per_node=2", "parallel.pipeline=2"],
    "8 all": ["cluster.processes_per_node=8", "parallel.tensor=2", "parallel.pipeline=2"],
    "8 all, sequence": ["cluster.processes_per_node=8", "parallel.tensor=2", "parallel.pipeline=2", "parallel.sequence=true"],
    "2 pipeline, pairs": [
        *("cluster.processes_per_node=2", "parallel.pipeline=2", "data.format=segment-pair"),
        *("model.next_sentence_head=true", "model.num_token_types=2"),
    ],
}
FINISHES = [("fp32", "adam"), ("bf16", "adam"), ("fp16", "adam"), ("bf16", "lamb")]
# Of all pairs these run by default: each layout and each finish once or twice.
PAIRS = [(name, *FINISHES[number % len(FINISHES)]) for number, name in enumerate(LAYOUTS)]
OTHER_PAIRS = [(name, *finish) for name in LAYOUTS for finish in FINISHES if (name, *finish) not in PAIRS]


def reductions(record) -> tuple[set[str], int]:
    """Kinds and bytes of what the data-parallel ranks exchange in a step to reduce gradients and to gather weights."""
    exchanged = [c for c in record.end_of_step.collectives if record.axes.get(c.ranks) == "data"]
    return {c.kind for c in exchanged}, sum(c.num_bytes for c in exchanged if c.kind in ("all_reduce", "reduce_scatter"))


@pytest.mark.parametrize(
    ("name", "precision", "optimizer"), [*PAIRS, *[pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHER_PAIRS]]
)
def test_the_optimizer_may_be_whole_or_split(name, precision, optimizer, tmp_path):
    common = [*LAYOUTS[name], f"precision={precision}", f"optim.name={optimizer}"]
    configs = {
        is_split: configured(tmp_path, *common, f"parallel.distributed_optimizer={str(is_split).lower()}")
        for is_split in (True, False)
    }
    processes = configs[True].cluster.num_processes
    data = configs[True].data_parallel_size(processes)
    for stage in range(configs[True].parallel.pipeline):
        rank = first_rank_of_stage(configs[True], processes, stage)
        split, whole_one = (simulate_step(config, processes, rank) for config in configs.values())
        assert split.micro_batches.flops == whole_one.micro_batches.flops > 0
        if data == 1:
            assert reductions(split) == reductions(whole_one) == (set(), 0)
            continue
        gradients = 4 * whole_one.position.num_parameters  # in fp32; beside them a few counts
        assert reductions(whole_one) == ({"all_reduce"}, pytest.approx(gradients, rel=0.01))
        kinds, reduced = reductions(split)
        assert {"reduce_scatter", "all_gather"} <= kinds and reduced == pytest.approx(gradients, rel=0.01)
        assert split.position.optimizer_bytes == pytest.approx(whole_one.position.optimizer_bytes / data, rel=0.1)


def test_a_plan_with_a_whole_optimizer_is_told(tmp_path):
    config = configured(tmp_path, "cluster.processes_per_node=2", "parallel.distributed_optimizer=false")
    (traffic,) = build_plan(config, load_profile("h100"), 264)["traffic"]
    assert (traffic["axis"], traffic["kind"]) == ("data", "all_reduce") and traffic["seconds"] > 0


@pytest.mark.parametrize("kernels", ["cuda", "cpu"])
def test_a_gpu_in_the_machine_changes_nothing_and_is_not_touched(kernels, tmp_path, monkeypatch):
    config = configured(tmp_path, "precision=bf16", "cluster.processes_per_node=4", "parallel.tensor=2")
    without = simulate_step(config, 4, 0, kernels)

    def touching(name):
        def touch(*args, **kwargs):
            raise AssertionError(f"the GPU was touched: torch.cuda.{name}")

        return touch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", touching("_lazy_init"))
    for name in ("current_device", "set_device", "synchronize", "device_count", "get_rng_state", "set_rng_state", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, touching(name))
    with_gpu = simulate_step(config, 4, 0, kernels)
    assert dataclasses.asdict(with_gpu) == dataclasses.asdict(without)
    assert torch.cuda.is_available()  # and afterwards it is there again
    with pytest.raises(RuntimeError, match="CUDA is in use here"):
        CudaMeansCpu()


@pytest.fixture
def simulated():
    """(list of what was watched) inside a simulated GPU."""
    seen = []
    device = SimulatedDevice.of("cuda", seen.append)
    with fake_job(0, 1), open_mesh(device, ParallelConfig()), device.without_memory():
        seen.clear()
        yield seen


def on_device():
    return torch.zeros(3, device="cuda")


WAITS = {
    "item": (lambda x: x.sum().item(), [READ]),
    "tolist": (lambda x: x.tolist(), [READ]),
    "bool": (lambda x: bool((x > 0).any()), [READ]),
    "float": (lambda x: float(x[0]), [READ]),
    "int": (lambda x: int(x[0]), [READ]),
    "cpu": (lambda x: x.cpu(), [READ]),
    "to the host": (lambda x: x.to("cpu"), [READ]),
    "to the host without waiting": (lambda x: x.to("cpu", non_blocking=True), [ASYNCHRONOUS_COPY]),
    "copy_ to the host": (lambda x: torch.zeros(3).copy_(x), [READ]),
    "equal": (lambda x: torch.equal(x, x), [READ]),
    "torch.tensor": (lambda x: torch.tensor([1.0, 2.0], device="cuda"), [BLOCKING_COPY]),
    "torch.tensor on the device of another": (lambda x: torch.tensor(2, device=x.device), [BLOCKING_COPY]),
    "torch.tensor of tensors": (lambda x: torch.tensor([x[0], x[1]], device="cuda"), [READ, READ, BLOCKING_COPY]),
    "to": (lambda x: torch.ones(3).to("cuda"), [BLOCKING_COPY]),
    "to, not pinned": (lambda x: torch.ones(3).to(x.device, non_blocking=True), [BLOCKING_COPY]),
    "to, pinned": (lambda x: torch.ones(3).pin_memory().to("cuda", non_blocking=True), [ASYNCHRONOUS_COPY]),
    "to, part of pinned": (lambda x: torch.empty(9, pin_memory=True)[3:].to("cuda", non_blocking=True), [ASYNCHRONOUS_COPY]),
    "to, pinned but waiting": (lambda x: torch.ones(3).pin_memory().to("cuda"), [BLOCKING_COPY]),
    "copy_": (lambda x: x.copy_(torch.ones(3)), [BLOCKING_COPY]),
    "copy_, pinned": (lambda x: x.copy_(torch.ones(3).pin_memory(), non_blocking=True), [ASYNCHRONOUS_COPY]),
    "copy_, to pinned": (lambda x: torch.empty_like(x, device="cpu", pin_memory=True).copy_(x, non_blocking=True).tolist(), [ASYNCHRONOUS_COPY]),
    "copy_, to not pinned": (lambda x: torch.zeros_like(x, device="cpu").copy_(x, non_blocking=True), [READ]),
    "cuda": (lambda x: torch.ones(3).cuda(), [BLOCKING_COPY]),
    "synchronize": (lambda x: torch.cuda.synchronize(), [SYNCHRONIZE]),
    "event": (lambda x: torch.cuda.Event().synchronize(), [SYNCHRONIZE]),
    "stream": (lambda x: torch.cuda.Stream().synchronize(), [SYNCHRONIZE]),
    "another stream": (lambda x: use_stream(x), []),
    "on the device": (lambda x: (x + 1).to("cuda").to(torch.bfloat16).sum(), []),
    "on the host": (lambda x: torch.ones(3).sum().item(), []),
}


def use_stream(x):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x.record_stream(stream)
        done = stream.record_event()
    torch.cuda.current_stream().wait_event(done)


@pytest.mark.parametrize("name", WAITS)
def test_the_hosts_waits_are_told(name, simulated):
    call, expected = WAITS[name]
    call(on_device())
    assert simulated == expected


def test_a_simulated_tensor_looks_like_one_of_cuda(simulated):
    x, on_host = on_device(), torch.zeros(3)
    assert isinstance(x, FakeTensor) and x.is_cuda and x.type() == "torch.cuda.FloatTensor" and x.get_device() == 0
    assert not isinstance(on_host, FakeTensor) and not on_host.is_cuda and on_host.type() == "torch.FloatTensor"
    assert isinstance(torch.zeros(3, device=x.device), FakeTensor) and torch.cuda.current_device() == 0
    with pytest.raises(RuntimeError, match="same device"):
        x + on_host


def test_what_went_to_the_device_comes_back(simulated):
    assert torch.tensor([3.0, 4.0], device="cuda").tolist() == [3.0, 4.0]
    assert torch.tensor(True).to("cuda").item() is True
    assert on_device().sum().item() == 1.0 and (on_device() > 0).any().item() is True


def test_a_backward_pass_asks_for_tensors_on_the_device(simulated):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return 2 * x

        @staticmethod
        def backward(context, gradient):
            buffer = torch.empty(gradient.shape, device=torch.cuda.current_device())
            assert buffer.is_cuda
            return buffer.copy_(gradient)

    x = on_device().requires_grad_()
    Twice.apply(x).sum().backward()
    assert x.grad.is_cuda and simulated == []


def test_dropout_keeps_a_byte_an_element_and_attention_no_scores(simulated):
    from torch.nn import functional as F

    x = torch.zeros(2, 4, 256, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    with StepTrace() as trace:
        dropped = F.dropout(x, 0.1)
    assert trace.live_bytes == x.numel() * (2 + 1), dropped
    for mask in (None, torch.ones(2, 1, 1, 256, dtype=torch.bool, device="cuda")):
        with StepTrace() as trace:
            context = F.scaled_dot_product_attention(x, x, x, attn_mask=mask, dropout_p=0.1)
        assert trace.peak_bytes < 1.5 * x.numel() * 2, context.shape  # the scores would be eight times as large
