"""The parts of ingest by themselves: vocabulary, ranking, spilling, values, files; compiled and as plain Python."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fae.core.errors import LogError
from fae.core.npy import RowWriter, npy_header
from fae.core.threads import run_jobs
from fae.ingest import final_ids, hex_vocabulary, renumbering, second_pass, vocabulary
from fae.ingest.config import ColumnConfig, LogConfig
from fae.ingest.dense_values import to_dense, to_labels
from fae.ingest.final_ids import number_by_popularity, number_encoded
from fae.ingest.hex_vocabulary import HexVocabulary
from fae.ingest.ingest import ingest
from fae.ingest.readers import criteo, taobao, taobao_parser
from fae.ingest.readers import csv as csv_reader
from fae.ingest.readers.dispatch import ahead
from fae.ingest.scratch import Scratch
from fae.ingest.values import as_text, list_items, whole_numbers
from fae.ingest.vocabulary import Vocabulary, hash_bytes

from logs import write_behaviour

CRITEO_LINE = "\t".join(["{label}", *["{count}"] * 13, *["{id}"] * 26]) + "\n"


def nowhere(row: int) -> str:
    return f"row {row}"


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch", 2**20)


@pytest.fixture
def plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every compiled loop by the Python function it was compiled from."""
    for module, name in (
        (vocabulary, "hash_bytes"), (vocabulary, "encode_values"), (vocabulary, "rebuild_table"),
        (final_ids, "rank_common"), (second_pass, "count_ids"), (criteo, "parse_lines"), (hex_vocabulary, "spread"),
        (hex_vocabulary, "encode_keys"), (hex_vocabulary, "enter_keys"), (hex_vocabulary, "write_hex"),
        (renumbering, "renumber_slots"), (taobao, "parse_behaviour"), (taobao, "place_values"), (taobao, "make_inputs"),
        (taobao_parser, "spread"), (taobao_parser, "_draw"), (taobao_parser, "_other_item"),
        (taobao_parser, "num_points"),
    ):  # fmt: skip
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, getattr(kernel, "py_func", kernel))


def write_criteo(path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=3))
    path.write_text(
        "".join(
            CRITEO_LINE.format(label=i % 2, count=("", 3, -1)[i % 3], id=f"{int(rng.integers(40)):08x}"[: i % 9])
            for i in range(60)
        )
    )


