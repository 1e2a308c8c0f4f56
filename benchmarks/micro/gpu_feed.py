"""Ways to bring bytes of a mapped file to the device: through pinned buffers, or from registered pages. JSON.

python benchmarks/micro/gpu_feed.py [--megabytes 1024] [--folder DIR] [--out FILE]

A file that is in the page cache; pieces of 4 MB, as a batch of 32,768 inputs has them. Copies into pinned memory by
1 to 8 threads; seconds to register the map with the driver (whole, read-only), and the rate of copies out of it.
"""

from __future__ import annotations

import argparse
import json
import mmap
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
import torch

from fae.streaming.counters import copy_bytes

from common import RESULTS, record

PIECE = 4 * 2**20
FLAGS = {"read-only": 8, "default": 0}


def to_pinned(source: np.ndarray, threads: int) -> float:
    """GB/s of `threads` threads, each with a buffer of its own."""
    pinned = torch.empty((threads, PIECE), dtype=torch.uint8, pin_memory=True)
    pieces = len(source) // PIECE

    def work(thread: int) -> None:
        for piece in range(thread, pieces, threads):
            copy_bytes(pinned[thread].data_ptr(), source.ctypes.data + piece * PIECE, PIECE)

    running = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    started = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return pieces * PIECE / (time.perf_counter() - started) / 1e9


def registered(path: Path, kind: str, access: int) -> dict[str, object]:
    """Register the whole map and copy out of it."""
    facts: dict[str, object] = {"way": "registered", "flags": kind, "writable map": access == mmap.ACCESS_WRITE}
    with path.open("r+b") as file:
        region = mmap.mmap(file.fileno(), 0, access=access)
        view = np.frombuffer(region, np.uint8)
        runtime = torch.cuda.cudart()
        started = time.perf_counter()
        code = int(runtime.cudaHostRegister(view.ctypes.data, len(view), FLAGS[kind]))
        facts |= {"error": code, "seconds per GB": (time.perf_counter() - started) / len(view) * 1e9}
        if code == 0:
            source, target = torch.from_numpy(view), torch.empty(PIECE, dtype=torch.uint8, device="cuda")
            for _ in range(2):
                torch.cuda.synchronize()
                started = time.perf_counter()
                for piece in range(len(view) // PIECE):
                    target.copy_(source[piece * PIECE : (piece + 1) * PIECE], non_blocking=True)
                issued = time.perf_counter() - started
                torch.cuda.synchronize()
            facts |= {
                "GB/s": len(view) / (time.perf_counter() - started) / 1e9,
                "asynchronous": issued < 0.5 * (time.perf_counter() - started),
            }
            runtime.cudaHostUnregister(view.ctypes.data)
            del source
        del view
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_feed.json")
    options = parser.parse_args()
    results: list[dict[str, object]] = []

    def note(**facts: object) -> None:
        results.append(facts)
        print(facts, flush=True)

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = Path(name) / "bytes"
        np.random.default_rng(1).integers(0, 255, options.megabytes * 2**20, np.uint8).tofile(path)
        mapped = np.memmap(path, np.uint8, "r")
        int(mapped[::4096].sum())
        for threads in (1, 2, 4, 8):
            note(way="pinned", threads=threads, **{"GB/s": [to_pinned(mapped, threads) for _ in range(2)]})
        for kind in FLAGS:
            for access in (mmap.ACCESS_READ, mmap.ACCESS_WRITE):
                try:
                    note(**registered(path, kind, access))
                except RuntimeError as error:
                    note(way="registered", flags=kind, error=str(error)[:200])
    options.out.write_text(json.dumps(record(torch_version=torch.__version__, rows=results), indent=1) + "\n")


if __name__ == "__main__":
    main()
