"""Attention in segments gives what scaled_dot_product_attention gives, and makes no mask."""

import json
import sys

import pytest
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig

from robustbert.finetune import attention
from robustbert.finetune.attention import attend_in_segments
from robustbert.model.attention import BLOCKED, EFFICIENT, FLASH, attend_plainly, choose_kernel
from robustbert.model.attention import attend_to_segments as real_kernels

LENGTHS, VOCABULARY, LAYERS = (9, 16, 5, 12), 60, 2
ON_CPU = (torch.device("cpu"), torch.float32)
HEADS = {
    "AutoModelForSequenceClassification": lambda out: out.logits,
    "AutoModelForQuestionAnswering": lambda out: torch.stack([out.start_logits, out.end_logits], -1),
    "AutoModelForMultipleChoice": lambda out: out.logits,
    "AutoModelForMaskedLM": lambda out: out.logits,
}
needs_interface = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason=f"transformers {transformers.__version__} has no mask interface for encoders; 5.0 has"
)


def build_model(kind="roberta", head="AutoModelForSequenceClassification", dropout=0.0, **changes):
    shape = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=64)
    if kind == "distilbert":
        shape = dict(vocab_size=VOCABULARY, dim=32, n_layers=LAYERS, n_heads=2, hidden_dim=64, dropout=dropout, attention_dropout=dropout)
    else:
        shape |= dict(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    if kind == "electra":
        shape |= dict(embedding_size=32)
    config = AutoConfig.for_model(kind, **shape, pad_token_id=1, max_position_embeddings=40, **changes)
    torch.manual_seed(0)
    return getattr(transformers, head).from_config(config)


def padded_inputs(as_choices=False):
    """Rows of LENGTHS, padded on the right; as_choices: two questions of two options."""
    ids_RS = torch.randint(5, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    mask_RS = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    inputs = {"input_ids": ids_RS.where(mask_RS == 1, 1), "attention_mask": mask_RS}
    return {name: rows.view(2, 2, -1) for name, rows in inputs.items()} if as_choices else inputs


@pytest.fixture
def plain_kernel(monkeypatch):
    """Segments everywhere, with the plain definition as the kernel; returns what each layer was given: (Rows, dropout)."""
    given = []

    def plain(query, key, value, rows, dropout, kernel):
        given.append((rows, dropout))
        return attend_plainly(torch.stack([query, key, value], 2), rows)

    monkeypatch.setattr(attention, "choose_kernel", lambda device, dtype, head_size: EFFICIENT)
    monkeypatch.setattr(attention, "attend_to_segments", plain)
    return given


class Operators(TorchDispatchMode):
    """Notes the names of operators, and the largest boolean tensor that came out of one."""

    def __init__(self):
        super().__init__()
        self.names, self.largest_mask = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.names.append(function.overloadpacket.__name__)
        masks = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.dtype == torch.bool]
        self.largest_mask = max([self.largest_mask, *masks])
        return out


def check_against_sdpa(kind, head):
    """A model of this kind gives SDPA's logits and gradients, once it attends in segments."""
    inputs, logits_of = padded_inputs(as_choices="Choice" in head), HEADS[head]
    results = []
    for in_segments in (False, True):
        model = build_model(kind, head)
        assert model.config._attn_implementation == "sdpa"
        if in_segments:
            assert attend_in_segments(model, *ON_CPU)
        logits = logits_of(model(**inputs))
        if logits.shape[:2] == inputs["input_ids"].shape:  # one a token: padding is no answer
            logits = logits[inputs["attention_mask"] == 1]
        logits.square().sum().backward()
        results.append((logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (logits, gradients), (other_logits, other_gradients) = results
    torch.testing.assert_close(logits, other_logits, atol=1e-5, rtol=0)
    assert gradients.keys() == other_gradients.keys() and any("query" in name or "q_lin" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], atol=1e-5, rtol=1e-4, msg=name)


@needs_interface
@pytest.mark.parametrize("kind", ["roberta", "bert", "xlm-roberta", "camembert", "electra", "distilbert"])
@pytest.mark.parametrize("head", HEADS)
def test_logits_and_gradients_are_those_of_sdpa(plain_kernel, kind, head):
    check_against_sdpa(kind, head)
    assert len(plain_kernel) == LAYERS


@needs_interface
@pytest.mark.skipif(choose_kernel(*ON_CPU, 16) != BLOCKED, reason="the kernel on CPU is not compiled here")
@pytest.mark.parametrize("kind", ["roberta", "electra", "distilbert"])
@pytest.mark.parametrize("head", HEADS)
def test_on_a_cpu_its_kernel_gives_what_sdpa_gives(kind, head):
    check_against_sdpa(kind, head)
    model = build_model(kind, head)
    assert attend_in_segments(model, *ON_CPU) and model.base_model.config._attn_implementation == "robustbert_cpu"


@needs_interface
def test_segments_are_computed_once_and_dropout_is_for_training_only(plain_kernel):
    model = build_model(dropout=0.25)
    assert attend_in_segments(model, *ON_CPU)
    model.train()(**padded_inputs())
    model.eval()(**padded_inputs())
    assert [dropout for _, dropout in plain_kernel] == [0.25] * LAYERS + [0.0] * LAYERS
    first, second = plain_kernel[:LAYERS]
    assert first[0].segments_N is second[0].segments_N
    assert first[0].segments_N.tolist() == [0, 9, 16, 32, 32, 37, 48, 60, 64]
    assert (first[0].num_rows, first[0].length) == (4, 16)


@needs_interface
@pytest.mark.parametrize("in_segments", [False, True])
def test_no_mask_is_made_and_the_host_reads_nothing(monkeypatch, in_segments):
    monkeypatch.setattr(attention, "choose_kernel", lambda device, dtype, head_size: EFFICIENT)
    monkeypatch.setattr(attention, "attend_to_segments", lambda query, key, value, *others: query + key + value)
    model = build_model().eval()
    if in_segments:
        attend_in_segments(model, *ON_CPU)
    with Operators() as operators:
        model(**padded_inputs())
    most = len(LENGTHS) * max(LENGTHS)
    assert (operators.largest_mask <= most) == in_segments  # SDPA's has a row for each of a row's tokens
    assert ("_local_scalar_dense" not in operators.names) == in_segments  # transformers asks whether there is padding at all


@needs_interface
def test_the_kernel_reads_what_the_projections_wrote(monkeypatch):
    """No layout is copied on the way there, nor on the way back."""
    written, read, returned = [], [], []

    def watched(query, key, value, *others):
        read.extend(heads.untyped_storage().data_ptr() for heads in (query, key, value))
        returned.append(query + key + value)
        return returned[-1]

    monkeypatch.setattr(attention, "choose_kernel", lambda device, dtype, head_size: EFFICIENT)
    monkeypatch.setattr(attention, "attend_to_segments", watched)
    model, taken = build_model().eval(), []
    attend_in_segments(model, *ON_CPU)
    for layer in model.base_model.encoder.layer:
        for projection in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
            projection.register_forward_hook(lambda module, inputs, output: written.append(output))
        layer.attention.output.dense.register_forward_hook(lambda module, inputs, output: taken.append(inputs[0]))
    model(**padded_inputs())
    assert read == [output.untyped_storage().data_ptr() for output in written] and len(read) == 3 * LAYERS
    assert [x.data_ptr() for x in taken] == [x.data_ptr() for x in returned]


@needs_interface
@pytest.mark.parametrize("kernel, dtype", [(EFFICIENT, torch.float32), (FLASH, torch.bfloat16)])
def test_the_kernels_take_the_shapes(monkeypatch, kernel, dtype):
    """On fake tensors, forward and backward, in the precision that autocast gives."""
    seen = []

    def watched(query, key, value, rows, dropout, chosen):
        seen.append((chosen, query.dtype, query.shape, dropout))
        return real_kernels(query, key, value, rows, dropout, chosen)

    by_dtype = {torch.float32: EFFICIENT, torch.bfloat16: FLASH}
    monkeypatch.setattr(attention, "choose_kernel", lambda device, dtype, head_size: by_dtype[dtype])
    monkeypatch.setattr(attention, "attend_to_segments", watched)
    inputs = padded_inputs()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build_model(dropout=0.1)
        assert attend_in_segments(model, ON_CPU[0], dtype)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(**inputs).logits.sum()
        loss.backward()
        gradient = model.base_model.encoder.layer[0].attention.self.key.weight.grad
    assert seen == [(kernel, dtype, (len(LENGTHS) * max(LENGTHS), 2, 16), 0.1)] * LAYERS
    assert gradient.shape == (32, 32) and gradient.dtype == torch.float32


@needs_interface
def test_full_rows_need_no_padding_mask(plain_kernel):
    model, ids_RS = build_model().eval(), padded_inputs()["input_ids"][1:2]
    logits = model(ids_RS).logits
    assert attend_in_segments(model, *ON_CPU)
    torch.testing.assert_close(model(ids_RS).logits, logits, atol=1e-5, rtol=0)
    assert plain_kernel[0][0].segments_N.tolist() == [0, 16, 16]


def test_without_a_kernel_the_encoder_keeps_sdpa():
    model = build_model()
    in_fp16 = torch.device("cpu"), torch.float16
    assert not attend_in_segments(model, *in_fp16) and model.config._attn_implementation == "sdpa"


@needs_interface
def test_the_precision_decides_the_kernel(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("robustbert.model.attention.works", lambda *place: True)
    for dtype, kernel in ((torch.float32, EFFICIENT), (torch.bfloat16, FLASH)):
        model = build_model()
        assert attend_in_segments(model, torch.device("cuda", 0), dtype)
        assert model.config._attn_implementation == attention.NAMES[kernel]


@needs_interface
def test_compiled_layers_share_a_graph_for_all_lengths(plain_kernel, monkeypatch):
    from robustbert.finetune.models import compile_layers

    def kernel(query, key, value, rows, dropout, kernel):  # traceable, with the same shapes
        return query.tanh() * key + value * rows.segments_N[1]

    monkeypatch.setattr(attention, "attend_to_segments", kernel)
    graphs, results = [], []
    for is_compiled in (False, True):
        model = build_model().eval()
        attend_in_segments(model, *ON_CPU)
        if is_compiled:
            compile_layers(model, backend=lambda graph, inputs: graphs.append(graph) or graph)
        for length in (16, 11, 14):
            inputs = {name: rows[:, :length] for name, rows in padded_inputs().items()}
            model(**inputs).logits.square().sum().backward()
        results.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert len(graphs) == 1
    for compiled, eager in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-5)
    assert all("_orig_mod" not in name for name in model.state_dict())


@needs_interface
def test_a_saved_model_names_no_attention_of_ours(tmp_path, plain_kernel):
    model = build_model().eval()
    attend_in_segments(model, *ON_CPU)
    logits = model(**padded_inputs()).logits
    model.save_pretrained(tmp_path)
    assert "robustbert" not in (tmp_path / "config.json").read_text() and json.loads((tmp_path / "config.json").read_text())
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert again.config._attn_implementation == "sdpa"
    torch.testing.assert_close(again(**padded_inputs()).logits, logits, atol=1e-5, rtol=0)


@needs_interface
def test_the_model_with_answerability_attends_in_segments(plain_kernel):
    from robustbert.finetune.tasks.squad.model import _answerability_class, span_scores

    plain, ours = (_answerability_class(build_model().config)(build_model().config).eval() for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    assert attend_in_segments(ours, *ON_CPU)
    for one, other in zip(span_scores(plain, padded_inputs()), span_scores(ours, padded_inputs()), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert len(plain_kernel) == LAYERS


@pytest.mark.parametrize("kind", ["mpnet", "modernbert", "deberta-v2"])
def test_encoders_that_were_not_checked_keep_theirs(plain_kernel, kind):
    head = "AutoModelForSequenceClassification"
    model = build_model(kind, head) if kind != "modernbert" else build_modernbert(head)
    before = model.config._attn_implementation
    assert not attend_in_segments(model, *ON_CPU) and model.config._attn_implementation == before
    model(**padded_inputs())
    assert not plain_kernel


def build_modernbert(head):
    config = AutoConfig.for_model(
        "modernbert", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, pad_token_id=1,
        bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
    )
    return getattr(transformers, head).from_config(config)


def test_versions_without_the_interface_keep_sdpa(monkeypatch, plain_kernel):
    """transformers 4: RoBERTa's code makes its own mask of four dimensions."""
    model = build_model()
    module = sys.modules[type(model.base_model).__module__]
    monkeypatch.delattr(module, "create_bidirectional_mask", raising=False)
    assert not attend_in_segments(model, *ON_CPU) and model.config._attn_implementation == "sdpa"


def test_decoders_keep_theirs(plain_kernel):
    assert not attend_in_segments(build_model("bert", "AutoModelForCausalLM", is_decoder=True), *ON_CPU)
