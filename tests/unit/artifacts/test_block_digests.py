"""Digests of files by their blocks: of the bytes alone, whatever the number of threads."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fae.artifacts import block_digests
from fae.artifacts.block_digests import LocalBlocks, ShortFileError, digest_files

BLOCK = 64


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_digests, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(block_digests, "_PIECE_BYTES", 24)


def digests(folder: Path, contents: list[bytes], workers: int = 1, kind: Any = "sha256") -> list[str]:
    paths = [folder / f"{number}.bin" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    opens = [partial(LocalBlocks, path) for path in paths]
    return digest_files(opens, [len(content) for content in contents], workers=workers, kind=kind)


def by_definition(content: bytes, kind: str = "sha256") -> str:
    """As the module's first lines say it, written anew."""
    blocks = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
    if kind == "sha256":
        inner = b"".join(hashlib.sha256(block).digest() for block in blocks)
        return hashlib.sha256(inner + len(content).to_bytes(8, "little")).hexdigest()[:32]
    inner = b"".join(hashlib.blake2b(block, digest_size=32).digest() for block in blocks)
    return hashlib.blake2b(inner + len(content).to_bytes(8, "little"), digest_size=16).hexdigest()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=5 * BLOCK), min_size=1, max_size=5), st.sampled_from([1, 2, 3, 8]))
def test_any_number_of_threads_finds_the_same(tmp_path: Path, contents: list[bytes], workers: int) -> None:
    for kind in ("sha256", "blake2b"):
        found = digests(tmp_path, contents, workers, kind)
        assert found == [by_definition(content, kind) for content in contents]


def test_what_differs_has_another_digest(tmp_path: Path) -> None:
    first, second = bytes(range(BLOCK)), bytes(reversed(range(BLOCK)))
    contents = [
        first + second,
        second + first,
        first + second + b"\0",
        first + second[:-1],
        first,
        b"",
        b"\0",
        bytes(BLOCK),
        bytes(BLOCK + 1),
        # The digests of the blocks as a file of its own, with and without the size behind them.
        hashlib.sha256(first).digest(),
        hashlib.sha256(first).digest() + BLOCK.to_bytes(8, "little"),
    ]
    assert len(set(digests(tmp_path, contents, 2))) == len(contents)


def test_blocks_of_the_real_size_keep_their_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs are named by these: they never change."""
    monkeypatch.undo()
    assert block_digests.BLOCK_BYTES == 8 * 2**20
    content = b"click log\n" * 10**6
    contents = [b"", b"label,item\n1,a\n", content]
    assert digests(tmp_path, contents, 2) == [
        "af5570f5a1810b7af78caf4bc70a660f",
        "ce57610304c16b27e8117ea39e484c69",
        "af421aad9dfe9880be8931e089bc7141",
    ]
    assert digests(tmp_path, contents, 2, "blake2b") == [
        "c804ce198ec337e3dc762bdd1a09aece",
        "56e6a0b288d41c998e384dd657b75b31",
        "cc26a1df79e94ee8a560327daa7bef8a",
    ]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_file_that_became_shorter(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(3 * BLOCK))
    opens = [partial(LocalBlocks, tmp_path / "a.bin")]
    with pytest.raises(ShortFileError):
        digest_files(opens, [3 * BLOCK + 1], workers=workers)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_file_that_is_gone(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(9 * BLOCK))
    opens = [partial(LocalBlocks, tmp_path / name) for name in ("a.bin", "gone.bin")]
    with pytest.raises(FileNotFoundError):
        digest_files(opens, [9 * BLOCK, 5], workers=workers)


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(2 * BLOCK + 7))
    told: list[int] = []
    digest_files([partial(LocalBlocks, tmp_path / "a.bin")], [2 * BLOCK + 7], advance=told.append, workers=2)
    assert sorted(told) == [7, BLOCK, BLOCK]
