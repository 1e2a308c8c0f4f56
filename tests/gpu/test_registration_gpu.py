"""Locking a mapped file's pages for the device: by the driver, as training does, and by torch's binding of the runtime.

The runtime needs no context of the caller and no library by name. It may replace the driver if this test passes for
both.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from fae.streaming.cuda_commands import RegisteredArrays, command_functions, command_table, require_success
from fae.streaming.driver_calls import COPY, run_commands

CUDA, PAGE, READ_ONLY = torch.device("cuda"), 4096, 8


class RuntimeRegistered:
    """`RegisteredArrays` by ``cudaHostRegister``, for arrays that share no page."""

    def __init__(self) -> None:
        self._locked: list[int] = []

    def add(self, arrays) -> bool:
        took_all = True
        for array in arrays:
            first = array.ctypes.data // PAGE * PAGE
            size = -(-(array.ctypes.data + array.nbytes - first) // PAGE) * PAGE
            code = int(torch.cuda.cudart().cudaHostRegister(first, size, READ_ONLY))
            took_all &= code == 0
            self._locked += [first] if code == 0 else []
        return took_all

    def release(self) -> None:
        for first in self._locked:
            assert int(torch.cuda.cudart().cudaHostUnregister(first)) == 0
        self._locked = []


def is_locked(array) -> bool:
    return torch.from_numpy(array).is_pinned()


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("in_thread", [False, True], ids=["same thread", "another thread"])
@pytest.mark.parametrize("registered", [RegisteredArrays, RuntimeRegistered], ids=["driver", "runtime"])
def test_a_read_only_file_is_locked_copied_from_and_unlocked(registered, in_thread, tmp_path):
    torch.cuda.synchronize()  # this thread has a context
    written = [np.random.default_rng(seed).integers(0, 2**31, 3 * 2**18).astype(np.int32) for seed in range(2)]
    for index, values in enumerate(written):
        np.save(tmp_path / f"{index}.npy", values)
    arrays = [np.asarray(np.load(tmp_path / f"{index}.npy", mmap_mode="r")) for index in range(2)]
    assert not any(map(is_locked, arrays))
    locked = registered()
    assert locked.add(arrays), "this driver does not lock pages of a read-only map"
    assert all(map(is_locked, arrays))
    stream = torch.cuda.Stream()
    for array, values in zip(arrays, written, strict=True):
        target = torch.zeros(len(values), dtype=torch.int32, device=CUDA)
        stream.wait_stream(torch.cuda.current_stream())
        copy = (COPY, target.data_ptr(), array.ctypes.data, array.nbytes, stream.cuda_stream)
        require_success(run_commands(command_functions(), command_table(1, [copy])[0]))
        stream.synchronize()
        np.testing.assert_array_equal(target.cpu().numpy(), values)
    if in_thread:  # as the garbage collector may
        thread = threading.Thread(target=locked.release)
        thread.start()
        thread.join()
    else:
        locked.release()
    assert not any(map(is_locked, arrays))


def test_a_refused_lock_leaves_no_error_behind(tmp_path):
    """Training continues through pinned buffers then, so the next kernel must not find the driver's error."""
    np.save(tmp_path / "values.npy", np.arange(2**18, dtype=np.int32))
    array = np.asarray(np.load(tmp_path / "values.npy", mmap_mode="r"))
    first, second = RegisteredArrays(), RegisteredArrays()
    assert first.add([array])
    assert not second.add([array]), "the pages are locked already"
    assert torch.ones(4, device=CUDA).sum().item() == 4
    first.release()


def test_the_runtime_reports_a_refused_lock_at_the_next_kernel(tmp_path):
    """Why `RegisteredArrays` asks the driver: torch has no call that clears the runtime's last error."""
    np.save(tmp_path / "values.npy", np.arange(2**18, dtype=np.int32))
    code = (
        "import sys, numpy as np, torch\n"
        "array = np.asarray(np.load(sys.argv[1], mmap_mode='r'))\n"
        "torch.cuda.synchronize()\n"
        "first = array.ctypes.data // 4096 * 4096\n"
        "codes = [int(torch.cuda.cudart().cudaHostRegister(first, 2**20, 8)) for _ in range(2)]\n"
        "assert codes[0] == 0 and codes[1] != 0, codes\n"
        "torch.ones(4, device='cuda').sum().item()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "values.npy"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "already" in done.stderr
