"""Fixtures of the ingest tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fae.ingest import hex_vocabulary, vocabulary
from fae.ingest.numbering import final_ids, renumbering, training_counts
from fae.ingest.readers import criteo, csv, record_blocks, record_scanner, taobao, taobao_parser
from fae.ingest.scratch import Scratch
from fae.ingest.shards import part_counts


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch", 2**20)


@pytest.fixture
def plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every compiled loop by the Python function it was compiled from."""
    for module, name in (
        (vocabulary, "hash_bytes"), (vocabulary, "encode_values"), (vocabulary, "rebuild_table"),
        (final_ids, "rank_common"), (training_counts, "count_ids"), (part_counts, "count_ids"),
        (training_counts, "add_counts"), (criteo, "parse_lines"),
        (hex_vocabulary, "encode_keys"), (hex_vocabulary, "enter_keys"), (hex_vocabulary, "write_hex"),
        (renumbering, "exchange_ids"), (taobao, "parse_behaviour"), (taobao, "place_values"), (taobao, "make_inputs"),
        (taobao_parser, "spread"), (taobao_parser, "_draw"), (taobao_parser, "_other_item"),
        (taobao_parser, "num_points"), (taobao_parser, "spread_keyed"), (hex_vocabulary, "spread_keyed"),
        (record_blocks, "scan_records"), (csv, "rewrite_records"), (record_scanner, "_matches"),
    ):  # fmt: skip
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, getattr(kernel, "py_func", kernel))
