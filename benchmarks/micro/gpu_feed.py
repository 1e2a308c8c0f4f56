"""How fast batches come from a packed file to the device: threads, ways of copying, with and without steps. JSON.

python benchmarks/micro/gpu_feed.py [--batch-size 32768] [--out FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
import torch

import fae.embedding.base as base
import fae.embedding.tiered as tiered
from speed import OurPlacement, hot_set, open_log, packed_log

from common import KAGGLE_ROWS, RESULTS, record

results: list[dict] = []


def note(what: str, **facts) -> None:
    results.append({"what": what, **facts})
    print(what, facts, flush=True)


def copies(path: Path) -> None:
    """10 MB at a time out of a file in the page cache into pinned memory."""
    size = 10 * 2**20
    file = path / "train" / "addresses.npy"
    mapped = np.memmap(file, np.uint8, "r")
    count = min(8, len(mapped) // size)
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    target = pinned.numpy()
    for threads in (1, 4, 8):
        torch.set_num_threads(threads)
        for again in ("first", "second"):
            started = time.perf_counter()
            for part in range(count):
                pinned.copy_(torch.from_numpy(mapped[part * size : (part + 1) * size]))
            note(
                f"map, torch copy, {again} pass",
                threads=threads,
                gb_per_second=count * size / (time.perf_counter() - started) / 1e9,
            )
    fd = os.open(file, os.O_RDONLY)
    for threads in (1, 2, 4, 8):
        piece = size // threads

        def read(index: int, piece: int = piece) -> None:
            view = memoryview(target[index * piece : (index + 1) * piece])
            for part in range(count):
                os.preadv(fd, [view], part * size + index * piece)

        started = time.perf_counter()
        running = [threading.Thread(target=read, args=(index,)) for index in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        note("preadv", threads=threads, gb_per_second=count * size / (time.perf_counter() - started) / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--inputs", type=int, default=800_000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_feed.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = open_log("zipf", folder, options.inputs, KAGGLE_ROWS)
        hot = hot_set(log, 0.05, dim=16, batch_size=options.batch_size, mixed=True)
        packed = packed_log(log, hot, folder)
        copies(packed.path)
        ours = {
            placement: OurPlacement(packed, hot, placement, dim=16, optimizer="sgd", device="cuda")
            for placement in ("device", "tiered")
        }
        for each in ours.values():
            each.run(20)
        for feeders in (1, 2, 3, 4):
            for threads in (1, 2, 4, 8):

                @contextlib.contextmanager
                def threads_of_copies(threads=threads):
                    torch.set_num_threads(threads)
                    yield

                base.copying_threads = tiered.copying_threads = threads_of_copies
                facts = {}
                for placement, each in ours.items():
                    each.embeddings._gpu._feeds._num_threads = feeders
                    for part in ("run_feeds", "run"):
                        call = getattr(each, part)
                        call(10)
                        seconds = statistics.median(call(options.steps // 2) for _ in range(2)) / (options.steps // 2)
                        facts[f"{placement} {part}"] = round(1e6 * seconds)
                note("us a step", feeders=feeders, threads=threads, **facts)
    options.out.write_text(json.dumps(record(torch_version=torch.__version__, rows=results), indent=1))


if __name__ == "__main__":
    main()
