"""Private names of torch and of threading: each does what its public replacement does, and both are there to use."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fae.kernels import torch_private


@pytest.mark.parametrize("private", [True, False])
def test_several_copies(private, monkeypatch):
    if not private:
        monkeypatch.delattr(torch, "_foreach_copy_")
    sources = [torch.arange(6.0).view(2, 3), torch.tensor([7.0])]
    targets = [torch.zeros(2, 3), torch.zeros(1)]
    torch_private.copy_all(targets, sources)
    for target, source in zip(targets, sources, strict=True):
        assert torch.equal(target, source)


@pytest.mark.parametrize("private", [True, False])
def test_a_layer_with_relu(private, monkeypatch):
    if not private:
        monkeypatch.delattr(torch, "_addmm_activation")
    bias, x, weight = torch.tensor([1.0, -20.0]), torch.arange(6.0).view(2, 3), torch.ones(3, 2)
    assert torch_private.addmm_relu(bias, x, weight).tolist() == [[4.0, 0.0], [13.0, 0.0]]


def test_more_recompiles_are_allowed_never_fewer():
    import torch._dynamo.config as dynamo

    before = dynamo.recompile_limit
    try:
        torch_private.allow_recompiles(before + 5)
        torch_private.allow_recompiles(1)
        assert dynamo.recompile_limit == before + 5
    finally:
        dynamo.recompile_limit = before


def test_a_function_runs_before_threads_are_joined():
    code = (
        "import threading\n"
        "from fae.kernels.torch_private import before_threads_are_joined\n"
        "event = threading.Event()\n"
        "threading.Thread(target=event.wait).start()\n"
        "before_threads_are_joined(event.set)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_given_gradient_flows_back_without_symbolic_algebra():
    code = (
        "import sys, torch\n"
        "from fae.kernels.torch_private import run_backward\n"
        "weight = torch.arange(6.0).reshape(2, 3).requires_grad_()\n"
        "x, grad = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.25, -3.0])\n"
        "for _ in range(2):\n"
        "    run_backward((weight * weight) @ x, grad)\n"
        "assert not {'sympy', 'torch.fx.experimental.symbolic_shapes'} & set(sys.modules)\n"
        "found, weight.grad = weight.grad, None\n"
        "for _ in range(2):\n"
        "    ((weight * weight) @ x).backward(grad)\n"
        "assert found.abs().min() == 0 and torch.equal(found, weight.grad)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(RuntimeError, match=r"a gradient of \(3,\) for an output of \(2,\)"):
        torch_private.run_backward(torch.ones(2, requires_grad=True) * 2, torch.ones(3))
    output = torch.ones(2, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:  # a torch that has renamed it
        patch.delattr(torch.autograd.graph, "_engine_run_backward")
        torch_private.run_backward(output * 3, torch.tensor([1.0, 2.0]))
    assert output.grad.tolist() == [3.0, 6.0]
