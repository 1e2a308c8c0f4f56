"""Packages for a machine without a registry: what is left out, what is blanked, what comes back."""

from __future__ import annotations

import lzma
import mmap
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import offline_site

CUBIN, PTX = 2, 1


def entry(kind: int, arch: int, code: bytes) -> bytes:
    return (
        struct.pack("<HHIQ", kind, 0, 64, len(code)).ljust(28, b"\0") + struct.pack("<I", arch).ljust(36, b"\0") + code
    )


def fat_binary(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A library whose fat binaries begin at byte 64, eight bytes apart."""
    launched = b"\x7fELF gen_embedding_backward_sgd_split_unweighted_kernel"
    other = b"\x7fELF gen_embedding_backward_adam_split_unweighted_kernel"
    content = bytes(64) + fat_binary(entry(CUBIN, 80, launched), entry(CUBIN, 90, launched)) + bytes(8)
    content += fat_binary(entry(CUBIN, 90, other), entry(PTX, 90, launched), entry(CUBIN, 90, b"not to be read"))
    path = tmp_path / "fbgemm_gpu_tbe_training_backward.so"
    path.write_bytes(content)
    section = f"  [ 9] .nv_fatbin PROGBITS 0000 {64:06x} {len(content) - 64:06x} 00"
    monkeypatch.setattr(offline_site.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=section))
    return path


def pieces(path: Path) -> list[bytes]:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as image:
        found = list(offline_site.device_code(path, image))
        return [image[piece.start : piece.start + piece.size] for piece in found]


def test_only_launched_kernels_of_one_architecture_stay(library):
    before = pieces(library)
    offline_site.blank_kernels(library, 90)
    after = pieces(library)
    assert [len(piece) for piece in after] == [len(piece) for piece in before]
    # What cannot be read is kept: it may be anything.
    assert [piece.strip(b"\0") for piece in after] == [b"", before[1], b"", b"", before[4]]


def test_libraries_without_kernels_keep_none(library):
    unused = library.with_name("fbgemm_gpu_tbe_training_backward_vbe.so")
    library.rename(unused)
    offline_site.blank_kernels(unused, 90)
    assert not any(piece.strip(b"\0") for piece in pieces(unused))


@pytest.mark.parametrize(
    ("library", "code", "kept"),
    [
        ("x_forward.so", b"gen_embedding_forward_split_unweighted_v2_kernel", True),
        ("x_forward.so", b"gen_embedding_forward_split_unweighted_nobag_kernel", False),
        ("x_forward.so", b"gen_embedding_forward_split_weighted_kernel", False),
        ("x_backward.so", b"gen_embedding_backward_rowwise_adagrad_split_unweighted_cuda", True),
        ("x_backward.so", b"gen_embedding_backward_partial_rowwise_adagrad_split_unweighted_cuda", False),
        ("x_backward.so", b"gen_embedding_backward_rowwise_adagrad_split_unweighted_nobag_cuda", False),
        ("x_cache.so", b"lru_cache_populate", True),
        ("x_py.so", b"jagged_softmax", False),
    ],
)
def test_which_kernels_are_launched(library, code, kept):
    assert offline_site.is_launched(library, code) is kept


def test_an_archive_comes_back_without_what_nobody_reads(tmp_path, monkeypatch):
    wheel = tmp_path / "numba.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("numba/__init__.py", "here = 1\n")
        archive.writestr("numba/tests/test_all.py", "")
        archive.writestr("pyarrow/include/arrow.h", "")
        archive.writestr("fbgemm_gpu/zeros.so", bytes(2**24))
    offline_site.unzip(wheel, tmp_path / "site")
    packed = tmp_path / "numba.tar.xz"
    with lzma.open(packed, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        tar.add(tmp_path / "site", arcname=".")
    monkeypatch.setattr(sys, "argv", ["offline_site.py", "unpack", str(tmp_path), str(tmp_path / "there")])
    offline_site.main()
    found = sorted(str(path.relative_to(tmp_path / "there")) for path in (tmp_path / "there").rglob("*.*"))
    assert found == ["fbgemm_gpu/zeros.so", "numba/__init__.py"]
    assert (tmp_path / "there/fbgemm_gpu/zeros.so").read_bytes() == bytes(2**24)


def test_nothing_to_unpack_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["offline_site.py", "unpack", str(tmp_path), str(tmp_path / "there")])
    with pytest.raises(SystemExit, match=r"offline_site\.py pack"):
        offline_site.main()
