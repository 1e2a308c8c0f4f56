"""The kinds of digests that name the content of a raw file, and how the facts of a file are compared.

Logs name their files by `BLOCKS`, which all threads compute (`fae.artifacts.block_digests`). Earlier code named them
by `FORMER_BLOCKS`, and before by `WHOLE`, which takes one thread a file; such logs keep their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fae.artifacts.block_digests import digest_files
from fae.artifacts.checksums import file_digest
from fae.ingest.raw_files.remote_files import open_blocks, workers_for

BLOCKS = "sha256_of_blocks"
"""Key of the digest by blocks of 8 MiB."""
FORMER_BLOCKS = "blake2b_of_blocks"
"""Key of the same with another digest of the blocks, in logs of earlier code."""
WHOLE = "blake2b"
"""Key of the blake2b over all bytes, in logs of earlier code."""
KINDS = (BLOCKS, FORMER_BLOCKS, WHOLE)


def digest_in(facts: Mapping[str, Any], kind: str) -> str:
    """The digest of this kind in the facts of a file; empty where there is none.

    >>> digest_in({"bytes": 3, "blake2b": "00" * 16}, WHOLE)
    '00000000000000000000000000000000'
    """
    digest = facts.get(kind)
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{32}", digest) else ""


def kind_in(facts: Mapping[str, Any]) -> str:
    """The kind by which a manifest names a file."""
    return next((kind for kind in KINDS if digest_in(facts, kind)), BLOCKS)


def content_in(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and digest of a file, as a manifest has them."""
    kind = kind_in(facts)
    return kind, digest_in(facts, kind)


def is_same_content(facts: Mapping[str, Any], others: Mapping[str, Any]) -> bool | None:
    """Whether two files have the same content; None where they have no digest of one kind."""
    shared = [kind for kind in KINDS if digest_in(facts, kind) and digest_in(others, kind)]
    return all(facts[kind] == others[kind] for kind in shared) if shared else None


def digest_by_kind(path: Path, kind: str) -> str:
    """Hex digest of a file's bytes.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if kind == WHOLE:
        return file_digest(path)
    opens, sizes, workers = [partial(open_blocks, path)], [path.stat().st_size], workers_for([path])
    return digest_files(opens, sizes, workers=workers, kind=function_of_blocks(kind))[0]


def function_of_blocks(kind: str) -> Literal["sha256", "blake2b"]:
    """What digests the blocks of a kind of digests by blocks."""
    return "sha256" if kind == BLOCKS else "blake2b"
