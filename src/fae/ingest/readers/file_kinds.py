"""Tell from its first bytes what a file is, before a reader takes the bytes of an archive or a spreadsheet for text.

The name decides how a file is opened (``.gz``, ``.zst``), so a name that says otherwise than the bytes is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

from fae.core.errors import LogError
from fae.ingest.readers.line_blocks import BOM, COMPRESSIONS, cannot_read, open_bytes

_HEAD_BYTES = 4096
_FIRST_LINE_BYTES = 65536
_GZ, _ZST = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UNPACK = "unpack it ({}) and name what is in it"
_TAR_AT, _TAR = 257, b"ustar"

_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", _UNPACK.format("unzip")),
    (b"PK\x05\x06", "an empty zip archive", "make it again"),
    (b"BZh", "a bzip2 file", _UNPACK.format("bunzip2")),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK.format("unxz")),
    (b"\x5d\x00\x00", "an lzma file", _UNPACK.format("unlzma")),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK.format("7z x")),
    (b"Rar!\x1a\x07", "a rar archive", _UNPACK.format("unrar x")),
    (b"\x04\x22\x4d\x18", "an lz4 file", _UNPACK.format("lz4 -d")),
    (b"\x1f\x9d", "a file of compress", _UNPACK.format("uncompress")),
    (b"LZIP", "an lzip file", _UNPACK.format("lzip -d")),
    (b"\xff\x06\x00\x00sNaPpY", "a snappy file", "unpack it and name what is in it"),
    (b"PAR1", "a Parquet file", 'set [log] format = "parquet"'),
    (b"PARE", "an encrypted Parquet file", "decrypt it"),
    (b"ORC", "an ORC file", "write it as Parquet or CSV (pyarrow.orc reads it)"),
    (b"Obj\x01", "an Avro file", "write it as Parquet, CSV or JSON lines"),
    (b"ARROW1", "an Arrow file (Feather)", "write it as Parquet (pyarrow.feather reads it)"),
    (b"FEA1", "a Feather file", "write it as Parquet (pyarrow.feather reads it)"),
    (b"SEQ\x06", "a Hadoop sequence file", "write it as Parquet or CSV"),
    (b"\x89HDF\r\n", "an HDF5 file", "write it as Parquet or CSV (pandas.read_hdf reads it)"),
    (b"\x93NUMPY", "a numpy array", "write it as Parquet or CSV"),
    (b"SQLite format 3\x00", "an SQLite database", "write its table as CSV (sqlite3 -csv -header)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", "a spreadsheet or document of Office", "save it as CSV"),
    (b"%PDF", "a PDF document", "name the log itself"),
    (b"\xff\xfe\x00\x00", "text in UTF-32", "convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    (b"\x00\x00\xfe\xff", "text in UTF-32", "convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    (b"\xff\xfe", "text in UTF-16", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\xfe\xff", "text in UTF-16", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself", "fetch the file (git lfs pull)"),
)  # fmt: skip
_MARKUP = (b"<!doctype html", b"<html", b"<?xml")


def describe_bytes(head: bytes) -> tuple[str, str] | None:
    """What a file with these first bytes is, if it is neither text in UTF-8 nor gz nor zst; and what to do about it.

    >>> describe_bytes("y,user".encode("utf-16"))
    ('text in UTF-16', 'convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)')
    """
    for magic, kind, advice in _KINDS:
        # These marks are three letters that a word may begin with, and then text follows.
        if head.startswith(magic) and not (magic in (b"ORC", b"BZh") and _is_text(head[:64])):
            return kind, advice
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return "a tar archive", _UNPACK.format("tar -xf")
    start = head.removeprefix(BOM).lstrip().lower()
    if start.startswith(_MARKUP):
        return "a web page or XML", "download the log itself"
    for order, zeros in (("LE", head[1:64:2]), ("BE", head[0:64:2])):
        if len(zeros) >= 4 and not any(zeros) and any(head[:64]):
            return "text in UTF-16", f"convert it to UTF-8 (iconv -f UTF-16{order} -t UTF-8)"
    return None


def check_kind(path: Path, log_format: str) -> None:
    """Refuse a file that is something else than its name and `log_format` say.

    Raises
    ------
    LogError
        Saying what the file is, and how to make a log of it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise cannot_read(path, error) from error
    if log_format == "parquet":
        _check_parquet(path, head)
        return
    suffix = path.suffix.lower()
    if found := describe_bytes(head):
        raise LogError(f"{path} is {found[0]}; {found[1]}")
    for magic, name, named in ((_GZ, "gz", ".gz"), (_ZST, "zst", ".zst")):
        if head.startswith(magic) and suffix != named:
            raise LogError(
                f"{path} is compressed but not named so; rename it to {path.name}{named}"
                if suffix not in COMPRESSIONS
                else f"{path} is {name} and not {suffix}; rename it to {path.stem}{named}"
            )
        # A zst file may begin with a frame that is skipped.
        is_named = head.startswith(magic) or (named == ".zst" and head[1:4] == b"\x2a\x4d\x18")
        if head and suffix == named and not is_named:
            raise LogError(f"{path} is not {name}, though its name says so; rename it to {path.stem}")
    if suffix in COMPRESSIONS:
        head = _unpacked(path, _HEAD_BYTES)
        if found := describe_bytes(head):
            raise LogError(f"{path}, unpacked, is {found[0]}; {found[1]}")
        for magic, name in ((_GZ, "gz"), (_ZST, "zst")):
            if head.startswith(magic):
                raise LogError(f"{path}, unpacked, is {name} once more; unpack it once")
    _check_json(path, head, log_format)


