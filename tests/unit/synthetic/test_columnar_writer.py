"""Synthetic logs written directly in columnar form: equal to ingest of their text, exact counts, any threads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.cli.main import main
from fae.core.errors import ArtifactError, RecipeError
from fae.ingest.ingest import ingest
from fae.synthetic.columnar_writer import add_id_counts, write_columnar
from fae.synthetic.config import SHAPES
from fae.synthetic.inputs import CHUNK_INPUTS
from fae.synthetic.text_writer import SyntheticConfig, SyntheticLog, log_config, write_criteo_tsv, write_text

NUM_INPUTS = CHUNK_INPUTS + 700


def config_of(shape: str, **values: object) -> SyntheticConfig:
    return SyntheticConfig(**{"shape": shape, "num_inputs": NUM_INPUTS, "scale": 1e-3, "drift": 0.1, **values})


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def logs(shape: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ColumnarLog]:
    """One log three ways: by ingest of its text, by popularity, with the generator's ids."""
    folder, config = tmp_path_factory.mktemp(shape), config_of(shape)
    write_text(config, folder / "log.txt")
    write_columnar(config, folder / "direct")
    write_columnar(config, folder / "encoded", ids="encoded")
    return {
        "ingested": ingest(log_config(config, "log.txt"), folder / "ingested", base=folder),
        "direct": ColumnarLog(folder / "direct"),
        "encoded": ColumnarLog(folder / "encoded"),
    }


def test_equal_to_ingest_but_for_ties(logs: dict[str, ColumnarLog]) -> None:
    direct, ingested = logs["direct"], logs["ingested"]
    for name in ("train", "validation", "test"):
        assert direct.split(name) == ingested.split(name)
    assert np.array_equal(direct.labels, ingested.labels)
    assert np.array_equal(direct.dense, ingested.dense)
    assert direct.dense_names == ingested.dense_names
    assert direct.features == ingested.features
    assert np.array_equal(direct.counts, ingested.counts), "counts by popularity do not see the order of equals"
    slot = 0
    for feature in direct.features:
        ours, theirs = (np.asarray(log.ids[:, slot : slot + feature.length]).ravel() for log in (direct, ingested))
        slot += feature.length
        pairs = np.unique(np.stack([ours, theirs]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1], "a renaming of ids"
        assert ((pairs[0] < 0) == (pairs[1] < 0)).all()
        unknown = pairs[0] == feature.unknown_id
        assert (pairs[1][unknown] == feature.unknown_id).all()


@pytest.mark.parametrize("which", ["direct", "encoded"])
def test_counts_are_those_of_the_training_rows(logs: dict[str, ColumnarLog], which: str) -> None:
    log = logs[which]
    start, stop = log.split("train")
    slot = 0
    for feature, first in zip(log.features, log.table_offsets, strict=False):
        ids = np.asarray(log.ids[start:stop, slot : slot + feature.length])
        slot += feature.length
        counts = np.bincount(ids[ids >= 0], minlength=feature.num_embeddings)
        assert np.array_equal(counts, log.counts[first : first + feature.num_embeddings])
        assert ids.max() < feature.num_embeddings
        assert feature.encoded == (which == "encoded")
        assert which == "encoded" or (np.diff(counts) <= 0).all()


def test_encoded_ids_are_what_was_drawn(logs: dict[str, ColumnarLog], shape: str) -> None:
    log = SyntheticLog(config_of(shape))
    missing = [column.can_miss for column in log.columns for _ in range(column.length)]
    assert np.array_equal(logs["encoded"].ids[:CHUNK_INPUTS], log.chunk(0).ids + np.array(missing, np.int32))


def test_bytes_do_not_depend_on_threads(
    logs: dict[str, ColumnarLog], shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "1")
    write_columnar(config_of(shape), tmp_path / "log")
    assert (tmp_path / "log" / "manifest.json").read_bytes() == (logs["direct"].path / "manifest.json").read_bytes()


def test_values_stay_in_their_column(shape: str) -> None:
    for scale, drift in ((1e-6, 0.9), (1.0, 0.9), (1.0, 0.0)):
        log = SyntheticLog(config_of(shape, scale=scale, drift=drift))
        ids, slot = log.chunk(0).ids, 0
        for column in log.columns:
            own = ids[:, slot : slot + column.length]
            slot += column.length
            assert own.max() < column.num_values
            assert own.min() >= (-1 if column.can_miss or column.length > 1 else 0)


def test_clicks_can_be_learned(shape: str, logs: dict[str, ColumnarLog]) -> None:
    best = logs["direct"].manifest.summary["synthetic"]["best_auc"]
    assert 0.7 < best < 0.85
    chunk = SyntheticLog(config_of(shape)).chunk(0)
    order = np.argsort(chunk.probabilities)
    tenth = len(order) // 10
    assert chunk.labels[order[-tenth:]].mean() > 2 * chunk.labels[order[:tenth]].mean()
    assert chunk.labels.mean() == pytest.approx(0.25, abs=0.02)


def test_histories_end_with_a_candidate_of_a_known_category() -> None:
    chunk = SyntheticLog(config_of("taobao")).chunk(0)
    items, categories = chunk.ids[:, 1:22], chunk.ids[:, 22:]
    used = items >= 0
    assert (used == (categories >= 0)).all()
    lengths = used.sum(1)
    assert (used == (np.arange(21) < lengths[:, None])).all(), "unused slots come last"
    assert lengths.min() == 2
    assert lengths.max() == 21
    pairs = np.unique(np.stack([items[used], categories[used]]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])), "one category an item"
    candidate = categories[np.arange(len(lengths)), lengths - 1]
    seen = ((categories == candidate[:, None]).sum(1) > 1).astype(float)
    assert np.corrcoef(seen, chunk.probabilities)[0, 1] > 0.05