def log_bytes(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_loops_as_plain_python_give_the_same_log(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_criteo(tmp_path / "log.tsv")
    config = LogConfig(train="log.tsv", format="criteo", min_frequency=2)
    ingest(config, tmp_path / "compiled", base=tmp_path)
    request.getfixturevalue("plain_python")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow would warn, and would not be what the compiled loop does
        ingest(config, tmp_path / "plain", base=tmp_path)
    assert log_bytes(tmp_path / "compiled") == log_bytes(tmp_path / "plain")


def test_taobao_as_plain_python_gives_the_same_log(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_behaviour(tmp_path / "clicks.csv", num_users=30)
    config = LogConfig(train="clicks.csv", format="taobao")
    ingest(config, tmp_path / "compiled", base=tmp_path)
    request.getfixturevalue("plain_python")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ingest(config, tmp_path / "plain", base=tmp_path)
    assert log_bytes(tmp_path / "compiled") == log_bytes(tmp_path / "plain")


@pytest.mark.parametrize("limit", [2**30, 1])
def test_hex_vocabulary_grows_like_a_dict(tmp_path: Path, limit: int) -> None:
    scratch = Scratch(tmp_path / "scratch", limit)
    words = HexVocabulary("c", scratch)
    rng = np.random.Generator(np.random.Philox(key=5))
    reference: dict[str, int] = {}
    for part in range(8):
        # Short ids, which share their numbers with long ones, come only half-way.
        digits = 8 if part < 4 else 3
        chunk = ["" if v % 11 == 0 else f"{int(v):0{digits}x}" for v in rng.zipf(1.2, 2000) % 2**32]
        got = words.encode(pa.array(chunk))
        assert got.tolist() == [reference.setdefault(value, len(reference)) for value in chunk]
    assert words.size == len(reference) > 2000
    assert words.missing_id == reference[""]
    words.seal()
    some = np.array([3, -1, 0, len(reference) - 1, words.missing_id], np.int32)
    everything = list(reference)
    assert words.values(some).to_pylist() == [everything[3], None, everything[0], everything[-1], ""]
    assert (scratch.spilled_bytes > 0) == (limit == 1)


def test_too_many_hex_values(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hex_vocabulary, "MAX_VALUES", 2)
    with pytest.raises(LogError, match="'c' has more than 2 distinct values"):
        HexVocabulary("c", scratch).encode(pa.array(["a", "b", "c"]))


def test_hash_is_the_same_compiled_and_spreads() -> None:
    plain = getattr(hash_bytes, "py_func", hash_bytes)
    rng = np.random.Generator(np.random.Philox(key=1))
    texts = [rng.integers(0, 256, size=n % 23).astype(np.uint8) for n in range(300)]
    extreme = np.full(64, 255, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in [*texts, extreme]:
            assert 0 <= plain(data, 0, len(data)) == hash_bytes(data, 0, len(data)) < 2**63
    numbers = [str(i).encode() for i in range(20_000)]
    low = {int(hash_bytes(np.frombuffer(text, np.uint8), 0, len(text))) & 0xFFFF for text in numbers}
    assert len(low) > 0.9 * 65_536 * (1 - np.exp(-20_000 / 65_536))  # as many slots as random ones would take


def test_values_with_one_hash_are_still_told_apart(
    scratch: Scratch, plain_python: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "hash_bytes", lambda data, start, stop: np.int64(5))
    words = Vocabulary("c", scratch)
    assert words.encode(pa.array(["a", "b", "", "ab", "a", "b"])).tolist() == [0, 1, 2, 3, 0, 1]
    assert words.missing_id == 2


@pytest.mark.parametrize("limit", [2**30, 1])
def test_vocabulary_grows_like_a_dict(tmp_path: Path, limit: int) -> None:
    scratch = Scratch(tmp_path / "scratch", limit)
    words = Vocabulary("c", scratch)
    rng = np.random.Generator(np.random.Philox(key=2))
    reference: dict[str, int] = {}
    for _ in range(8):
        chunk = [f"value {int(v)}" for v in rng.zipf(1.2, 2000) % 10**9]
        got = words.encode(pa.array(["skipped", *chunk])[1:])  # a slice: its offsets do not begin at 0
        assert got.tolist() == [reference.setdefault(value, len(reference)) for value in chunk]
    assert words.size == len(reference) > 2000
    words.seal()
    some = np.array([3, -1, 0, len(reference) - 1], np.int32)
    everything = list(reference)
    assert words.values(some).to_pylist() == [everything[3], None, everything[0], everything[-1]]
    assert (scratch.spilled_bytes > 0) == (limit == 1)
    scratch.close()
    assert not (tmp_path / "scratch").exists()


def test_table_and_counts_as_plain_python(scratch: Scratch, plain_python: None) -> None:
    words = Vocabulary("c", scratch)
    texts = [str(i % 1500) for i in range(3000)]
    for start in range(0, 3000, 600):  # the table is rebuilt on the way
        got = words.encode(pa.array(texts[start : start + 600])).tolist()
        assert got == [int(text) for text in texts[start : start + 600]]
    counts = np.zeros(5, np.int64)
    ids = np.array([[9, 0, 2], [9, -1, -1], [9, 2, -1]], np.int32)
    assert second_pass.count_ids(ids, 1, 2, counts) == 1
    assert counts.tolist() == [1, 0, 2, 0, 3]


def test_threads_do_not_change_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_criteo(tmp_path / "log.tsv")
    config = LogConfig(train="log.tsv", format="criteo")
    for threads in ("1", "3"):
        monkeypatch.setenv("FAE_NUM_THREADS", threads)
        ingest(config, tmp_path / threads, base=tmp_path)
    assert log_bytes(tmp_path / "1") == log_bytes(tmp_path / "3")


def test_quoted_line_ends_at_the_edges_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "label,id\n" + "".join(f'{i % 2},"a\n{i % 7}"\n' for i in range(50))
    (tmp_path / "log.csv").write_text(text)
    for block_bytes in range(40, 60):
        monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", block_bytes)
        log = ingest(LogConfig(train="log.csv", categorical=("id",)), tmp_path / "log", base=tmp_path)
        assert (log.num_inputs, log.features[0].num_embeddings) == (50, 8)


def test_too_many_values(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MAX_VALUES", 2)
    with pytest.raises(LogError, match="'c' has more than 2 distinct values"):
        Vocabulary("c", scratch).encode(pa.array(["a", "b", "c"]))


def test_scratch_keeps_within_its_limit_and_gives_back(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch", 100)
    first = scratch.array(10, np.int64)
    second = scratch.array(10, np.int64)  # 160 bytes in all
    assert not isinstance(first, np.memmap)
    assert isinstance(second, np.memmap)
    assert scratch.spilled_bytes == 80
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    second[:] = 7
    third = scratch.grow(second, 20)
    assert third[:10].tolist() == [7] * 10
    scratch.release(third)
    assert list((tmp_path / "scratch").iterdir()) == []
    scratch.release(first)
    assert not isinstance(scratch.array(12, np.int64), np.memmap)
    assert len(scratch.array(0, np.int8)) == 0


@pytest.mark.parametrize("common", [1, 2, 4, 1 << 16])
def test_popularity_order_does_not_depend_on_how_it_is_sorted(scratch: Scratch, common: int) -> None:
    counts = np.array([2, 9, 0, 3, 3, 1, 9, 2], np.int64)
    got = number_by_popularity(counts, 2, scratch, common=common)
    assert got.final.tolist() == [4, 0, 6, 2, 3, 6, 1, 5, 6, -1]
    assert got.counts.tolist() == [9, 9, 3, 3, 2, 2, 1]
    assert got.unknown_id == 6
    assert number_by_popularity(counts, 3, scratch, common=common).counts.tolist() == [9, 9, 5, 3, 3]
    assert number_by_popularity(counts, 4, scratch, common=common).counts.tolist() == [11, 9, 9]
    assert number_by_popularity(counts, 100, scratch, common=common).final.tolist() == [0] * 9 + [-1]


def test_encoded_numbers_keep_their_places(scratch: Scratch) -> None:
    got = number_encoded(np.array([5, 0, 1, 4], np.int64), 2, scratch, missing=3)
    assert got.final.tolist() == [0, 4, 4, 3, 4, -1]
    assert (got.counts.tolist(), got.num_embeddings, got.unknown_id) == ([5, 0, 0, 4, 4], 5, 4)


def test_an_encoded_column_without_a_number_in_training(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("label,id\n" + "1,\n" * 9 + "0,5\n")
    config = LogConfig(train="log.csv", categorical=(ColumnConfig(name="id", encoded=True),), validation_fraction=0.0)
    log = ingest(config, tmp_path / "log", base=tmp_path)
    assert (log.features[0].num_embeddings, log.features[0].unknown_id) == (1, 0)
    assert log.ids[:, 0].tolist() == [0] * 10
    assert log.manifest.summary["missing_share"] == {"id": 1.0}
    assert log.manifest.summary["label_rate"] == {"train": 1.0, "validation": None, "test": 0.0}


def test_as_text_of_every_kind() -> None:
    def text(array: Any) -> list[str]:
        result: list[str] = as_text(array, "c", nowhere).to_pylist()
        return result

    assert text(pa.array([7, None], pa.uint64())) == ["7", ""]
    assert text(pa.array([7.0, None, -2.0])) == ["7", "", "-2"]
    assert text(pa.array([True, None])) == ["true", ""]
    assert text(pa.array([None, None])) == ["", ""]
    assert text(pa.array(["x", None]).dictionary_encode()) == ["x", ""]
    assert text(pa.array([b"x"], pa.large_binary())) == ["x"]
    assert text(pa.array(["a", "b"], pa.large_string())[1:]) == ["b"]


def test_list_items_keep_the_last_ones() -> None:
    array = pa.array([["a", None, "b", "", "c"], None, [], ["d"]])[0:4]
    items = list_items(array, "|", 2, "c", nowhere)
    assert (items.values.to_pylist(), items.rows.tolist(), items.slots.tolist()) == (
        ["b", "c", "d"], [0, 0, 3], [0, 1, 0],
    )  # fmt: skip
    fixed = list_items(pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), "|", 3, "c", nowhere)
    assert fixed.values.to_pylist() == ["1", "2", "3", "4"]
    assert list_items(pa.array([5, None]), "|", 2, "c", nowhere).values.to_pylist() == ["5"]
    with pytest.raises(LogError, match="row 1: "):
        list_items(pa.array([[1.0], [2.5]]), "|", 2, "c", nowhere)
    with pytest.raises(LogError, match="row 0: column 'c' is of type struct"):
        list_items(pa.array([], pa.list_(pa.struct([("a", pa.int8())]))), "|", 2, "c", nowhere)


def test_whole_numbers_beside_what_int64_holds() -> None:
    assert whole_numbers(pa.array(["3", "", "007"]), "c", nowhere).tolist() == [3, -2, 7]
    assert whole_numbers(pa.array([], pa.string()), "c", nowhere).tolist() == []


def test_labels_and_dense_of_every_kind() -> None:
    for array in (
        pa.array([0, 1, 1]), pa.array([0.0, 1.0, 1.0]), pa.array([False, True, True]),
        pa.array(["0", "1.0", "True"]), pa.array(["false", "1", " 1 "]).dictionary_encode(),
    ):  # fmt: skip
        assert to_labels(array, "y", nowhere).tolist() == [0, 1, 1]
    e = float(np.float32(np.log1p(3.0)))
    for array in (
        pa.array([3, None, -5]), pa.array(["3", "", "-5"]), pa.array(["3", None, "-5"]).dictionary_encode(),
        pa.array([3.0, None, -5.0], pa.float32()),
    ):  # fmt: skip
        assert to_dense(array, "log1p", "x", nowhere).tolist() == [e, 0.0, 0.0]
        assert to_dense(array, "none", "x", nowhere).tolist() == [3.0, 0.0, -5.0]
    assert to_dense(pa.array([None, None]), "none", "x", nowhere).tolist() == [0.0, 0.0]
    assert to_dense(pa.array([2**63], pa.uint64()), "none", "x", nowhere).tolist() == [2.0**63]


def test_npy_files_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with RowWriter(path, np.int32, 3) as writer:
        for count in (2, 0, 5):
            writer.append(np.full((count, 3), count, np.int32))
    array = np.load(path, mmap_mode="r")
    assert array.shape == (7, 3)
    assert array[:, 0].tolist() == [2, 2, 5, 5, 5, 5, 5]
    assert len(npy_header(np.float32, (10**15, 100_000))) == len(npy_header(np.uint8, (0,))) == 128
    with RowWriter(path, np.float32, 0) as writer:
        writer.append(np.zeros((4, 0), np.float32))
    assert np.load(path, mmap_mode="r").shape == (4, 0)
    with pytest.raises(ZeroDivisionError), RowWriter(path, np.float32, 1) as writer:
        writer.append(np.full((1, 1), 1 // 0, np.float32))


def test_ahead_gives_items_then_errors_and_stops_when_closed() -> None:
    def numbers() -> Any:
        yield from range(5)
        raise LogError("five")

    items = ahead(numbers())
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(LogError, match="five"):
        next(items)
    endless = ahead(iter(int, 1), depth=1)
    assert next(endless) == 0
    time.sleep(0.15)  # the thread finds its queue full meanwhile, and waits
    endless.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fae-read-ahead"]


def test_jobs_all_end_and_the_first_failure_is_reported() -> None:
    ended = []

    def job(index: int) -> Any:
        def run() -> None:
            ended.append(index)
            if index in (3, 5):
                raise ValueError(str(index))

        return run

    with pytest.raises(ValueError, match="3"):
        run_jobs([job(index) for index in range(8)])
    assert sorted(ended) == list(range(8))
