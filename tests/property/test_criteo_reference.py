"""Criteo's parser against the general one: the same lines as CSV with a header give the same log to the byte."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.formats import KNOWN_LOGS
from fae.ingest.ingest import ingest
from fae.ingest.readers import criteo

DENSE, IDS = KNOWN_LOGS["criteo"].dense, KNOWN_LOGS["criteo"].categorical
COUNT = st.one_of(
    st.just(""), st.integers(-3, 5).map(str), st.sampled_from(["65535", "65536", "-0", "007"]),
    st.integers(-(10**18) + 1, 10**18 - 1).map(str),
)  # fmt: skip
ID = st.one_of(
    st.sampled_from(["", "0", "00", "00000000", "ffffffff", "f", "0000000f", "68fd1e64", "abc"]),
    st.text(alphabet="0123456789abcdef", max_size=8),
)
LINE = st.tuples(
    st.sampled_from("01"), st.lists(COUNT, min_size=13, max_size=13), st.lists(ID, min_size=26, max_size=26)
)


def line_of(parts: tuple[str, list[str], list[str]]) -> str:
    return "\t".join([parts[0], *parts[1], *parts[2]])


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "manifest.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def write(path: Path, data: bytes) -> None:
    packed = {".gz": gzip.compress, ".zst": lambda text: bytes(pa.compress(text, codec="zstd", asbytes=True))}
    path.write_bytes(packed.get(path.suffix, bytes)(data))


@given(data=st.data(), lines=st.lists(LINE.map(line_of), min_size=2, max_size=40))
@settings(max_examples=25, deadline=None)
def test_same_log_as_by_the_general_parser(data: st.DataObject, lines: list[str]) -> None:
    transform = data.draw(st.sampled_from(["log1p", "none"]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    suffix = data.draw(st.sampled_from(["tsv", "tsv.gz", "tsv.zst"]))
    shared: dict[str, Any] = {
        "dense_transform": transform, "min_frequency": data.draw(st.integers(1, 3)), "validation_fraction": 0.1,
    }  # fmt: skip
    text = ""
    for line in lines:
        text += line + end * data.draw(st.sampled_from([1, 1, 1, 2]))  # blank lines
    if data.draw(st.booleans()):
        text = text.removesuffix(end)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        write(folder / f"log.{suffix}", ("\ufeff" if data.draw(st.booleans()) else "").encode() + text.encode())
        (folder / "log.csv").write_text("\t".join(["label", *DENSE, *IDS]) + end + text, newline="")
        general = LogConfig(train="log.csv", separator="\t", dense=DENSE, categorical=IDS, **shared)
        ingest(general, folder / "general", base=folder)
        patch.setattr(criteo, "_BLOCK_BYTES", data.draw(st.integers(900, 2000)))
        patch.setattr(criteo, "_MOST_INPUTS", data.draw(st.integers(1, 9)))
        own = LogConfig(train=f"log.{suffix}", format="criteo", **shared)
        memory = data.draw(st.sampled_from([1, 2**30]))
        log = ingest(own, folder / "own", base=folder, memory_bytes=memory)
        assert log.num_inputs == len(lines)
        assert contents(folder / "own") == contents(folder / "general")


def good_fields() -> list[str]:
    return ["1", *["3"] * 13, *["68fd1e64"] * 26]


BAD_LABELS = ("", "2", "01", "yes", "1.0", "-1", " 1", "1\x00")
BAD_COUNTS = ("x", "1.5", "1e3", "+1", "-", "--1", " 1", "1 ", "0x1f", "1" * 19, "1_0", "½", "\x00", "-1" + "0" * 18)
BAD_IDS = ("g", "68FD1E64", "68fd\r1e6", "68fd1e6g", "68fd1e640", "-1", "0x12", " 68fd1e6", "68fd1e6 ", "é", "12\x00")


@given(
    field=st.integers(0, 39), which=st.integers(0, 100), before=st.integers(0, 30), blanks=st.integers(0, 3),
    block=st.integers(700, 3000),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_every_bad_field_is_named_with_its_line(field: int, which: int, before: int, blanks: int, block: int) -> None:
    bad = BAD_LABELS if field == 0 else BAD_COUNTS if field < 14 else BAD_IDS
    value = bad[which % len(bad)]
    fields = good_fields()
    fields[field] = value
    good = "\t".join(good_fields())
    text = "".join(f"{line}\n" for line in [*[good] * before, *[""] * blanks, "\t".join(fields), good])
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(criteo, "_BLOCK_BYTES", block)
        folder = Path(name)
        (folder / "log.tsv").write_text(text, newline="")
        with pytest.raises(LogError) as caught:
            ingest(LogConfig(train="log.tsv", format="criteo"), folder / "log", base=folder)
        message = str(caught.value)
        assert f"log.tsv, line {before + blanks + 1}: " in message
        column = "'label'" if field == 0 else f"I{field} (" if field < 14 else f"C{field - 13} ("
        assert column in message
        assert ascii(value)[:30] in message
        assert list(folder.iterdir()) == [folder / "log.tsv"]


@pytest.mark.parametrize("num_fields", [1, 2, 13, 14, 39, 41, 80])
def test_wrong_number_of_fields(tmp_path: Path, num_fields: int) -> None:
    good = good_fields()
    bad = (good * 2)[:num_fields]
    (tmp_path / "log.tsv").write_text("\t".join(good) + "\n" + "\t".join(bad) + "\n")
    with pytest.raises(LogError, match=rf"log.tsv, line 2: {num_fields} fields, expected 40; fix or remove the line"):
        ingest(LogConfig(train="log.tsv", format="criteo"), tmp_path / "log", base=tmp_path)


def test_long_lines_and_lines_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteo, "_BLOCK_BYTES", 1024)
    good = "\t".join(good_fields()) + "\n"
    for text, expected in (
        (good * 5 + "1" * 3000 + "\n", "line 6: it is longer than 1.0 KiB"),
        (good * 5 + good[:100], "line 6: 23 fields"),
        ("", "is empty (0 bytes)"),
        ("\n\r\n\n", "holds no inputs"),
    ):
        (tmp_path / "log.tsv").write_text(text, newline="")
        with pytest.raises(LogError) as caught:
            ingest(LogConfig(train="log.tsv", format="criteo"), tmp_path / "log", base=tmp_path)
        assert expected in str(caught.value)
