"""Text as it is found: quotes that are inches, words for numbers, archives named as logs, no headers, JSON lines."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from case_folders import column_values, copy_case, list_values
from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.formats import KNOWN_LOGS
from fae.ingest.ingest import ingest
from fae.ingest.readers import csv as csv_reader
from fae.ingest.readers import jsonl
from fae.ingest.readers.dispatch import check_header, read_chunks

from commands import fault


def read(folder: Path, content: bytes | str, *, name: str = "a.csv", **settings: Any) -> list[tuple[Any, ...]]:
    """Inputs of one file as tuples: label, dense, categorical values; with the columns y, price, user, item."""
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    values: dict[str, Any] = {"train": name, "label": "y", "categorical": ("user", "item"), "dense": ("price",)}
    rows: list[tuple[Any, ...]] = []
    for chunk in read_chunks(LogConfig(**(values | settings)), path):
        columns = [array.to_pylist() for array in (chunk.label, *chunk.dense, *chunk.categorical)]
        rows += zip(*columns, strict=True)
    return rows


def refused(folder: Path, content: bytes | str, **settings: Any) -> str:
    with pytest.raises(LogError) as caught:
        read(folder, content, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isascii()
    assert len(message) < 500
    return message


# --- quotes ---


def test_an_open_quote_is_refused_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = copy_case("csv-open-quote", tmp_path)
    fault(case.fae("ingest"), "a.tsv, line 7: a quote begins", 'set [log] quote = ""')
    text = (case.folder / "a.tsv").read_bytes()
    settings: dict[str, Any] = {"separator": "\t", "categorical": ("user", "title")}
    for block, name in ((1 << 22, "b.tsv"), (1 << 22, "b.tsv.gz"), (64, "b.tsv"), (64, "b.tsv.gz")):
        monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", block)
        assert f"{name}, line 7: a quote begins" in refused(tmp_path, text, name=name, **settings)
        assert len(read(tmp_path, text, name=name, quote="", **settings)) == 40
    log = case.ingest("log.quote=")
    assert len(log.labels) == 40
    assert column_values(log, "title")[5] == '"55 inch'


HEAD = "y,price,user,item\n"
QUOTE_FAULTS = {
    "a quote that opens in the header": ('y,price,user,"item\n0,1,u,i\n', 1),
    "text behind a closing quote": (HEAD + '0,1,u,i\n1,2,u,"55" inch\n', 3),
    "a quote that another one closes": (HEAD + '0,1,u,"55 inch\n1,2,u,i\n0,1,u,"60 inch\n', 2),
    "a value that swallows lines up to an inch mark": (HEAD + '0,1,u,i\n0,1,u,"55 inch\n1,2,u,i\n0,1,u,55"\n', 3),
    "a value that swallows part of one line": (HEAD + '0,1,u,"55 inch\n0,1,u,55"\n', 2),
    "a value of the first column": ('user,y\n"55 inch,1\n60",0\n', 2),
    "a value of the last column": ('y,user\n0,"55 inch\n1,60"\n', 2),
    "with carriage returns": ((HEAD + '0,1,u,i\n0,1,u,"55 inch\n1,2,u,i\n').replace("\n", "\r\n"), 3),
    "the file ends behind it": (HEAD + '0,1,u,"', 2),
}


@pytest.mark.parametrize("case", QUOTE_FAULTS)
def test_quotes_that_are_no_quotes(tmp_path: Path, case: str) -> None:
    text, line = QUOTE_FAULTS[case]
    columns = {"categorical": ("user",), "dense": ()} if "column" in case else {}
    message = refused(tmp_path, text, **columns)
    assert f"a.csv, line {line}: a quote begins" in message
    assert 'quote = ""' in message


def test_quoted_line_ends_stay_legal(tmp_path: Path) -> None:
    text = HEAD + '0,1,u,"a\nb"\n1,2,"x,\r\ny ""z""","a, b, c\nd, e, f"\n0,,u,"\n"\n1,4,u,5"\n'
    assert read(tmp_path, text) == [
        ("0", 1.0, "u", "a\nb"), ("1", 2.0, 'x,\r\ny "z"', "a, b, c\nd, e, f"), ("0", None, "u", "\n"),
        ("1", 4.0, "u", '5"'),
    ]  # fmt: skip