def test_hours_pass() -> None:
    log = SyntheticLog(config_of("avazu"))
    hours = np.concatenate([log.chunk(index).ids[:, 0] for index in range(2)])[:NUM_INPUTS]
    assert (np.diff(hours) >= 0).all()
    assert hours[0] == 0
    assert hours[-1] == 239


def test_counting_adds_and_keeps_no_lookups_apart() -> None:
    counts = np.zeros(5, np.uint32)
    for _ in range(2):
        add_id_counts(np.array([0, 2, 2, -1, -1, -1, 1], np.int32), counts)
    assert counts.tolist() == [2, 2, 4, 0, 6]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="none is left for training"):
        write_columnar(config_of("criteo", num_inputs=1), tmp_path / "log", test_fraction=0.9)
    with pytest.raises(RecipeError, match="shape = 'movielens' is not one of"):
        SyntheticConfig(shape="movielens")
    with pytest.raises(RecipeError, match="more values than 32 bits"):
        SyntheticConfig(scale=4, drift=0.9, num_days=100)
    with pytest.raises(RecipeError, match="no Criteo TSV"):
        write_criteo_tsv(config_of("avazu"), tmp_path / "log")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ArtifactError, match="is no artifact"):
        write_columnar(config_of("criteo"), tmp_path / "mine")


def test_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write_columnar(config_of("zipf", num_inputs=100), tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_verb_makes_a_run_folder_for_the_next_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["synthetic", "--inputs", "3000", "--columnar", "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["log"]["num_inputs"] == 3000
    assert result["path"] == str(out / "log")
    assert (out / "recipe.toml").read_text() == '[log]\nformat = "columnar"\ntrain = "log"\n'
    assert main(["profile", str(out / "recipe.toml"), "--out", str(out), "--json"]) == 0
    assert "next, `fae run" not in capsys.readouterr().out


@pytest.mark.parametrize("shape_of", SHAPES)
def test_verb_says_how_to_read_its_text(shape_of: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "log.txt"
    assert main(["synthetic", "--shape", shape_of, "--inputs", "500", "--out", str(out), "--json"]) == 0
    (tmp_path / "recipe.toml").write_text(json.loads(capsys.readouterr().out)["recipe"])
    assert main(["ingest", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]) == 0
    assert ColumnarLog(tmp_path / "run" / "log").num_inputs == 500


def test_verb_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--encoded", "--out", str(tmp_path / "a")], "add --columnar"),
        (["--scale", "9", "--out", str(tmp_path / "a")], "scale = 9.0 must be"),
    ):
        assert main(["synthetic", *arguments]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").mkdir()
    assert main(["synthetic", "--inputs", "100", "--columnar", "--out", str(tmp_path / "run")]) == 2
    assert "Is a directory" in capsys.readouterr().err
