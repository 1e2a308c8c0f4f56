"""Samples of raw logs: whole lines from all parts, tables of the whole log's size, intervals that hold."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.ingest.config import LogConfig
from fae.ingest.sources import find_sources
from fae.planning.sample.planned_log import make_planned_log, training_blocks
from fae.planning.sample.raw_sample import sample_raw
from fae.planning.sample.table_growth import RangedCount, extrapolate, table_rows
from fae.planning.sample.text_pieces import TextPieces, keep_lines, spans_lines, take_pieces, trim_users

from logs import make_log, zipf_log

HEADER = "label,user\n"
LINES = [f"{number % 2},u{number:07}\n" for number in range(40_000)]


def taken(path: Path, quota: int, *, from_begin: bool = False) -> tuple[list[str], TextPieces]:
    target = io.BytesIO()
    found = take_pieces(path, target, quota, 8, keep_lines, from_begin=from_begin)
    return target.getvalue().decode().splitlines(keepends=True), found


@pytest.mark.parametrize("packed", [False, True])
def test_pieces_are_whole_lines_of_all_parts(tmp_path: Path, packed: bool) -> None:
    text = (HEADER + "".join(LINES)).encode()
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(text) if packed else text)
    lines, found = taken(path, 2**17)
    assert lines[0] == HEADER
    assert set(lines[1:]) <= set(LINES)
    assert len(set(lines)) == len(lines), "no line twice"
    assert lines == [HEADER, *sorted(lines[1:], key=lambda line: line.split(",")[1])], "in order"
    numbers = np.array([int(line.split(",u")[1]) for line in lines[1:]])
    assert np.histogram(numbers, bins=4, range=(0, 40_000))[0].min() > len(numbers) / 16
    assert found.reaches_end
    assert found.total_bytes == len(text)
    assert found.num_bytes == sum(map(len, lines))
    assert 2**15 < found.num_bytes < 2**18
    assert sum(count for _, count in found.sizes) == len(lines)


def test_a_packed_file_that_is_not_read_to_its_end_says_so(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lines = [f"{value % 2},{value}\n" for value in random.integers(0, 2**62, 60_000).tolist()]
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    found = taken(path, 2**15)[1]
    assert not found.reaches_end
    assert found.total_bytes == pytest.approx(sum(map(len, lines)), rel=0.1)


def test_records_of_several_lines_are_read_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    config = LogConfig(train="log.csv", label="label", categorical=("user",))
    path.write_text(HEADER + "".join(f'1,"u{number}\nmore"\n' for number in range(9000)))
    assert spans_lines(config, path)
    lines, found = taken(path, 2**15, from_begin=True)
    assert "".join(lines) == path.read_text()[: found.num_bytes]
    assert not found.reaches_end
    path.write_text(HEADER + '1,"u, 1"\n\n' * 9000)
    assert not spans_lines(config, path)


def test_users_of_taobao_are_whole() -> None:
    text = b"".join(b"%d,%d,1,pv,5\n" % (user, item) for user in range(50) for item in range(user % 7 + 1))
    for start in range(0, 300, 37):
        begin = text.find(b"\n", start) + 1
        end = text.rfind(b"\n", begin, begin + 400) + 1
        found = trim_users(text[begin:end], False, False)
        users = {line.split(b",")[0] for line in found.splitlines()}
        for user in users:
            assert found.count(b"\n" + user + b",") + found.startswith(user + b",") == int(user) % 7 + 1


def test_parquet_rows_come_from_all_parts(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    path = tmp_path / "day=1" / "log.parquet"
    table = pa.table({"label": [0, 1] * 5000, "user": list(range(10_000)), "other": ["x" * 50] * 10_000})
    pq.write_table(table, path, row_group_size=1700)
    config = LogConfig(train="day=*/log.parquet", format="parquet", categorical=("user", "day"))
    raw = sample_raw(config, find_sources(config, tmp_path), tmp_path / "sample", path.stat().st_size // 2)
    (name,) = raw.config.train
    assert "/day=1/log.parquet" in name
    found = pq.read_table(name, partitioning=None)
    assert found.column_names == ["label", "user"]
    users = np.array(found["user"])
    assert (np.diff(users) > 0).all()
    assert users[0] == 0
    assert users[-1] == 9999
    assert raw.share == pytest.approx(len(users) / 10_000)


def test_rare_values_are_rare_in_the_sample_too(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(HEADER + "".join(LINES))
    config = LogConfig(train="log.csv", label="label", categorical=("user",), min_frequency=40)
    raw = sample_raw(config, find_sources(config, tmp_path), tmp_path / "sample", 2**17)
    assert raw.config.min_frequency == round(40 * raw.share)
    assert raw.share == pytest.approx(raw.num_bytes / (tmp_path / "log.csv").stat().st_size, rel=0.01)


@pytest.mark.parametrize("skew", [0.0, 0.8, 1.2, 2.0])
@pytest.mark.parametrize("size", [5, 300, 20_000])
def test_rows_of_the_whole_log_lie_in_the_interval(tmp_path: Path, skew: float, size: int) -> None:
    whole = zipf_log(tmp_path, num_inputs=40_000, sizes=[size], skew=skew, name="whole")
    true = int(np.count_nonzero(whole.counts)) + 1
    chosen = np.sort(np.random.default_rng(3).choice(40_000, 5000, replace=False))
    sample = make_log(
        tmp_path, np.asarray(whole.ids[chosen]), np.zeros(5000, int),
        features=[FeatureSchema(name="C0", num_embeddings=size, encoded=False)],
    )  # fmt: skip
    (found,) = table_rows(sample, training_blocks(sample), 8.0, [1], [0])
    assert found.low <= true <= found.high
    assert found.low <= found.value <= found.high


def test_growth_of_nothing_and_of_everything() -> None:
    assert extrapolate(0, 0, 0, 50) == RangedCount(value=0, low=0, high=0)
    assert extrapolate(5, 6, 7, 1.0) == RangedCount(value=7, low=7, high=7)
    assert extrapolate(250_000, 500_000, 1_000_000, 10**9).value == 2**31 - 2, "no table is larger"


def test_a_planned_log_keeps_what_the_sample_says(tmp_path: Path) -> None:
    sample = zipf_log(tmp_path, num_inputs=4000, sizes=(50, 900), num_validation=200, num_test=200)
    blocks = training_blocks(sample)
    assert [len(block) for block in blocks] == [90] * 40
    planned = make_planned_log(sample, blocks, [60, 3000], tmp_path / "planned", seed=1)
    assert isinstance(planned, ColumnarLog)
    assert [feature.num_embeddings for feature in planned.features] == [60, 3000]
    assert planned.split("train") == (0, 2880)
    assert planned.split("validation") == (2880, 3600)
    for table in range(2):
        begin, end = planned.table_offsets[table : table + 2]
        counts = planned.counts[begin:end]
        assert (np.diff(counts) <= 0).all()
        ids = planned.ids[:, table]
        seen = np.bincount(ids[:2880], minlength=end - begin)
        assert np.array_equal(counts[seen > 0], seen[seen > 0])
        assert (counts[seen == 0] == 1).all(), "the whole log accesses every row"
        # The same inputs: equal values have equal ids, others have others.
        order = np.concatenate([np.arange(block.start, block.stop) for part in (0, 1) for number, block in
                                enumerate(blocks) if (number % 5 == 2) == bool(part)])  # fmt: skip
        pairs = set(zip(sample.ids[order, table].tolist(), ids.tolist(), strict=True))
        assert len({old for old, _ in pairs}) == len({new for _, new in pairs}) == len(pairs)
    again = make_planned_log(sample, blocks, [60, 3000], tmp_path / "again", seed=1)
    assert np.array_equal(again.ids, planned.ids)