def test_a_quoted_line_end_at_the_end_of_a_block(tmp_path: Path) -> None:
    log = copy_case("quoted-crlf-at-block", tmp_path).ingest()
    values = column_values(log, "item")
    assert len(values) == 42
    assert values.count("note\r\nend") == 21


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_every_place_of_a_line_end_near_the_end_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 64)
    for end in ("\r\n", "\r", "\n"):
        for pad in range(40):
            rows = [f'{i % 2},{i},{"p" * (pad if i == 0 else 3)},"note{end}en{end}d"' for i in range(6)]
            expected = [(str(i % 2), i, "p" * (pad if i == 0 else 3), f"note{end}en{end}d") for i in range(6)]
            for between in {end, "\n"}:
                text = HEAD + between.join([*rows, ""])
                assert read(tmp_path, text, name=name) == expected, (end, pad, between)


# --- settings of the text ---


def test_separators_of_several_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for separator in ("||", ", ", "é", "<->", "\x01"):
        rows = [separator.join([str(i % 2), str(i), f'"u{separator}{i}"', f'i"|{i}']) for i in range(9)]
        text = "\n".join([HEAD.strip().replace(",", separator), *rows])
        for block in (1 << 22, 64):
            monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", block)
            found = read(tmp_path, text, separator=separator)
            assert found == [(str(i % 2), i, f"u{separator}{i}", f'i"|{i}') for i in range(9)]
        message = refused(tmp_path, text + separator + "more", separator=separator)
        assert "line 10: 5 fields, expected 4" in message


def test_escapes_and_words_for_missing_values(tmp_path: Path) -> None:
    text = "0\t\\N\t\\N\ta\\\tb\n1\t2\t\\\\N\tline\\\nend\n0\tNULL\tNULL\t\\\\\n"
    settings: dict[str, Any] = {"separator": "\t", "columns": ("y", "price", "user", "item"), "escape": "\\"}
    found = read(tmp_path, text, quote="", missing=("\\N", "NULL"), **settings)
    assert found[0] == ("0", None, "", "a\tb")
    assert found[1] == ("1", 2.0, "\\N", "line\nend")
    assert found[2] == ("0", None, "NULL", "\\")
    assert read(tmp_path, '0,1,"a\\"b",c\n', **(settings | {"separator": ","})) == [("0", 1.0, 'a"b', "c")]


def test_decimal_commas(tmp_path: Path) -> None:
    text = 'y;price;user;item\n0;1,5;u;i\n1;"-2,25";u;i\n0;;u;i\n'
    assert [row[1] for row in read(tmp_path, text, separator=";", decimal=",")] == [1.5, -2.25, None]
    message = refused(tmp_path, text, separator=";")
    assert "line 2: field 2 is '1,5', expected a number; set [log] decimal" in message
    both = read(tmp_path, text, separator=";", decimal=",", categorical=("user", "price"))
    assert [(row[1], row[3]) for row in both] == [(1.5, "1,5"), (-2.25, "-2,25"), (None, "")]
    assert "field 2 is '1.5'" in refused(tmp_path, text.replace("1,5", "1.5"), separator=";", decimal=",")


def test_a_log_without_a_header(tmp_path: Path) -> None:
    case = copy_case("headerless-log", tmp_path)
    fault(case.fae("ingest"), "there is no column 'y'", "[log] columns")
    log = case.ingest('log.columns=["y","user","item","price"]')
    assert log.labels.tolist() == [i % 2 for i in range(40)]
    assert log.dense[:, 0].tolist() == [i / 2 for i in range(40)]
    assert column_values(log, "user")[:6] == ["u0", "u1", "u2", "u3", "u4", "u0"]
    text = (case.folder / "a.tsv").read_text()
    names = ("y", "user", "item", "price")
    for columns, many in ((names[:3], 3), ((*names, "more"), 5)):
        settings = {"columns": columns, "separator": "\t", "dense": ()}
        assert f"line 1: 4 fields, and [log] columns names {many}" in refused(tmp_path, text, **settings)
    header = "\t".join(names) + "\n"
    assert "line 1: it is a header" in refused(tmp_path, header + text, columns=names, separator="\t")


