"""Widths padded for tensor cores: the same numbers, and no padding where it does not help."""

from __future__ import annotations

import pytest
import torch

from fae.models import layers
from fae.models.layers import MLP, DotInteraction, linear


def outputs_and_gradients(make, inputs: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(3)
    module, inputs = make(), inputs.clone().requires_grad_()
    result = module(inputs)
    (result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum().backward()
    return [result.detach(), inputs.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("widths", [(1, 16), (22, 15, 15), (30, 60, 1), (16, 32, 8)])
@pytest.mark.parametrize("final_relu", [False, True])
def test_padded_widths_change_no_number(widths, final_relu, monkeypatch):
    # One column more than the first layer takes, as behind a padded interaction: it must be let go.
    inputs = torch.randn(9, widths[0] + 1, generator=torch.Generator().manual_seed(1))
    plain = outputs_and_gradients(lambda: MLP(widths, final_relu=final_relu), inputs)
    products = []
    monkeypatch.setattr(layers, "_multiplies_bf16", lambda x: True)
    original = torch.nn.functional.linear

    def watched(x, weight, bias=None):
        products.append(weight.shape)
        return original(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    padded = outputs_and_gradients(lambda: MLP(widths, final_relu=final_relu), inputs)
    assert len(products) == len(widths) - 1
    assert all(size % 8 == 0 for shape in products for size in shape)
    assert [each.shape for each in padded] == [each.shape for each in plain]
    for one, other in zip(padded, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_one_product_with_padded_widths(monkeypatch):
    inputs, weight = torch.randn(5, 15), torch.randn(13, 15)
    plain = linear(inputs, weight)
    monkeypatch.setattr(layers, "_multiplies_bf16", lambda x: True)
    torch.testing.assert_close(linear(inputs, weight), plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(linear(inputs, weight, torch.ones(13)), plain + 1, rtol=1e-5, atol=1e-6)


def test_what_is_even_is_left_alone(monkeypatch):
    monkeypatch.setattr(layers, "_multiplies_bf16", lambda x: True)
    monkeypatch.setattr(torch.nn.functional, "pad", lambda *_: pytest.fail("copied"))
    MLP((32, 64, 24, 8), final_relu=False)(torch.randn(4, 32))


@pytest.mark.parametrize("width", [15, 16])
def test_a_product_of_more_dimensions(width, monkeypatch):
    inputs, weight, bias = torch.randn(2, 5, width), torch.randn(3, width), torch.randn(3)
    expected = torch.nn.functional.linear(inputs, weight, bias)
    monkeypatch.setattr(layers, "_multiplies_bf16", lambda x: True)
    torch.testing.assert_close(linear(inputs, weight, bias), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("vectors", [1, 2, 3, 8, 12])
def test_interactions_under_a_compiler_are_the_same(vectors, monkeypatch):
    inputs = torch.randn(6, vectors, 4)
    interaction = DotInteraction(vectors)
    expected = interaction(inputs)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(interaction(inputs), expected, rtol=1e-5, atol=1e-6)


def test_nothing_is_padded_on_a_cpu(monkeypatch):
    monkeypatch.setattr(layers, "_even_linear", lambda *_: pytest.fail("padded"))
    with torch.autocast("cpu", torch.bfloat16):
        MLP((15, 15, 1), final_relu=False)(torch.randn(4, 15))
        linear(torch.randn(4, 15), torch.randn(15, 15))
