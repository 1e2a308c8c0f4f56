"""Inputs a second of made-up logs straight into the columnar form, by shape, and peak memory. JSON.

    python benchmarks/micro/synthetic_speed.py [--inputs 4000000] [--repeats 3] [--scale 1]

The log goes to a temporary folder and is removed; a sample is everything `write_columnar` does, checksums included.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fae.core.progress import say
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.text_writer import SyntheticConfig, write_text

from common import record, save_record

CASES = (
    ("criteo", "popularity"), ("criteo", "encoded"), ("zipf", "popularity"), ("avazu", "popularity"),
    ("taobao", "popularity"), ("criteo", "text"),
)  # fmt: skip


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    results = []
    for shape, ids in CASES:
        num_inputs = options.inputs // (8 if ids == "text" else 1)
        samples, cpu = [], []
        for _ in range(options.repeats):
            config = SyntheticConfig(shape=shape, num_inputs=num_inputs, scale=options.scale)
            with tempfile.TemporaryDirectory() as folder:
                start, cpu_start = time.perf_counter(), time.process_time()
                if ids == "text":
                    write_text(config, Path(folder) / "log")
                else:
                    write_columnar(config, Path(folder) / "log", ids=ids)
                samples.append(num_inputs / (time.perf_counter() - start))
                cpu.append(1e6 * (time.process_time() - cpu_start) / num_inputs)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        results.append(
            {
                "shape": shape,
                "ids": ids,
                "inputs": num_inputs,
                "inputs_per_second": samples,
                "cpu_microseconds_per_input": cpu,
            }
        )
        say(f"{shape} {ids}: {max(samples):,.0f} inputs/s, {min(cpu):.2f} us of CPU each, peak {peak / 2**20:.0f} MiB")
    save_record("synthetic_speed", record(
        scale=options.scale, load_average=os.getloadavg(), peak_memory_bytes=peak, results=results,
    ))  # fmt: skip


if __name__ == "__main__":
    main()
