"""Tiles of the GPU kernels and bandwidths of the machine: microseconds of each candidate, on the DLRM step's shapes.

    python benchmarks/micro/gpu_tiles.py [--batch-size 32768] [--out FILE]

What the constants in fae.kernels.triton_* were chosen by. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
import triton

import fae.kernels.triton_dense as dense
import fae.kernels.triton_interaction as interaction
import fae.kernels.triton_rows as rows
from speed import OurPlacement, hot_set, open_log, packed_log

from common import KAGGLE_ROWS, RESULTS, record

results: list[dict] = []


def micro(call) -> float:
    return 1e3 * triton.testing.do_bench(call, warmup=5, rep=20, return_mode="median")


def note(kernel: str, setting, microseconds: float) -> None:
    results.append({"kernel": kernel, "setting": setting, "microseconds": microseconds})
    print(f"{kernel:34} {setting!s:70} {microseconds:9.1f} us", flush=True)


def products(size: int) -> None:
    def random(*shape):
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    for k, n in ((256, 512), (64, 256)):
        a, b, x = random(size, k), random(k, n), random(size, n)
        sums = torch.empty((size // 128, n), device="cuda")
        best = []
        for block_n, block_k, warps, stages in itertools.product((64, 128, 256), (32, 64), (4, 8), (2, 3, 4)):
            if block_k > k or (block_n == 256 and warps == 4):
                continue
            setting = {"block_n": block_n, "block_k": block_k, "num_warps": warps, "num_stages": stages}
            dense.MASKED_PRODUCT.update(setting)
            try:
                best.append((micro(lambda a=a, b=b, x=x, sums=sums: dense.masked_product(a, b, x, sums)), setting))
            except Exception as error:
                print(setting, type(error).__name__)
        for microseconds, setting in sorted(best, key=lambda pair: pair[0])[:4]:
            note(f"masked_product {k}->{n}", setting, microseconds)
    for k, n in ((368, 512), (512, 256), (16, 512)):
        x, w, bias = random(size, k), random(n, k), random(n)
        note(
            f"forward {k}->{n}",
            "_addmm_activation",
            micro(lambda x=x, w=w, bias=bias: torch._addmm_activation(bias, x, w.t())),
        )
        grad, out = random(size, n), torch.empty((n, k), device="cuda")
        note(
            f"weight gradient {k}->{n}", "mm out_dtype float32",
            micro(lambda grad=grad, x=x, out=out: torch.mm(grad.t(), x, out_dtype=torch.float32, out=out)),
        )  # fmt: skip
        note(f"weight gradient {k}->{n}", "mm bfloat16", micro(lambda grad=grad, x=x: torch.mm(grad.t(), x)))
        note(f"input gradient {k}->{n}", "mm", micro(lambda grad=grad, w=w: torch.mm(grad, w)))


def gathers(size: int, folder: Path) -> None:
    log = open_log("zipf", folder, 10 * size, KAGGLE_ROWS)
    hot = hot_set(log, 0.05, dim=16, batch_size=size, mixed=True)
    packed = packed_log(log, hot, folder)
    ours = OurPlacement(packed, hot, "tiered", dim=16, optimizer="sgd", device="cuda", capture=False)
    gpu = ours.embeddings._gpu
    bank = ours.embeddings._bank(0)
    z = torch.randn((size, 16), device="cuda", dtype=torch.bfloat16)
    num_hot = hot.layout.groups[0].num_hot_rows
    for batch in ours.embeddings.stream(packed.train, [0]):
        feed = batch.feed.views
        print(
            "blocks",
            [(len(b.starts), len(b.long_rows)) for b in batch.packed.blocks],
            "cold",
            [len(r) for r in batch.packed.cold_rows],
        )
        grad_rows = torch.randn((size, 26 * 16), device="cuda").to(torch.bfloat16)
        kernels = gpu._interaction
        grad_out = torch.randn((size, kernels.width), device="cuda", dtype=torch.bfloat16)
        for inputs, warps in itertools.product((2, 4, 8), (1, 2, 4, 8)):
            interaction.FORWARD.update(inputs=inputs, num_warps=warps)
            interaction.BACKWARD.update(inputs=inputs, num_warps=warps)
            note(
                "interaction forward",
                dict(interaction.FORWARD),
                micro(partial(kernels.forward, feed, num_hot, bank.weight, z)),
            )
            note(
                "interaction backward", dict(interaction.BACKWARD),
                micro(partial(kernels.backward, feed, num_hot, bank.weight, z, grad_out, grad_rows)),
            )  # fmt: skip
        group = gpu._kernels[0]
        for floats, at_once, warps in itertools.product((256, 512, 1024), (2, 4, 8), (1, 2, 4)):
            rows.SUMS.update(floats=floats, at_once=at_once, num_warps=warps)
            note(
                "sums and update",
                dict(rows.SUMS),
                micro(partial(group.update, feed, num_hot, bank.weight, bank.state, grad_rows, 0.0)),
            )


def bandwidths() -> None:
    big = torch.empty(2**30, dtype=torch.int8, device="cuda")
    other = torch.empty_like(big)
    note("copy on the device", "1 GiB, read + write, GB/s", 2 * 2**30 / micro(lambda: other.copy_(big)) / 1e3)
    for size in (2**20, 10 * 2**20, 64 * 2**20):
        pinned = torch.empty(size, dtype=torch.int8, pin_memory=True)
        target = torch.empty(size, dtype=torch.int8, device="cuda")
        pageable = torch.ones(size, dtype=torch.int8)
        note(
            "host to device",
            f"pinned {size} B, GB/s",
            size / micro(partial(target.copy_, pinned, non_blocking=True)) / 1e3,
        )
        note(
            "device to host",
            f"pinned {size} B, GB/s",
            size / micro(partial(pinned.copy_, target, non_blocking=True)) / 1e3,
        )
        import time

        for threads in (1, 4, 8, 16):
            torch.set_num_threads(threads)
            started = time.perf_counter()
            for _ in range(20):
                pinned.copy_(pageable)
            note(
                "pageable to pinned",
                f"{size} B, {threads} threads, GB/s",
                20 * size / (time.perf_counter() - started) / 1e9,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_tiles.json")
    options = parser.parse_args()
    bandwidths()
    products(options.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        gathers(options.batch_size, Path(folder))
    options.out.write_text(json.dumps(record(torch_version=torch.__version__, rows=results), indent=1))


if __name__ == "__main__":
    main()