def test_a_log_without_a_header_in_folders_with_values(tmp_path: Path) -> None:
    """As Hive exports tables: no header, the partition in the folder's name alone."""
    for day in ("2026-01-01", "__HIVE_DEFAULT_PARTITION__", "a%2Fb"):
        (tmp_path / f"day={day}").mkdir()
        (tmp_path / f"day={day}" / "part-0.csv").write_text("".join(f"{i % 2},u{i % 3}\n" for i in range(10)))
    config = LogConfig(
        train=tuple(f"day={day}/*.csv" for day in ("2026-01-01", "__HIVE_DEFAULT_PARTITION__", "a%2Fb")),
        columns=("y", "user"), label="y", categorical=("user", "day"), test_fraction=0.0, validation_fraction=0.0,
    )  # fmt: skip
    log = ingest(config, tmp_path / "log", base=tmp_path)
    assert column_values(log, "day") == ["2026-01-01"] * 10 + [""] * 10 + ["a/b"] * 10
    with pytest.raises(LogError, match="there is no column 'dya'; did you mean 'day'"):
        ingest(LogConfig(**(vars(config) | {"categorical": ("dya",)})), tmp_path / "other", base=tmp_path)


# --- numbers, names, long fields ---


def test_a_number_with_a_no_break_space(tmp_path: Path) -> None:
    fault(
        copy_case("no-break-space-number", tmp_path).fae("ingest"), r"a.csv, line 9: field 4 is '\xa05', expected a num"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [("\uff15", r"'\uff15'"), ("1_000", "'1_000'"), ("0x10", "'0x10'"), ("5\u200b", r"'5\u200b'"), (" ", "' '"),
     ("\u0665", r"'\u0665'"), ("5\x00", r"'5\x00'"), ("1e", "'1e'"), ("$5", "'$5'"), ("--5", "'--5'")],
)  # fmt: skip
def test_numbers_are_what_the_parser_takes(tmp_path: Path, value: str, shown: str) -> None:
    rows = "".join(f"{i % 2},{i},u,i\n" for i in range(20))
    for settings in ({}, {"categorical": ("user", "price")}):
        message = refused(tmp_path, HEAD + rows + f"0,{value},u,i\n" + rows, **settings)
        assert f"a.csv, line 22: field 2 is {shown}, expected a number" in message


def test_spaces_around_numbers_are_taken(tmp_path: Path) -> None:
    for settings in ({}, {"categorical": ("user", "price")}):
        found = read(tmp_path, HEAD + "0, 5,u,i\n1,+5\t,u,i\n0,5e0,u,i\n", **settings)
        assert [row[1] for row in found] == [5.0] * 3


def test_a_wrong_name_among_many(tmp_path: Path) -> None:
    message = fault(copy_case("wide-log-wrong-name", tmp_path).fae("ingest"), "there is no column 'zzzz'", "1,498 more")
    assert len(message) < 300
    long = 'y,price,user,"' + "x" * 100_000 + '"\n0,1,u,i\n'
    assert len(refused(tmp_path, long)) < 400


def test_a_fault_behind_a_long_field(tmp_path: Path) -> None:
    case = copy_case("long-field-bad-label", tmp_path)
    fault(case.fae("ingest"), "a.csv.gz, line 32: the label 'y' is '7'")
    text = gzip.decompress((case.folder / "a.csv.gz").read_bytes())
    whole = text.replace(b"\n7,", b"\n1,")
    assert len(read(tmp_path, whole)) == 40
    assert "line 42: 2 fields, expected" in refused(tmp_path, whole + b"1,2\n")


