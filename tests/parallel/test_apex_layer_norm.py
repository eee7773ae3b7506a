"""LayerNorm over Apex's function, for which torch's stands here."""

import torch

from robustbert.parallel.apex_layer_norm import layer_norm_class, layer_norm_over


def test_without_apex_it_is_torchs():
    assert layer_norm_class() is torch.nn.LayerNorm


def test_it_calls_the_function_but_where_it_is_compiled():
    calls = []

    def function(x, weight, bias, normalized_shape, eps):
        calls.append(normalized_shape)
        return torch.nn.functional.layer_norm(x, normalized_shape, weight, bias, eps)

    norm = layer_norm_over(function)(8, eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(5, 8)
    expected = torch.nn.functional.layer_norm(x, (8,), norm.weight, norm.bias, 1e-3)
    assert norm(x).equal(expected) and calls == [(8,)]
    assert torch.compile(norm, backend="eager", fullgraph=True)(x).equal(expected) and len(calls) == 1
    assert list(norm.state_dict()) == list(torch.nn.LayerNorm(8).state_dict())
