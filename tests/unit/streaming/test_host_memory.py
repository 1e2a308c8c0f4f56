"""Host memory of streaming: rows on huge pages, pages locked for the device, input buffers in use."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from fae.streaming import cuda_commands
from fae.streaming.cuda_commands import RegisteredArrays
from fae.streaming.huge_pages import host_zeros
from fae.streaming.input_layout import InputLayout
from fae.streaming.input_ring import InputRing

from cases import in_a_process, random_log
from packs import order_in_buffer


@pytest.mark.parametrize("shape", [(3, 5), (40_000, 16), (7, 0), (0, 4)])
def test_host_zeros(shape):
    tensor = host_zeros(*shape)
    assert tensor.shape == shape
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert torch.count_nonzero(tensor) == 0
    tensor += 1  # writable to its end
    assert tensor.sum() == shape[0] * shape[1]


def test_large_host_memory_starts_on_a_huge_page():
    assert host_zeros(40_000, 16).data_ptr() % (2 * 2**20) == 0


class FakeDriver:
    """What `fae.streaming.cuda_commands` calls, with a stack of contexts for each thread, as CUDA has it."""

    def __init__(self, context=7):
        self.stacks = {threading.get_ident(): [context] if context else []}
        self.locked, self.released, self.is_gone = {}, [], False

    @property
    def stack(self):
        return self.stacks.setdefault(threading.get_ident(), [])

    def cuCtxGetCurrent(self, context):
        context._obj.value = self.stack[-1] if self.stack else None
        return 0

    def cuCtxPushCurrent_v2(self, context):
        if self.is_gone:
            return 4  # CUDA_ERROR_DEINITIALIZED
        self.stack.append(context.value)
        return 0

    def cuCtxPopCurrent_v2(self, context):
        context._obj.value = self.stack.pop()
        return 0

    def cuMemHostRegister_v2(self, address, size, flags):
        assert flags == 8
        if not self.stack:
            return 201  # CUDA_ERROR_INVALID_CONTEXT
        self.locked[address.value] = size.value
        return 0

    def cuMemHostUnregister(self, address):
        assert self.stack == [7] or self.stack == [7, 7], "without a context the driver refuses, or worse"
        assert not self.is_gone
        self.released.append(address.value)
        return 0


@pytest.fixture
def fake_driver(monkeypatch):
    fake = FakeDriver()
    monkeypatch.setattr(cuda_commands, "_driver", lambda: fake)
    return fake


def test_memory_is_locked_once_and_only_what_is_locked_is_trusted(fake_driver):

    page = 4096
    memory = np.zeros(8 * page, np.uint8)
    start = -memory.ctypes.data % page
    small, large = memory[start + 8 : start + 40], memory[start + 64 : start + 64 + 3 * page]
    own, empty = memory[start + 5 * page : start + 6 * page + 1], memory[:0]
    arrays = RegisteredArrays()
    assert arrays.missing_bytes([own, empty]) == 2 * page
    assert arrays.add([own, empty])
    assert arrays.missing_bytes([own, empty]) == 0
    assert arrays.add([own])
    assert len(fake_driver.locked) == 1
    assert arrays.add([small])
    assert not arrays.add([small, large]), "it begins on a page of the small one; the others are not locked"
    arrays.release()
    assert sorted(fake_driver.released) == sorted(fake_driver.locked)
    assert arrays.missing_bytes([own]) == 2 * page
    arrays.release()
    assert len(fake_driver.released) == 2, "once is enough"


def test_memory_is_unlocked_from_a_thread_without_a_context(fake_driver):
    """The garbage collector comes in any thread; there the driver would refuse, and the pages stay locked."""

    arrays = RegisteredArrays()
    assert arrays.add([np.zeros(100, np.uint8)])
    thread = threading.Thread(target=arrays.release)
    thread.start()
    thread.join()
    assert sorted(fake_driver.released) == sorted(fake_driver.locked)
    assert all(stack == ([7] if owner == threading.get_ident() else []) for owner, stack in fake_driver.stacks.items())


def test_memory_is_left_alone_where_the_context_is_gone(fake_driver):

    arrays = RegisteredArrays()
    assert arrays.add([np.zeros(100, np.uint8)])
    fake_driver.is_gone = True
    arrays.release()
    assert fake_driver.released == []
    fake_driver.stacks.clear()
    fake_driver.is_gone = False
    without = RegisteredArrays()
    assert not without.add([np.zeros(100, np.uint8)]), "there is no context yet"
    without.release()
    assert fake_driver.released == []


def test_nothing_is_unlocked_at_exit():
    """By then the driver may be gone; what a process leaves is unlocked by the system."""
    code = (
        "import numpy as np, torch\n"
        "from cases import random_log\n"
        "from fae.streaming import input_ring\n"
        "from fae.streaming.input_layout import InputLayout\n"
        "class Driver:\n"
        "    def cuCtxGetCurrent(self, context): context._obj.value = 7; return 0\n"
        "    def cuMemHostRegister_v2(self, address, size, flags): print('locked'); return 0\n"
        "    def cuCtxPushCurrent_v2(self, context): print('pushed'); return 0\n"
        "    def __getattr__(self, name): print(name); raise SystemExit(3)\n"
        "import fae.streaming.cuda_commands as driver\n"
        "driver._driver = lambda fake=Driver(): fake\n"
        "log = random_log(1)\n"
        "packed = log.packed(log.layout(0.1, 1))\n"
        "input_ring.owns_pages = lambda array: True  # as if the batches were mapped files\n"
        "layout = InputLayout(batch_size=16, num_slots=3, num_dense=3, num_groups=1, with_cold_lists=False)\n"
        "ring = input_ring.InputRing(layout, 2, torch.device('cpu'))\n"
        "order = np.arange(3)\n"
        "table = layout.table(packed, order, slots=order, slot_rows=(1,), rates=np.ones(3, np.float32))\n"
        "ring._register(packed, table)\n"
    )
    done = in_a_process(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == {"locked"}


def test_an_input_buffer_is_not_overwritten_while_its_batch_is_in_use():

    log = random_log(3, num_inputs=200, batch_size=8, lists=True)
    packed = log.packed(log.layout(0.2, 1))
    order = np.arange(packed.num_batches)
    layout = InputLayout(
        batch_size=8, num_slots=log.ids.shape[1], num_dense=3, num_groups=len(packed.most_cold_rows),
        with_cold_lists=True,
    )  # fmt: skip
    table = layout.table(
        packed, order, slots=np.full(len(order), -1), slot_rows=(0, 0), rates=np.ones(len(order), np.float32)
    )
    for depth in (2, 5):
        ring = InputRing(layout, depth, torch.device("cpu"))
        ring.reserve(packed)
        for index, (batch, buffer) in enumerate(ring.run(packed, order, table)):
            time.sleep(0.002)  # worker threads fill what they may
            assert batch is packed.batch(index)
            np.testing.assert_array_equal(buffer.views.dense.numpy(), batch.dense)
            np.testing.assert_array_equal(order_in_buffer(buffer.views, packed), batch.order)
            assert int(buffer.views.words[0]) == batch.num_inputs
        assert index == len(order) - 1