@pytest.mark.parametrize(
    ("name", "header", "line"),
    [
        ("a.csv.gz", b"", 1), ("a.csv.gz", HEAD.encode() + b"0,1,u,i\n", 3),
        ("a.jsonl.gz", b"", 1), ("a.criteo.gz", b"", 1),
    ],
)  # fmt: skip
def test_a_line_without_end(tmp_path: Path, name: str, header: bytes, line: int) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", 1) as file:
        file.write(header)
        for _ in range(100):
            file.write(b"\0" * (1 << 20))
    columns: dict[str, Any] = {"label": "y", "categorical": ("user", "item"), "dense": ("price",)}
    kind = {"a.csv.gz": {"format": "csv", **columns}, "a.jsonl.gz": {"format": "jsonl", **columns}}
    tracemalloc.start()
    try:
        with pytest.raises(LogError, match=f"line {line}: it is longer than 4.0 MiB"):
            for _ in read_chunks(LogConfig(train=name, **kind.get(name, {"format": "criteo"})), path):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize(
    ("line", "expected"),
    [(b"0,1,\xff\xfeu,i\n", "line 3: field 3 is not UTF-8 ('\\xff\\xfeu')"),
     (b"\xff,1,u,i\n", "line 3: field 1 is not UTF-8"), (b"0,\xff1,u,i\n", "line 3: field 2 is")],
)  # fmt: skip
def test_text_that_is_not_utf8(tmp_path: Path, line: bytes, expected: str) -> None:
    assert expected in refused(tmp_path, HEAD.encode() + b"0,1,u,i\n" + line)


CRITEO = b"\t".join([b"1", *[b"3"] * 13, *[b"68fd1e64"] * 26]) + b"\n"
AVAZU = ",".join(["id", "click", *KNOWN_LOGS["avazu"].categorical]).encode() + b"\n1,0,14102100" + b",a" * 21 + b"\n"
KNOWN_FAULTS = {
    "criteo label": ("criteo", CRITEO * 2 + b"\xef\xbc\x91" + CRITEO[1:], r"line 3: the label 'label' is '\uff11'"),
    "criteo count": ("criteo", CRITEO.replace(b"3", b"\xc2\xa03", 1), r"line 1: the count I1 (field 2) is '\xa03'"),
    "criteo id": (
        "criteo",
        CRITEO.replace(b"64\n", b"\xff\xfe\n"),
        r"line 1: the id C26 (field 40) is '68fd1e\xff\xfe'",
    ),
    "avazu id": ("avazu", AVAZU + AVAZU.split(b"\n")[1].replace(b"a", b"\xe9", 1), "line 3: field 4 is not UTF-8"),
    "avazu hour": ("avazu", AVAZU.replace(b"14102100", "1410210\uff10".encode()), r"line 2: hour is '1410210\uff10'"),
    "taobao item": ("taobao", b"1,2,3,pv,4\n1,\xff,3,pv,5\n", r"line 2: the item (field 2) is '\xff'"),
}


@pytest.mark.parametrize("case", KNOWN_FAULTS)
def test_odd_bytes_in_public_logs(tmp_path: Path, case: str) -> None:
    log_format, data, expected = KNOWN_FAULTS[case]
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(LogError) as caught:
        list(read_chunks(LogConfig(train="a.txt", format=log_format), tmp_path / "a.txt"))  # type: ignore[arg-type]
    assert expected in str(caught.value)


def test_a_header_that_is_not_utf8(tmp_path: Path) -> None:
    text = "y,price,user,größe\n0,1,u,i\n".encode("latin-1")
    assert len(read(tmp_path, text, categorical=("user",))) == 1
    assert "the header is not UTF-8" in refused(tmp_path, text, categorical=("user", "größe"))


# --- what a file is ---


def archive(kind: str) -> bytes:
    text = (HEAD + "0,1,u,i\n" * 30).encode()
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("a.csv", text)
    elif kind == "tar":
        with tarfile.open(fileobj=out, mode="w") as tar:
            entry = tarfile.TarInfo("a.csv")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    elif kind == "parquet":
        pq.write_table(pa.table({"y": [0, 1]}), out)
    elif kind == "orc":
        pyarrow.orc.write_table(pa.table({"y": [0, 1]}), out)
    return out.getvalue()


