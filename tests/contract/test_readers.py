"""Every reader of raw logs keeps one contract. A new reader is one more entry in `READERS`.

* Chunks come in file order and hold every input once, with the values of the reference that is written down here.
* Neither the sizes of blocks nor compression, blank lines, CRLF or a missing last line end change what is read.
* A fault is a `LogError` of one line that names the file, and the line where the format has lines.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.dense_values import to_dense, to_labels
from fae.ingest.formats import KNOWN_LOGS
from fae.ingest.readers import criteo, jsonl, parquet, taobao
from fae.ingest.readers import csv as csv_reader
from fae.ingest.readers.chunk import Chunk, CriteoChunk
from fae.ingest.readers.dispatch import check_header, read_chunks
from fae.ingest.values import as_text, list_items

Input = tuple[int, list[float], list[list[str]]]
"""Label, dense values and, for each categorical column, the kept values: one, or those of a list."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One reader, a small log in its format, and what it must read from it.

    Attributes
    ----------
    file_name
        Name of the file, without a suffix for compression.
    header, lines
        The text, without line ends; a file of another kind has `write` instead.
    inputs
        The reference.
    block
        Module and attribute with the size of a block, and sizes to try.
    bad_line
        A line that the reader refuses, and a part of its message; the line comes last in the file.
    without_column
        A header that lacks a column, where the format has a header.
    write
        Writes the file from its inputs; the flag leaves out a column.
    """

    file_name: str
    config: dict[str, Any]
    header: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    inputs: list[Input]
    block: tuple[ModuleType, str, tuple[int, ...]]
    bad_line: tuple[str, str] = ("", "")
    without_column: str = ""
    write: Callable[[Path, list[Input], bool], None] | None = None

    def text(self, end: str = "\n", *, blank_lines: bool = False, last_end: bool = True, more: str = "") -> bytes:
        lines = [*self.lines, *([more] if more else [])]
        if blank_lines:
            lines = [part for line in lines for part in (line, "")]
        text = end.join([*self.header, *lines])
        return (text + end if last_end else text).encode()


def simple_inputs() -> list[Input]:
    """Inputs of the column formats: a count, an id, a list of at most three."""
    inputs: list[Input] = []
    for i in range(120):
        tags = [f"t{(i * k) % 7}" for k in range(i % 4)]
        inputs.append((int(i % 3 == 0), [float(i % 11)], [[["é", "", "b c", f"v{i}"][i % 4]], tags]))
    return inputs


def simple_lines(separator: str) -> tuple[str, ...]:
    return tuple(
        separator.join([ids[0][0], "ignored", str(label), "|".join(ids[1]), f"{dense[0]:g}"])
        for label, dense, ids in simple_inputs()
    )


def json_lines() -> tuple[str, ...]:
    return tuple(
        json.dumps(
            {"word": ids[0][0], "label": [label, bool(label), float(label)][i % 3], "tags": ids[1], "count": dense[0]}
        )
        for i, (label, dense, ids) in enumerate(simple_inputs())
    )


SIMPLE: dict[str, Any] = {
    "categorical": ("word", ColumnConfig(name="tags", max_length=3, pooling="mean")),
    "dense": ("count",),
    "dense_transform": "none",
}


def write_parquet(path: Path, inputs: list[Input], without_column: bool) -> None:
    columns = {
        "tags": pa.array([ids[1] for _, _, ids in inputs], pa.list_(pa.string())),
        "other": pa.array([1] * len(inputs)),
        "count": pa.array([dense[0] for _, dense, _ in inputs], pa.float64()),
        "label": pa.array([bool(label) for label, _, _ in inputs], pa.bool_()),
        "word": pa.array([ids[0][0] for _, _, ids in inputs], pa.string()),
    }
    if without_column:
        del columns["word"]
    pq.write_table(pa.table(columns), path, row_group_size=50)


def criteo_inputs() -> list[Input]:
    inputs: list[Input] = []
    for i in range(70):
        counts = [float((i * k) % 50) for k in range(13)]
        inputs.append((i % 2, counts, [[f"{(i * 37 + k * 2654435) % 2**32:08x}"[: (i + k) % 9]] for k in range(26)]))
    return inputs


CRITEO_LINES = tuple(
    "\t".join([str(label), *(f"{count:g}" for count in dense), *(value for (value,) in ids)])
    for label, dense, ids in criteo_inputs()
)

AVAZU_COLUMNS = ("id", "click", *KNOWN_LOGS["avazu"].categorical)


def avazu_inputs() -> list[Input]:
    return [
        (int(i % 5 == 0), [], [[f"{i // 3 % 24:02d}"], *([f"{(i * k) % 9:x}"] for k in range(1, 22))])
        for i in range(90)
    ]


AVAZU_LINES = tuple(
    ",".join([str(10**18 + i), str(label), "141021" + ids[0][0], *(value for (value,) in ids[1:])])
    for i, (label, _, ids) in enumerate(avazu_inputs())
)


# Every user clicks one item again and again, and there are two, so that all but the label of a test input is known
# without drawing. Users 1 to 7 have 11 clicks: one clicked candidate, the tenth click, and a drawn one in the place of
# the eleventh; both again for validation. User 8 has too few clicks. Users 9 and 10, seen last, are test users: the
# candidate is in the place of their third and last click.
ITEMS = ("500", "600")
CATEGORIES = {"500": "5", "600": "6"}
TEST_LABELS = {9: 1, 10: 0}
"""Fixed by the seed of the format."""


def taobao_inputs() -> list[Input]:
    def made(user: int, label: int, length: int) -> Input:
        own = ITEMS[user % 2]
        items = [own] * length + [own if label else ITEMS[1 - user % 2]]
        return label, [], [[str(user)], items, [CATEGORIES[item] for item in items]]

    training = [made(user, label, 9 if label else 10) for user in range(1, 8) for label in (1, 0)]
    return [*training, *training, *(made(user, label, 2) for user, label in TEST_LABELS.items())]


TAOBAO_LINES = tuple(
    f"{user},{ITEMS[user % 2]},{CATEGORIES[ITEMS[user % 2]]},{('pv', 'buy', 'cart', 'fav')[k % 4]},{user * 1000 + k}"
    for user in range(1, 11)
    for k in range(11 if user < 8 else 3)
)

READERS = {
    "csv": Reader(
        file_name="log.csv", config={"format": "csv", **SIMPLE}, header=("word,,label,tags,count",),
        lines=simple_lines(","), inputs=simple_inputs(), block=(csv_reader, "_BLOCK_BYTES", (40, 200, 1000)),
        bad_line=("word,x,1,tags", "4 fields, expected 5"), without_column="wrod,,label,tags,count",
    ),
    "tsv": Reader(
        file_name="log.tsv", config={"format": "csv", "separator": "\t", **SIMPLE},
        header=("word\t\tlabel\ttags\tcount",), lines=simple_lines("\t"), inputs=simple_inputs(),
        block=(csv_reader, "_BLOCK_BYTES", (40, 200, 1000)),
        bad_line=("word\tx\t1\ttags\tmany", "field 5 is 'many', expected a number"),
        without_column="word\t\tlabel\ttags\tcont",
    ),
    "text of other marks": Reader(
        file_name="log.txt",
        config={"format": "csv", "separator": " ;; ", "quote": "'", "escape": "\\", "decimal": ",", **SIMPLE},
        header=("word ;;  ;; label ;; tags ;; count",),
        lines=tuple(line.replace("ignored", "'a ;; b\\'c'") + ",0" for line in simple_lines(" ;; ")),
        inputs=simple_inputs(), block=(csv_reader, "_BLOCK_BYTES", (64, 200, 1000)),
        bad_line=("word ;; x ;; 1 ;; tags ;; 1.5", "field 5 is '1.5', expected a number; set [log] decimal"),
        without_column="word ;;  ;; lable ;; tags ;; count",
    ),
    "no header": Reader(
        file_name="log.csv",
        config={"format": "csv", "columns": ("word", "other", "label", "tags", "count"), **SIMPLE},
        lines=simple_lines(","), inputs=simple_inputs(), block=(csv_reader, "_BLOCK_BYTES", (40, 200, 1000)),
        bad_line=("word,x,1,tags", "4 fields, expected 5 as in [log] columns"),
    ),
    "jsonl": Reader(
        file_name="log.jsonl", config={"format": "jsonl", **SIMPLE}, lines=json_lines(), inputs=simple_inputs(),
        block=(jsonl, "_BLOCK_BYTES", (100, 300, 1000)), bad_line=('{"word": "x", ', "is not JSON"),
    ),
    "parquet": Reader(
        file_name="log.parquet", config={"format": "parquet", **SIMPLE}, inputs=simple_inputs(),
        block=(parquet, "_BATCH_INPUTS", (1, 7, 64)), write=write_parquet,
    ),
    "criteo": Reader(
        file_name="train.txt", config={"format": "criteo", "dense_transform": "none"}, lines=CRITEO_LINES,
        inputs=criteo_inputs(), block=(criteo, "_BLOCK_BYTES", (300, 1000, 5000)),
        bad_line=("1\t2\t3", "3 fields, expected 40"),
    ),
    "avazu": Reader(
        file_name="train.csv", config={"format": "avazu"}, header=(",".join(AVAZU_COLUMNS),), lines=AVAZU_LINES,
        inputs=avazu_inputs(), block=(csv_reader, "_BLOCK_BYTES", (300, 1000, 5000)),
        bad_line=(AVAZU_LINES[0].replace(",141021", ",1x1021"), "expected eight digits YYMMDDHH"),
        without_column=",".join(AVAZU_COLUMNS).replace("site_id", "site"),
    ),
    "taobao": Reader(
        file_name="UserBehavior.csv", config={"format": "taobao"}, lines=TAOBAO_LINES, inputs=taobao_inputs(),
        block=(taobao, "_BLOCK_BYTES", (40, 200, 1000)), bad_line=("11,500,5,view,1", "the behaviour is 'view'"),
    ),
}  # fmt: skip
TEXT = [name for name, reader in READERS.items() if reader.lines]
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}
FILES = [(name, suffix) for name in READERS for suffix in COMPRESSED if name in TEXT or not suffix]


def write_log(folder: Path, reader: Reader, content: bytes | None = None, suffix: str = "") -> Path:
    path = folder / (reader.file_name + suffix)
    if reader.write:
        reader.write(path, reader.inputs, False)
    else:
        path.write_bytes(COMPRESSED[suffix](reader.text() if content is None else content))
    return path


def config_of(reader: Reader, path: Path) -> LogConfig:
    return LogConfig(train=path.name, **reader.config)


def read_all(reader: Reader, path: Path) -> tuple[list[Input], list[int], int]:
    """Everything that a reader yields, the sizes of its chunks, and the sum of their `raw_bytes`."""
    config = config_of(reader, path)
    inputs: list[Input] = []
    sizes, raw_bytes = [], 0
    for chunk in read_chunks(config, path):
        found = parsed_inputs(chunk) if isinstance(chunk, CriteoChunk) else chunk_inputs(config, chunk)
        assert len(found) == chunk.num_inputs > 0
        inputs += found
        sizes.append(chunk.num_inputs)
        raw_bytes += chunk.raw_bytes
    return inputs, sizes, raw_bytes


def parsed_inputs(chunk: CriteoChunk) -> list[Input]:
    def text(key: int) -> list[str]:
        length = key >> 32
        return [f"{key & 0xFFFFFFFF:0{length}x}" if length else ""]

    rows = zip(chunk.labels.tolist(), chunk.dense.tolist(), chunk.keys.T.tolist(), strict=True)
    return [(label, dense, [text(key) for key in keys]) for label, dense, keys in rows]


def chunk_inputs(config: LogConfig, chunk: Chunk) -> list[Input]:
    labels = to_labels(chunk.label, "label", chunk.locate).tolist()
    dense = [to_dense(array, config.dense_transform, "dense", chunk.locate).values.tolist() for array in chunk.dense]
    columns: list[list[list[str]]] = []
    for column, array in zip(config.categorical_columns(), chunk.categorical, strict=True):
        if column.max_length == 1:
            columns.append([[value] for value in as_text(array, column.name, chunk.locate).to_pylist()])
            continue
        items = list_items(array, column, chunk.locate)
        lists: list[list[str]] = [[] for _ in labels]
        for value, row in zip(items.values.to_pylist(), items.rows.tolist(), strict=True):
            lists[row].append(value)
        columns.append(lists)
    return [
        (label, [values[row] for values in dense], [values[row] for values in columns])
        for row, label in enumerate(labels)
    ]


def refusal(reader: Reader, path: Path) -> str:
    """The message of a read that must fail, checked to be one line that names the file."""
    with pytest.raises(LogError) as caught:
        for _ in read_chunks(config_of(reader, path), path):
            pass
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_every_input_once_in_file_order(tmp_path: Path, name: str, suffix: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader, suffix=suffix)
    inputs, _, raw_bytes = read_all(reader, path)
    assert inputs == reader.inputs
    assert 0.9 * path.stat().st_size <= raw_bytes <= path.stat().st_size + 1, "progress is in bytes of the file"


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_block_sizes_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader, suffix=suffix)
    module, attribute, block_sizes = reader.block
    for block_size in block_sizes:
        monkeypatch.setattr(module, attribute, block_size)
        inputs, sizes, _ = read_all(reader, path)
        assert inputs == reader.inputs
        assert len(sizes) > 1


@pytest.mark.parametrize("form", ["blank lines", "no last line end", "CRLF", "CRLF, blank lines", "byte order mark"])
@pytest.mark.parametrize("name", TEXT)
def test_forms_of_text_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    reader = READERS[name]
    end = "\r\n" if "CRLF" in form else "\n"
    content = reader.text(end, blank_lines="blank lines" in form, last_end=form != "no last line end")
    path = write_log(tmp_path, reader, (b"\xef\xbb\xbf" if form == "byte order mark" else b"") + content)
    module, attribute, block_sizes = reader.block
    for block_size in (1 << 22, *block_sizes):
        monkeypatch.setattr(module, attribute, block_size)
        assert read_all(reader, path)[0] == reader.inputs


@pytest.mark.parametrize("name", READERS)
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader)
    path.write_bytes(b"")
    refusal(reader, path)
    if not reader.write:
        path.write_bytes("".join(line + "\n" for line in [*reader.header, "", ""]).encode())
        assert "holds" in refusal(reader, path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", TEXT)
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, suffix: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader, suffix=suffix)
    whole = path.read_bytes()
    for size in (len(whole) - 5, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert "is cut short or damaged" in refusal(reader, path)


def test_a_parquet_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_log(tmp_path, READERS["parquet"])
    path.write_bytes(path.read_bytes()[:-5])
    assert "cannot be read as Parquet" in refusal(READERS["parquet"], path)


@pytest.mark.parametrize("name", TEXT)
def test_a_compressed_file_without_its_suffix_is_refused(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader, gzip.compress(reader.text()))
    assert f"rename it to {path.name}.gz" in refusal(reader, path)


@pytest.mark.parametrize("blank_lines", [False, True])
@pytest.mark.parametrize("name", TEXT)
def test_a_bad_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, blank_lines: bool) -> None:
    reader = READERS[name]
    line, expected = reader.bad_line
    path = write_log(tmp_path, reader, reader.text(more=line, blank_lines=blank_lines))
    number = len(reader.header) + 1 + len(reader.lines) * (2 if blank_lines else 1)
    module, attribute, block_sizes = reader.block
    for block_size in (1 << 22, block_sizes[-1]):
        monkeypatch.setattr(module, attribute, block_size)
        message = refusal(reader, path)
        assert f"{path}, line {number}: " in message
        assert expected in message


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.header or reader.write])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    path = tmp_path / reader.file_name
    if reader.write:
        reader.write(path, reader.inputs, True)
    else:
        path.write_bytes("".join(line + "\n" for line in [reader.without_column, *reader.lines]).encode())
    assert "there is no column '" in refusal(reader, path)


@pytest.mark.parametrize("name", READERS)
def test_a_chunk_finds_its_rows_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader)
    module, attribute, block_sizes = reader.block
    monkeypatch.setattr(module, attribute, block_sizes[-1])
    first = 0
    for chunk in read_chunks(config_of(reader, path), path):
        if isinstance(chunk, Chunk):
            place = chunk.locate(chunk.num_inputs - 1)
            assert place.startswith(f"{path}, ")
            number = first + chunk.num_inputs
            if reader.header:
                assert place == f"{path}, line {len(reader.header) + number}"
            elif reader.write:
                assert place == f"{path}, input {number}"
        first += chunk.num_inputs
    assert first == len(reader.inputs)


@pytest.mark.parametrize("name", READERS)
def test_reading_can_stop_early(tmp_path: Path, name: str) -> None:
    path = write_log(tmp_path, READERS[name])
    chunks = read_chunks(config_of(READERS[name], path), path)
    assert next(chunks).num_inputs > 0
    chunks.close()


@pytest.mark.parametrize("name", READERS)
def test_a_header_is_looked_at_alone(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader)
    check_header(config_of(reader, path), path)
    if reader.header:
        path.write_text(f"{reader.without_column}\nand behind it\nwhat is no line\n")
        with pytest.raises(LogError, match="there is no column"):
            check_header(config_of(reader, path), path)


@pytest.mark.parametrize("name", [name for name in READERS if name != "taobao"])
def test_labels_may_be_left_unread(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    path = write_log(tmp_path, reader)
    config = config_of(reader, path)
    num_inputs = 0
    for chunk in read_chunks(config, path, labelled=False):
        num_inputs += chunk.num_inputs
        if isinstance(chunk, Chunk):
            assert chunk.label is chunk.weight is chunk.time is chunk.split_key is None
            assert len(chunk.categorical) == len(config.categorical_columns())
    assert num_inputs == len(reader.inputs)


FREE = [name for name, reader in READERS.items() if "categorical" in reader.config]


@pytest.mark.parametrize("name", FREE)
def test_columns_of_every_kind_are_handed_on(tmp_path: Path, name: str) -> None:
    """A weight, a time and a split key; a column that is a number and an id; one that a folder alone names."""
    reader = READERS[name]
    folder = tmp_path / "day=2026-01-05"
    folder.mkdir()
    path = write_log(folder, reader)
    wanted = {"weight": "count", "time": "day", "split": "random", "split_by": "word"}
    simple = {**reader.config, "categorical": (*SIMPLE["categorical"], "count", "day"), **wanted}
    if "columns" in simple:
        simple["columns"] = ("word", "other", "label", "tags", "count")
        simple |= {"time": None, "categorical": (*SIMPLE["categorical"], "count")}
    rows: list[tuple[Any, ...]] = []
    for chunk in read_chunks(LogConfig(train=path.name, **simple), path):
        assert isinstance(chunk, Chunk)
        days = chunk.time.to_pylist() if chunk.time is not None else ["2026-01-05"] * chunk.num_inputs
        numbers = to_dense(chunk.dense[0], "none", "count", chunk.locate).values.tolist()
        texts = as_text(chunk.categorical[2], "count", chunk.locate).to_pylist()
        rows += zip(numbers, texts, chunk.weight.to_pylist(), days, chunk.split_key.to_pylist(), strict=True)
    assert len(rows) == len(reader.inputs)
    for (number, text, weight, day, key), (_, dense, ids) in zip(rows, reader.inputs, strict=True):
        assert number == dense[0] == float(weight.replace(",", ".") if isinstance(weight, str) else weight)
        assert float(text.replace(",", ".")) == number
        assert (day, key) == ("2026-01-05", ids[0][0])
