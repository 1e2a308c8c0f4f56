"""Private names of torch and of threading that FAE uses, each behind a function, with the versions it was checked on.

Checked on torch 2.11 and 2.13 and on Python 3.11. A name that a later version drops is to be replaced here alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def raw_stream_getter() -> Callable[[int], int] | None:
    """A function from a device's number to the handle of its current stream; None if torch has none.

    It takes 0.1 us, ``torch.cuda.current_stream`` takes 2. A torch without CUDA may lack it.
    """
    return getattr(torch._C, "_cuda_getCurrentRawStream", None)


def busy_stream(cycles: int) -> None:
    """Keep the current CUDA stream busy for that many clock cycles, for tests. There is no public equivalent."""
    torch.cuda._sleep(cycles)


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each source into the target of the same place, by one launch for all of them where torch can."""
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def scale_all(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply each tensor by one number (float32, no dimensions), by one launch for all of them where torch can."""
    if tensors and hasattr(torch, "_foreach_mul_"):
        torch._foreach_mul_(tensors, factor)
        return
    for tensor in tensors:
        tensor.mul_(factor)


def addmm_relu(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``relu(x @ weight + bias)`` by one kernel, whose epilogue adds the bias and takes the maximum.

    Without the private function torch needs a second kernel, and the last bits of the sums may differ.
    """
    if hasattr(torch, "_addmm_activation"):
        return torch._addmm_activation(bias, x, weight)
    return torch.relu_(torch.addmm(bias, x, weight))


def run_backward(output: Tensor, grad: Tensor) -> None:
    """``output.backward(grad)``, whose check of shapes imports torch's symbolic algebra: a second or three of a run.

    Raises
    ------
    RuntimeError
        If the shapes differ.
    """
    if output.shape != grad.shape:
        raise RuntimeError(f"a gradient of {tuple(grad.shape)} for an output of {tuple(output.shape)}")
    run = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if run is None:
        output.backward(grad)
        return
    run((output,), (grad,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def start_backward_thread(device: torch.device) -> None:
    """Start the thread in which torch runs backward passes on a GPU, and let it make its context by an easy kernel.

    Where a product of matrices is its first work, torch warns that there was no context and makes one.
    """
    leaf = torch.zeros(1, device=device, requires_grad=True)
    run_backward(leaf * 2.0, torch.ones(1, device=device))


def allow_recompiles(count: int) -> None:
    """Let ``torch.compile`` make at least `count` compiled forms of one function before it gives up.

    torch has no public setting for it; the name is that of torch 2.6 and later.
    """
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = max(dynamo.recompile_limit, count)


def before_threads_are_joined(function: Callable[[], None]) -> None:
    """Call a function at exit before the interpreter joins threads, which ``atexit`` does only after.

    Does nothing on a Python that has no such hook; then a stream that is left open keeps the process.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(function)


def symmetric_memory() -> Any:
    """torch's memory that all GPUs of a host map (``empty``, ``rendezvous``); None where this torch has none."""
    try:
        import torch.distributed._symmetric_memory as found
    except ImportError:
        return None
    return found