KINDS = {
    "a zip archive": archive("zip"), "a bzip2 file": bz2.compress(b"y,a\n" * 9), "an xz file": lzma.compress(b"y\n"),
    "a tar archive": archive("tar"), "an ORC file": archive("orc"), "an Avro file": b"Obj\x01\x04\x14avro",
    "text in UTF-16": HEAD.encode("utf-16"), "a web page": b"<!DOCTYPE html>\n<html>", "a 7z": b"7z\xbc\xaf\x27\x1c\0",
    "text in UTF-16 ": HEAD.encode("utf-16-le"), "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1",
    "a numpy array": b"\x93NUMPY\x01\x00", "an SQLite": b"SQLite format 3\0", "an Arrow file": b"ARROW1\0\0",
}  # fmt: skip
FORMATS = ("csv", "jsonl", "parquet", "criteo", "avazu", "taobao")


@pytest.mark.parametrize("kind", KINDS)
def test_other_files_are_told_by_their_first_bytes(tmp_path: Path, kind: str) -> None:
    for log_format in FORMATS:
        for name, data in (("a.log", KINDS[kind]), ("a.log.gz", gzip.compress(KINDS[kind]))):
            path = tmp_path / name
            path.write_bytes(data)
            columns = {"categorical": ("user",)} if log_format in ("csv", "jsonl", "parquet") else {}
            config = LogConfig(train=name, format=log_format, **columns)  # type: ignore[arg-type]
            for look in (lambda: list(read_chunks(config, path)), lambda: check_header(config, path)):  # noqa: B023
                with pytest.raises(LogError) as caught:
                    look()
                expected = "compressed" if log_format == "parquet" and name.endswith(".gz") else f"is {kind.strip()}"
                assert expected in str(caught.value)
                assert str(caught.value).isprintable()


