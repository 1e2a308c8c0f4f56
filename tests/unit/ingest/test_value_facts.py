"""Facts of columns in a log's summary: distinct values, seen once, the most frequent one, keys and times."""

from __future__ import annotations

from pathlib import Path

import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> ColumnarLog:
    """2,000 inputs: a key, a time of every second, a user of 10, an encoded number that is often missing, a list."""
    folder: Path = tmp_path_factory.mktemp("facts")
    lines = ["label,key,at,user,code,tags"]
    for row in range(2000):
        code = "" if row % 4 else str(row % 3)
        tags = "|".join(f"t{tag}" for tag in range(row % 3))
        lines.append(
            f"{row % 2},k{row},2019-11-24 00:{row // 60:02}:{row % 60:02},u{row % 10 * (row % 2)},{code},{tags}"
        )
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    categorical = ("key", "at", "user", {"name": "code", "encoded": True}, {"name": "tags", "max_length": 4})
    config = LogConfig(train="log.csv", categorical=categorical, test_fraction=0.5, validation_fraction=0.0)  # type: ignore[arg-type]
    return ingest(config, folder / "log", base=folder)


def test_facts_are_those_of_the_training_split(log: ColumnarLog) -> None:
    facts = log.manifest.summary["value_facts"]
    assert set(facts) == {"key", "at", "user", "code", "tags"}
    assert (facts["key"]["distinct"], facts["key"]["seen_once"], facts["key"]["looks_like"]) == (1000, 1000, "key")
    assert facts["key"]["most_frequent_share"] == 0.001
    assert facts["at"]["looks_like"] == "timestamp"
    assert facts["user"] == {
        "distinct": 6, "seen_once": 0, "most_frequent": "u0", "most_frequent_share": 0.5, "looks_like": None,
    }  # fmt: skip
    # 750 of 1,000 inputs lack the code: the missing value is the most frequent one, and has no text.
    assert facts["code"]["most_frequent"] == ""
    assert facts["code"]["most_frequent_share"] == 0.75
    assert facts["code"]["distinct"] == 4
    # Lists of 0, 1, 2 items: t0 in two of three inputs, t1 in one; an empty list is no lookup.
    assert facts["tags"]["distinct"] == 2
    assert facts["tags"]["most_frequent"] == "t0"
    assert facts["tags"]["most_frequent_share"] == pytest.approx(2 / 3, abs=0.001)


def test_keys_and_times_have_a_note(log: ColumnarLog) -> None:
    notes = log.manifest.summary["notes"]
    assert any(note.startswith("1,000 of the 1,000 training lookups of the column 'key'") for note in notes)
    assert any("the column 'at' holds points in time, such as '2019-11-24 00:00:00'" in note for note in notes)
    assert any('from = "at", part = "hour"' in note for note in notes)
