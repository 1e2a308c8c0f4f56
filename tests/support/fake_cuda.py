"""A driver of CPU memory: streams that do everything at once, so what the GPU's moves ask for is done where they ask.

What the real driver overlaps does not happen here; that every byte goes where it should is tested with it. What must
wait for what is written down in `order`, for tests to follow.
"""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from itertools import count

import numpy as np
import torch

from fae.streaming import cuda_commands, input_ring, staging
from fae.streaming.gpu_transfer import GpuTransfer

NOT_READY, SLEEP = 600, 12345
_handles = count(1)
order: list[tuple] = []
"""All that was asked of streams since `stand_in`: ``("wait", stream, event)``, ``("record", stream, event)``,
``("copy", stream, target, source, bytes)``, ``("fill", stream)``, and of the host ``("seen", event)`` and
``("synchronize", stream)``; tests add what is computed."""


class Stream:
    """A handle."""

    def __init__(self, *_: object) -> None:
        self.cuda_stream = next(_handles)

    def wait_event(self, event: Event) -> None:
        """Nothing to do: it has happened."""
        order.append(("wait", self.cuda_stream, event.cuda_event))

    def wait_stream(self, stream: Stream) -> None:
        """Nothing: it has happened."""

    def synchronize(self) -> None:
        """It has happened."""
        order.append(("synchronize", self.cuda_stream))


class Event:
    """A handle, once it is recorded."""

    def __init__(self) -> None:
        self.cuda_event = 0

    def record(self, stream: Stream) -> None:
        """Make the handle."""
        self.cuda_event = self.cuda_event or next(_handles)
        order.append(("record", stream.cuda_stream, self.cuda_event))


class Driver:
    """The functions, as `fae.streaming.cuda_commands.command_functions` gives them.

    Attributes
    ----------
    refuse, refuse_number
        A call that fails, by what it says or by its number, from 1.
    refuse_query
        An event at which the host may not look, by its number among all looks, from 1.
    patience
        How often the host is told that an event has not happened before it is told that it has; events have happened
        all the same.
    """

    def __init__(self) -> None:
        word = ctypes.c_uint64
        self.calls: list[tuple] = []
        self.refuse: tuple | None = None
        self.refuse_number = self.refuse_query = 0
        self.patience = self._asked = 0
        self._kept = (
            ctypes.CFUNCTYPE(ctypes.c_int, word, word, word)(self._wait),
            ctypes.CFUNCTYPE(ctypes.c_int, word, word, word, word)(self._copy),
            ctypes.CFUNCTYPE(ctypes.c_int, word, word)(self._record),
            ctypes.CFUNCTYPE(ctypes.c_int, word, ctypes.c_uint32, word, word)(self._fill),
            ctypes.CFUNCTYPE(ctypes.c_int, word, word, word)(self._random_delay),
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

    def _random_delay(self, stream, function, microseconds) -> int:
        assert function == SLEEP
        order.append(("random_delay", stream))
        return self._call("random_delay", microseconds, stream)

    def _query(self, event) -> int:
        self._asked += 1
        if self._asked == self.refuse_query:
            return 700
        if self._asked % (self.patience + 1):
            return NOT_READY
        order.append(("seen", event))
        return 0

    def _copy(self, target, source, num_bytes, stream) -> int:
        ctypes.memmove(target, source, num_bytes)
        order.append(("copy", stream, target, source, num_bytes))
        return self._call("copy", num_bytes, stream)


def stand_in(monkeypatch) -> Driver:
    """From here on, placement ``tiered`` on a CPU moves rows as on a GPU, by this driver."""
    made, current = Driver(), Stream()
    order.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(cuda_commands, "command_functions", lambda: made.functions)
    monkeypatch.setattr(cuda_commands, "current_stream", lambda device: current.cuda_stream)
    monkeypatch.setattr(cuda_commands, "current_context", lambda: 0)

    def transfer(tiers, buffers, depth, device, faults, *, by_location):
        return GpuTransfer(tiers, buffers, depth, device, faults, by_location=by_location)

    monkeypatch.setattr(staging, "make_transfer", transfer)
    return made


def feed_by_commands(monkeypatch, *, locked: bool = True) -> None:
    """After `stand_in`: feeds, too, come as on a GPU, whose driver has locked the files or has not."""
    made, zeros = input_ring.InputRing.__init__, torch.zeros

    def on_gpu(ring, layout, depth, device) -> None:
        made(ring, layout, depth, device)
        ring._on_gpu, ring._stream = True, Stream()
        ring._arrived, ring._consumed = (cuda_commands.new_events(depth, ring._stream) for _ in range(2))

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(input_ring.InputRing, "__init__", on_gpu)
    monkeypatch.setattr(torch, "zeros", lambda *shape, pin_memory=False, **kind: zeros(*shape, **kind))
    monkeypatch.setattr(input_ring.InputRing, "_register", lambda ring, batches, table: locked)
    monkeypatch.setattr(input_ring, "_SMALLEST_MAPPED", 0)