def _check_parquet(path: Path, head: bytes) -> None:
    if not head or head.startswith(b"PAR1"):
        return
    advice = 'set [log] format = "csv" or "jsonl", or name the Parquet files'
    if found := describe_bytes(head):
        raise LogError(f"{path} is {found[0]} and not Parquet; {found[1]}")
    if head.startswith((_GZ, _ZST)):
        raise LogError(f"{path} is compressed and not Parquet; unpack it, or {advice}")
    if _is_text(head):
        raise LogError(f"{path} is text and not Parquet; {advice}")


def _check_json(path: Path, head: bytes, log_format: str) -> None:
    start = head.removeprefix(BOM).lstrip()
    if start.startswith(b"["):
        inner = start[1:].lstrip()
        if log_format == "jsonl" or (inner.startswith(b"{") and inner[1:].lstrip().startswith(b'"')):
            raise LogError(f"{path} is one JSON list; write an object a line (jq -c '.[]'){_as_jsonl(log_format)}")
    if not start.startswith(b"{"):
        if log_format == "jsonl" and start[:1] not in (b"", b'"') and _is_text(head) and not _is_json(start):
            raise LogError(f'{path} is text and not JSON; set [log] format = "csv", or name the JSON files')
        return
    line = start.split(b"\n", 1)[0]
    if line.strip() == b"{" and start[1:].lstrip().startswith(b'"'):
        raise LogError(f"{path} is JSON over several lines; write an object a line (jq -c .){_as_jsonl(log_format)}")
    if log_format == "jsonl":
        return
    if b"\n" not in start and len(head) >= _HEAD_BYTES:
        line = _unpacked(path, _FIRST_LINE_BYTES).removeprefix(BOM).lstrip().split(b"\n", 1)[0]
    try:
        is_object = isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        is_object = len(line) >= _HEAD_BYTES and line.startswith(b'{"')
    if is_object:
        raise LogError(f'{path} holds JSON, an object a line; set [log] format = "jsonl"')


def _as_jsonl(log_format: str) -> str:
    return "" if log_format == "jsonl" else ' and set [log] format = "jsonl"'


def _is_json(start: bytes) -> bool:
    try:
        json.loads(start.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return True


def _unpacked(path: Path, num_bytes: int) -> bytes:
    """The first bytes of the text; none where the file is damaged, which its reader says."""
    try:
        stream, raw = open_bytes(path)
        with raw, stream:
            return bytes(stream.read(num_bytes))
    except OSError:
        return b""


def _is_text(head: bytes) -> bool:
    if any(byte < 9 or 13 < byte < 27 for byte in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4
    return True
