"""A fake CUDA driver over CPU memory: every command is done at once, when it is started.

It tests that every byte goes where it should. Nothing overlaps here as it does on a GPU; so that tests can check what
has to wait for what, all commands are written down in `order`.
"""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from itertools import count

import numpy as np
import torch

from fae.streaming import cuda_commands, gpu_transfer, input_ring, staging
from fae.streaming.gpu_transfer import GpuTransfer

NOT_READY, SLEEP = 600, 12345
_handles = count(1)
order: list[tuple] = []
"""All that streams did since `install_fake_cuda`: ``("wait", stream, event)``, ``("record", stream, event)``,
``("follow", stream, other stream)``, ``("copy", stream, target, source, bytes)``, ``("fill", stream)``,
``("delay", stream)``, and what the host did: ``("seen", event)`` and ``("synchronize", stream)``. Tests add what is
computed."""


class Stream:
    """A CUDA stream: a handle, no more."""

    def __init__(self, *_: object) -> None:
        self.cuda_stream = next(_handles)

    def wait_event(self, event: Event) -> None:
        """Only written down: the event has happened."""
        order.append(("wait", self.cuda_stream, event.cuda_event))

    def wait_stream(self, stream: Stream) -> None:
        """Only written down: all of it has happened."""
        order.append(("follow", self.cuda_stream, stream.cuda_stream))

    def synchronize(self) -> None:
        """Only written down: all of it has happened."""
        order.append(("synchronize", self.cuda_stream))


class Event:
    """A CUDA event: a handle, once it is recorded."""

    def __init__(self) -> None:
        self.cuda_event = 0

    def record(self, stream: Stream) -> None:
        """Make the handle, as torch does at the first record."""
        self.cuda_event = self.cuda_event or next(_handles)
        order.append(("record", stream.cuda_stream, self.cuda_event))


class Driver:
    """The driver's functions, as an array for `fae.streaming.cuda_commands`.

    Attributes
    ----------
    functions
        In the place of `fae.streaming.cuda_commands.command_functions`.
    calls
        The calls so far, name and arguments.
    refuse, refuse_number
        A call that fails, by its name and arguments or by its number, from 1.
    num_queries
        How often the host has queried an event.
    refuse_query
        A query that fails, by its number, from 1.
    patience
        How often the host is told that an event has not happened before it is told that it has.
    """

    def __init__(self) -> None:
        word = ctypes.c_uint64
        self.calls: list[tuple] = []
        self.refuse: tuple | None = None
        self.refuse_number = self.refuse_query = 0
        self.patience = self.num_queries = 0
        self._kept = (
            ctypes.CFUNCTYPE(ctypes.c_int, word, word, word)(self._wait),
            ctypes.CFUNCTYPE(ctypes.c_int, word, word, word, word)(self._copy),
            ctypes.CFUNCTYPE(ctypes.c_int, word, word)(self._record),
            ctypes.CFUNCTYPE(ctypes.c_int, word, ctypes.c_uint32, word, word)(self._fill),
            ctypes.CFUNCTYPE(ctypes.c_int, word, word, word)(self._delay),
            ctypes.CFUNCTYPE(ctypes.c_int, word)(self._query),
        )
        addresses = [ctypes.cast(each, ctypes.c_void_p).value for each in self._kept]
        self.functions = np.array([*addresses, SLEEP], np.int64)

    def _call(self, *call) -> int:
        self.calls.append(call)
        return 700 if call == self.refuse or len(self.calls) == self.refuse_number else 0

    def _wait(self, stream, event, flags) -> int:
        order.append(("wait", stream, event))
        return self._call("wait", stream, event, flags)

    def _record(self, event, stream) -> int:
        order.append(("record", stream, event))
        return self._call("record", event, stream)

    def _fill(self, target, bits, count, stream) -> int:
        np.ctypeslib.as_array(ctypes.cast(target, ctypes.POINTER(ctypes.c_uint32)), (count,))[:] = bits
        order.append(("fill", stream))
        return self._call("fill", count, stream)

    def _delay(self, stream, function, microseconds) -> int:
        assert function == SLEEP
        order.append(("delay", stream))
        return self._call("delay", microseconds, stream)

    def _query(self, event) -> int:
        self.num_queries += 1
        if self.num_queries == self.refuse_query:
            return 700
        if self.num_queries % (self.patience + 1):
            return NOT_READY
        order.append(("seen", event))
        return 0

    def _copy(self, target, source, num_bytes, stream) -> int:
        ctypes.memmove(target, source, num_bytes)
        order.append(("copy", stream, target, source, num_bytes))
        return self._call("copy", num_bytes, stream)


def install_fake_cuda(monkeypatch) -> Driver:
    """Let placement ``tiered`` on a CPU copy rows as on a GPU, by the fake driver, which is returned."""
    made, current = Driver(), Stream()
    order.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(gpu_transfer, "busy_stream", lambda cycles: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(cuda_commands, "command_functions", lambda: made.functions)
    monkeypatch.setattr(cuda_commands, "current_stream", lambda device: current.cuda_stream)
    monkeypatch.setattr(cuda_commands, "current_context", lambda: 0)

    def transfer(tiers, buffers, depth, device, faults, *, by_location):
        return GpuTransfer(tiers, buffers, depth, device, faults, by_location=by_location)

    monkeypatch.setattr(staging, "make_transfer", transfer)
    return made


def install_fake_inputs(monkeypatch, *, locked: bool = True) -> None:
    """After `install_fake_cuda`: let input rings, too, copy as on a GPU, from locked files or from pinned buffers."""
    made, zeros = input_ring.InputRing.__init__, torch.zeros

    def on_gpu(ring, layout, depth, device, *, held=0) -> None:
        made(ring, layout, depth, device, held=held)
        ring._on_gpu, ring._stream = True, Stream()
        ring._arrived, ring._consumed = (cuda_commands.new_events(depth, ring._stream) for _ in range(2))

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(input_ring.InputRing, "__init__", on_gpu)
    monkeypatch.setattr(torch, "zeros", lambda *shape, pin_memory=False, **kind: zeros(*shape, **kind))
    monkeypatch.setattr(input_ring.InputRing, "_register", lambda ring, batches, table: locked)
    monkeypatch.setattr(input_ring, "_SMALLEST_MAPPED", 0)
