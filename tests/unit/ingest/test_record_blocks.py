"""Blocks of whole records: what is cut and what is refused does not depend on where blocks end, nor on the compiler."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest

from fae.core.errors import LogError, RecipeError
from fae.ingest.config import LogConfig
from fae.ingest.readers import csv as csv_reader
from fae.ingest.readers import record_blocks, record_scanner
from fae.ingest.readers.record_blocks import TextSyntax, count_line_ends

Read = tuple[list[tuple[tuple[str, ...], int]], str]
"""Inputs with their lines, and the fault behind them."""


def read(config: LogConfig, path: Path) -> Read:
    rows: list[tuple[tuple[str, ...], int]] = []
    try:
        for chunk in csv_reader.read_csv(config, path):
            columns = [chunk.label.dictionary_decode(), *chunk.categorical]
            lines = [int(chunk.locate(row).rsplit(" ", 1)[1]) for row in range(chunk.num_inputs)]
            rows += zip(zip(*[column.to_pylist() for column in columns], strict=True), lines, strict=True)
    except LogError as error:
        return rows, str(error)
    return rows, ""


def some_config(draw: random.Random) -> LogConfig | None:
    try:
        return LogConfig(
            train="a.csv", label="y", categorical=("a", "b"), columns=("y", "a", "b"),
            separator=draw.choice([",", "\t", "||", ", ", "é", "ab"]), quote=draw.choice(['"', "'", ""]),
            escape=draw.choice(["", "", "\\"]),
        )  # fmt: skip
    except RecipeError:
        return None


@pytest.mark.parametrize("seed", range(4))
def test_any_text_is_read_alike_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw, path, num_read = random.Random(seed), tmp_path / "a.csv", 0
    for _ in range(80):
        config = some_config(draw)
        if config is None:
            continue
        marks = [config.separator] * 4 + [config.quote, config.escape]
        pieces = ["0", "1", "x", "é", "\n", "\n", "\r", "\r\n", *marks, f"0{config.separator}u{config.separator}i\n"]
        text = "".join(draw.choice(pieces) for _ in range(draw.randint(1, 40))).encode()
        path.write_bytes(text)
        monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 1 << 20)
        whole = read(config, path)
        num_read += len(whole[0])
        for block in range(max(len(text) - 12, 2), len(text) + 2):
            monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", block)
            rows, fault = read(config, path)
            if "longer than" not in fault and "before one closes" not in fault:
                assert (rows, fault) == whole, (text, block)
    assert num_read > 10


@pytest.mark.parametrize("seed", range(3))
def test_records_are_those_of_another_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw, path = random.Random(seed), tmp_path / "a.csv"
    config = LogConfig(train="a.csv", label="y", categorical=("a", "b"), columns=("y", "a", "b"))
    for _ in range(40):
        pieces = ["x", "\r", "\n", ",", '"', "é"]
        columns = [["".join(draw.choices(pieces, k=draw.randint(0, 6))) for _ in range(8)] for _ in "ab"]
        values = [("1", a, b) for a, b in zip(*columns, strict=True)]
        out = io.StringIO(newline="")
        csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=draw.choice(["\n", "\r\n", "\n\n"])).writerows(values)
        text = out.getvalue().encode()
        path.write_bytes(text)
        for block in (1 << 20, 64, 65, 66, 67):
            monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", block)
            rows, fault = read(config, path)
            assert not fault, text
            assert [row for row, _ in rows] == values


def test_the_loop_is_the_same_as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(9)
    compiled = record_scanner.scan_records
    for _ in range(150):
        text = "".join(draw.choice(list('01,,"\n\r\\ab|')) for _ in range(draw.randint(1, 60))).encode()
        syntax = TextSyntax(
            separator=draw.choice([b",", b"ab", b"|"]), quote=draw.choice([34, -1]), escape=draw.choice([92, -1])
        )
        found = []
        for loop in (compiled, getattr(compiled, "py_func", compiled)):
            monkeypatch.setattr(record_blocks, "scan_records", loop)
            index = np.zeros((99, 3), np.int64)
            count, end = syntax.scan(text, 0, len(text), ended=len(text) % 2 == 0, num_fields=3, index=index)
            found.append((count, end.tolist()[:3], index[:count].tolist()))
        assert found[0] == found[1], text


def test_fields_of_a_record_and_lines_of_a_text() -> None:
    syntax = TextSyntax(separator=b"||", quote=ord("'"), escape=ord("\\"))
    assert syntax.split(b"a||'b||''c'||\\||d|'\r\n") == [b"a", b"b||'c", b"||d|'"]
    assert syntax.split(b"") == [b""]
    for text in (b"", b"a", b"a\n", b"a\r\nb\r\n", b"\r\r\n\n", b"\n\r"):
        assert count_line_ends(text, 0, len(text)) == len(text.splitlines()) - (0 if text[-1:] in b"\r\n" else 1)
