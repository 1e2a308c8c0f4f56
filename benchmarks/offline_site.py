"""Packages that a GPU machine without a package registry lacks, as small archives to carry there.

    python benchmarks/offline_site.py pack DIR [--python 3.12] [--arch 90] [--with-pyarrow]
    python benchmarks/offline_site.py unpack DIR SITE          there; then PYTHONPATH=src:SITE

The machine has Python, torch with CUDA, Triton and what those bring. FBGEMM's wheel of 465 MB keeps its host code and,
of its kernels, those that the benchmarks launch on one architecture; the others are overwritten with zeros, so one of
them fails at its launch. Training from packed batches needs no pyarrow, and nor do the benchmarks. All together
59 MB; pyarrow, for tests that read text, 19 MB more. Packing takes ten minutes and some 4 GB of memory, and needs pip,
binutils and zstandard.
"""

from __future__ import annotations

import argparse
import fnmatch
import lzma
import mmap
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

FBGEMM = "fbgemm-gpu==1.6.0"  # pairs with torch 2.11
ARCHIVES: dict[str, tuple[str, ...]] = {
    "llvmlite": ("llvmlite",),
    "tests": (
        "numba", "rich", "markdown-it-py", "mdurl", "pygments", "pytest", "pytest-timeout", "iniconfig", "pluggy",
        "hypothesis", "sortedcontainers",
    ),
    "fbgemm": (FBGEMM,),
    "pyarrow": ("pyarrow",),
}  # fmt: skip
LEFT_OUT = (
    "fbgemm_gpu/experimental/*", "*/tests/*.py", "*/tests/data/*", "pyarrow/include/*", "pyarrow/src/*",
    "pyarrow/libarrow_s3*", "pyarrow/*flight*", "pyarrow/_s3fs*", "pyarrow/_azurefs*", "pyarrow/_gcsfs*",
)  # fmt: skip
LIBRARIES_WITHOUT_KERNELS = ("vbe", "gwd", "inference", "dense", "index_select", "inplace_ops")
"""Ends of the names of FBGEMM's libraries of which no kernel is launched."""
_FATBIN, _CUBIN, _ZSTD, _ELF = 0xBA55ED50, 2, b"(\xb5/\xfd", b"\x7fELF"
_DICTIONARY = 3 * 2**26  # bytes: the largest library


@dataclass(frozen=True)
class Kernels:
    """Device code of one source file, within a library that is mapped."""

    start: int
    size: int
    kind: int
    arch: int


def is_launched(library: str, code: bytes) -> bool:
    """Whether the benchmarks launch kernels of this source file: unweighted sums, SGD and row-wise Adagrad."""
    if library.endswith("forward.so"):
        return b"forward_split_unweighted" in code and not re.search(rb"nobag|vbe|gwd", code)
    if library.endswith("backward.so"):
        ours = rb"split_grad_embedding_ops|backward_(sgd|rowwise_adagrad)_split_unweighted_(kernel|cuda)"
        return bool(re.search(ours, code))
    return not (library.endswith("py.so") and re.search(rb"faster_hash|bucketize|jagged|pack_segments", code))


def device_code(library: Path, image: mmap.mmap) -> Iterator[Kernels]:
    """All pieces of the fat binary of a library."""
    said = subprocess.run(["readelf", "-S", "-W", library], capture_output=True, text=True, check=True).stdout
    section = next((line.split("]")[1].split() for line in said.splitlines() if " .nv_fatbin " in line), None)
    if section is None:
        return
    at, end = int(section[3], 16), int(section[3], 16) + int(section[4], 16)
    while at + 16 <= end:
        magic, _, header, length = struct.unpack_from("<IHHQ", image, at)
        if magic != _FATBIN:
            at += 8
            continue
        entry, at = at + header, at + header + length
        while entry < at:
            kind, _, entry_header, size = struct.unpack_from("<HHIQ", image, entry)
            (arch,) = struct.unpack_from("<I", image, entry + 28)
            yield Kernels(entry + entry_header, size, kind, arch)
            entry += entry_header + size


def blank_kernels(library: Path, arch: int) -> None:
    """Overwrite device code of other architectures, and of kernels that are not launched."""
    unused = library.stem.endswith(LIBRARIES_WITHOUT_KERNELS)
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as image:
        for piece in list(device_code(library, image)):
            code = image[piece.start : piece.start + piece.size]
            keep = piece.kind == _CUBIN and piece.arch == arch and not unused
            if keep:
                if code.startswith(_ZSTD):
                    import zstandard

                    code = zstandard.ZstdDecompressor().decompressobj().decompress(code)
                keep = not code.startswith(_ELF) or is_launched(library.name, code)
            if not keep:
                image[piece.start : piece.start + piece.size] = bytes(piece.size)


def unzip(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT):
                archive.extract(name, folder)


def pack_one(name: str, out: Path, python: str, arch: int) -> str:
    """One archive; returns what there is to say."""
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014", "1")]
    target = out / f"{name}.tar.xz"
    with tempfile.TemporaryDirectory() as folder:
        wheels, site = Path(folder) / "wheels", Path(folder) / "site"
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", wheels,
             f"--python-version={python}", "--implementation=cp", *platforms, *ARCHIVES[name]],
            check=True,
        )  # fmt: skip
        for wheel in wheels.glob("*.whl"):
            unzip(wheel, site)
        for library in site.glob("fbgemm_gpu/*.so"):
            blank_kernels(library, arch)
        if name != "fbgemm":  # a library of its size is not worth it
            subprocess.run(["strip", "--strip-unneeded", *site.rglob("*.so*")], check=True)
        filters = [
            {"id": lzma.FILTER_X86},
            {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": _DICTIONARY},
        ]
        with lzma.open(target, "wb", filters=filters) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
            for path in sorted(site.iterdir()):
                tar.add(path, arcname=path.name)
    return f"{target}: {target.stat().st_size / 1e6:.1f} MB"


def unpack_one(archive: Path, site: Path) -> None:
    # Not tarfile's own "r|xz": it takes quadratic time where a little unpacks to a lot, and kernels are mostly zeros.
    with lzma.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        tar.extractall(site, filter="fully_trusted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="download and pack")
    packing.add_argument("folder", type=Path)
    packing.add_argument("--python", default="3.12", help="of the machine (default: %(default)s)")
    packing.add_argument("--arch", type=int, default=90, help="compute capability of its GPU (default: %(default)s)")
    packing.add_argument("--with-pyarrow", action="store_true")
    unpacking = commands.add_parser("unpack", help="unpack there")
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("site", type=Path, help="new folder for PYTHONPATH")
    options = parser.parse_args()
    if options.command == "pack":
        if missing := [tool for tool in ("readelf", "strip") if shutil.which(tool) is None]:
            raise SystemExit(f"{' and '.join(missing)} cannot be found; they come with binutils")
        options.folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in ARCHIVES if name != "pyarrow" or options.with_pyarrow]
        with ProcessPoolExecutor() as pool:
            count = len(names)
            for said in pool.map(
                pack_one, names, [options.folder] * count, [options.python] * count, [options.arch] * count
            ):
                print(said, flush=True)
        return
    archives = sorted(options.folder.glob("*.tar.xz"))
    if not archives:
        raise SystemExit(f"{options.folder} holds no archive; make them with `offline_site.py pack` first")
    options.site.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(unpack_one, archives, [options.site] * len(archives)))


if __name__ == "__main__":
    main()