def test_names_that_say_otherwise(tmp_path: Path) -> None:
    fault(copy_case("zip-log", tmp_path).fae("ingest"), "a.csv.zip is a zip archive", "unpack it")
    for name, data, expected in (
        ("a.csv.gz", HEAD.encode(), "is not gz, though its name says so; rename it to a.csv"),
        ("a.csv.zst", HEAD.encode(), "is not zst, though its name says so; rename it to a.csv"),
        ("a.csv.zst", gzip.compress(HEAD.encode()), "is gz and not .zst; rename it to a.csv.gz"),
        ("a.csv", gzip.compress(HEAD.encode()), "rename it to a.csv.gz"),
        ("a.csv", archive("parquet"), 'is a Parquet file; set [log] format = "parquet"'),
        ("a.csv.gz", gzip.compress(gzip.compress(HEAD.encode())), "unpacked, is gz once more"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LogError) as caught:
            list(read_chunks(LogConfig(train=name, categorical=("user",)), tmp_path / name))
        assert expected in str(caught.value)
    (tmp_path / "a.parquet").write_text(HEAD)
    with pytest.raises(LogError, match="is text and not Parquet"):
        check_header(LogConfig(train="a", format="parquet", categorical=("user",)), tmp_path / "a.parquet")


def test_words_that_begin_like_other_files_are_text(tmp_path: Path) -> None:
    text = "ORC,y,price,user,item\nx,0,1,u,i\n"
    assert len(read(tmp_path, text)) == 1
    assert len(read(tmp_path, text.replace("ORC", "BZh"))) == 1


# --- JSON lines ---


def test_json_lines(tmp_path: Path) -> None:
    case = copy_case("json-lines-log", tmp_path)
    fault(case.fae("ingest"), "a.jsonl holds JSON, an object a line", 'format = "jsonl"')
    log = case.ingest("log.format=jsonl")
    assert log.labels.tolist() == [i % 2 for i in range(40)]
    assert log.dense[:, 0].tolist() == [i / 2 for i in range(40)]
    assert column_values(log, "user")[:6] == ["u0", "u1", "u2", "u3", "u4", "u0"]


def test_json_in_other_forms_is_told(tmp_path: Path) -> None:
    for log_format in ("csv", "jsonl"):
        settings = {"format": log_format}
        assert "is one JSON list" in refused(tmp_path, '[{"y": 0}, {"y": 1}]', **settings)
        assert "is JSON over several lines" in refused(tmp_path, '{\n  "y": 0\n}\n', **settings)
    assert 'a.csv is text and not JSON; set [log] format = "csv"' in refused(tmp_path, HEAD, format="jsonl")
    assert "set [log] format" not in refused(tmp_path, '[{"y": 0}]', format="jsonl")


def test_values_of_json_are_text_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value, one text, whatever its neighbours, its block and its file."""
    values: list[tuple[Any, str]] = [
        (1, "1"), (1.0, "1"), ("1", "1"), (True, "true"), ("true", "true"), (None, ""), ("", ""), (2**70, str(2**70)),
        (-0.0, "0"), ("1.0", "1.0"), (1e15, "1000000000000000"), ("\u00e9", "\u00e9"), (0, "0"), (False, "false"),
    ]  # fmt: skip
    lines = [json.dumps({"y": i % 2, "user": value, "tags": [value, "x"]}) for i, (value, _) in enumerate(values)]
    lines += ['{"y": 0}', '{"y": 1, "user": "u", "tags": "a|b"}', '{"y": 1, "user": "u", "tags": 7}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    config = LogConfig(
        train="a.jsonl", format="jsonl", label="y", categorical=("user", ColumnConfig(name="tags", max_length=3)),
        test_fraction=0.0, validation_fraction=0.0,
    )  # fmt: skip
    for block in (1 << 22, 120):
        monkeypatch.setattr(jsonl, "_BLOCK_BYTES", block)
        log = ingest(config, tmp_path / f"log{block}", base=tmp_path)
        assert column_values(log, "user") == [text for _, text in values] + ["", "u", "u"]
        expected = [[text, "x"] if text else ["x"] for _, text in values]
        assert list_values(log, "tags") == [*expected, [], ["a", "b"], ["7"]]


JSON_FAULTS = {
    '{"y": 0, "user": 1.5}': "line 2: the column 'user' is 1.5, expected a whole number or text",
    '{"y": 0, "user": {"id": 1}}': "line 2: the column 'user' is {'id': 1}, expected text",
    '{"y": 0, "user": [1]}': "line 2: the column 'user' is [1], expected text or a whole number; set its max_length",
    '{"y": 0, "user": NaN}': "line 2: the column 'user' is nan",
    '{"y": 0, "price": "cheap"}': "line 2: the column 'price' is 'cheap', expected a number",
    '{"y": 0, "price": "1_0"}': "line 2: the column 'price' is '1_0', expected a number",
    '{"y": 0, "user": 1, "user": 2}': "line 2: it has the key 'user' 2 times",
    '{"y": 0, "user": "u"': 'line 2: \'{"y": 0, "user": "u"\' is not JSON',
    "[1, 2]": "line 2: it is '[1, 2]', expected an object",
    '{"y": [0]}': "line 2: the column 'y' is [0], expected",
    '{"y": 0, "user": "\\ud800"}': "line 2: the column 'user' is '\\ud800', which holds half of a surrogate pair",
    '{"y": ' + "9" * 5000 + "}": 'line 2: \'{"y": 999',
    '{"y": "u': 'line 2: \'{"y": "u\' is not JSON (Unterminated string starting at character 7)',
    "[" * 5000: "line 2: it is nested too deeply",
}


@pytest.mark.parametrize("line", JSON_FAULTS)
def test_json_faults_name_file_line_and_column(tmp_path: Path, line: str) -> None:
    good = '{"y": 1, "price": 1, "user": "u", "item": 3, "more": {"a": [1]}}\n'
    assert f"a.csv, {JSON_FAULTS[line]}" in refused(tmp_path, good + line + "\n" + good, format="jsonl")


def test_a_label_that_a_json_line_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"y": 1, "user": "u"}\n' * 9 + '{"user": "u"}\n')
    config = LogConfig(train="a.jsonl", format="jsonl", label="y", categorical=("user",))
    with pytest.raises(LogError, match="line 10: the label 'y' is"):
        ingest(config, tmp_path / "log", base=tmp_path)
    with pytest.raises(LogError, match="there is no column 'z' in any line"):
        check_header(LogConfig(**(vars(config) | {"label": "z"})), tmp_path / "a.jsonl")
    with pytest.raises(LogError, match="there is no column 'usr' in any line; did you mean 'user'"):
        list(read_chunks(LogConfig(**(vars(config) | {"categorical": ("usr",)})), tmp_path / "a.jsonl"))
