"""Parts of continuing a run by themselves: numbering, grown tables, the recipe's key, checkpoints of other makers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.manifest import Plan
from fae.artifacts.row_layout import RowLayout
from fae.checkpoint.continuation import grown_table, load_parent
from fae.checkpoint.parent import find_parent
from fae.checkpoint.save_load import COMMAND, FORMAT_VERSION, KIND, save_checkpoint
from fae.core.config import from_table, to_table
from fae.core.errors import ArtifactError, LogError
from fae.embedding.placements import make_embeddings
from fae.ingest.config import LogConfig
from fae.ingest.continued_ids import KnownIds
from fae.ingest.ingest import ingest
from fae.ingest.numbering.final_ids import number_appended, number_encoded
from fae.ingest.scratch import Scratch
from fae.ingest.vocabulary import Vocabulary
from fae.models.config import DLRMConfig
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer, initial_rows
from fae.training.config import TrainConfig
from fae.training.dense import make_dense_optimizer

from packs import stub_hot_set

CONFIG = LogConfig(train="log.csv", categorical=("item",), validation_fraction=0.0, test_fraction=0.0)


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch", 2**20)


def test_known_values_keep_their_ids_and_new_ones_are_ranked(scratch: Scratch) -> None:
    counts = np.array([0, 7, 1, 2, 1, 5, 2, 0], np.int64)  # three known values, then five new ones
    got = number_appended(counts, 2, scratch, known=3, unknown_id=1)
    assert got.final.tolist() == [0, 2, 3, 5, 1, 4, 6, 1, 1, -1]
    assert got.counts.tolist() == [0, 1, 7, 1, 5, 2, 2]
    assert (got.num_embeddings, got.unknown_id) == (7, 1)
    nothing_new = number_appended(counts[:3], 9, scratch, known=3, unknown_id=3)
    assert nothing_new.final.tolist() == [0, 1, 2, 3, -1]
    assert nothing_new.counts.tolist() == [0, 7, 1, 0]


def test_encoded_numbers_that_are_known_need_no_count(scratch: Scratch) -> None:
    own = np.array([True, False, True])
    got = number_encoded(np.array([0, 1, 1, 1, 4], np.int64), 2, scratch, missing=3, own=own)
    assert got.final.tolist() == [0, 5, 2, 5, 4, 5, -1]
    assert got.counts.tolist() == [0, 0, 1, 0, 4, 5]


@pytest.mark.parametrize(("known", "rows"), [(10, 10), (10, 12), (65_536, 65_537), (65_530, 131_100)])
@pytest.mark.parametrize("encoded", [False, True])
def test_grown_table(known: int, rows: int, encoded: bool) -> None:
    old = FeatureSchema(name="t", num_embeddings=known, unknown_id=known - 1 if encoded else 4, encoded=encoded)
    new = FeatureSchema(name="t", num_embeddings=rows, unknown_id=rows - 1 if encoded else 4, encoded=encoded)
    weight, state = torch.randn(known, 3), torch.rand(known, 2)
    larger, larger_state = grown_table(weight, state, old, new, seed=5)
    fresh = torch.from_numpy(initial_rows(5, "t", rows, 3, 0, rows))
    fresh_state = torch.zeros(rows, 2)
    ids = torch.arange(known)
    if encoded:  # the reserved id is the last one in both
        ids[-1] = rows - 1
    fresh[ids], fresh_state[ids] = weight, state
    assert torch.equal(larger, fresh)
    assert torch.equal(larger_state, fresh_state)


def test_from_is_a_key_of_the_recipe() -> None:
    config = from_table(TrainConfig, {"from": "runs/day1"}, "[train]")
    assert config.from_ == "runs/day1"
    table = to_table(config)
    assert table["from"] == "runs/day1"
    assert "from_" not in table
    assert from_table(TrainConfig, table, "[train]") == config


class Run:
    """A run folder made by hand: a log, and a checkpoint whose plan may say anything."""

    def __init__(self, folder: Path, *, parameters: dict, hidden: int = 8, lines: str = "1,a\n0,b\n1,a\n") -> None:
        folder.mkdir()
        (folder / "log.csv").write_text("label,item\n" + lines)
        self.log = ingest(CONFIG, folder / "log", base=folder)
        layout = RowLayout(self.log.features, [4], [1])
        self.embeddings = make_embeddings("cpu", stub_hot_set(layout, batch_size=2), RowOptimizer(), device="cpu")
        self.embeddings.initialise(1)
        config = DLRMConfig(embedding_dim=4, top_mlp=(hidden,))
        self.model = build_model(config, self.log.features, 0, seed=1)
        self.optimizer = make_dense_optimizer("rowwise_adagrad", self.model, 0.1)
        plan = Plan(
            kind=KIND, format_version=FORMAT_VERSION, parameters=parameters,
            parents={"log": self.log.manifest.fingerprint}, command=COMMAND,
        )  # fmt: skip
        save_checkpoint(
            folder / "checkpoint", plan, model=self.model, dense_optimizer=self.optimizer, embeddings=self.embeddings,
            progress={"complete": True},
        )  # fmt: skip


def test_a_checkpoint_that_no_recipe_made(tmp_path: Path) -> None:
    Run(tmp_path / "run", parameters={"mine": 1})
    parent = find_parent("run", tmp_path)
    with pytest.raises(ArtifactError, match="was not made by `fae run`"):
        parent.check_fits(CONFIG, DLRMConfig(), TrainConfig().optimizer)


def test_dense_weights_of_another_model(tmp_path: Path) -> None:
    Run(tmp_path / "run", parameters={})
    other = Run(tmp_path / "other", parameters={}, hidden=9)
    with pytest.raises(ArtifactError, match=r"dense weights of .*checkpoint do not fit the model"):
        load_parent(find_parent("run", tmp_path), other.model, other.optimizer, other.embeddings, seed=1)


def test_a_vocabulary_of_another_length(tmp_path: Path, scratch: Scratch) -> None:
    """As if an earlier version had written it: its checksum is right and its content is not."""
    two, three = (Run(tmp_path / name, parameters={}, lines=lines)
                  for name, lines in (("two", "1,a\n0,b\n"), ("three", "1,a\n0,b\n1,c\n")))  # fmt: skip
    known = KnownIds(two.log, 0)
    known._path = three.log.path / "vocabulary" / "0.parquet"
    with pytest.raises(ArtifactError, match=r"is damaged \(4 lines for 3 ids\)"):
        known.add_to(Vocabulary("item", scratch))
    with pytest.raises(ArtifactError, match=r"is damaged \(4 lines for 3 ids\)"):
        known.own_ids()
    known._path.write_bytes(b"PAR1, it says")
    with pytest.raises(ArtifactError, match="is damaged"):
        known.own_ids()


def criteo_text(ids: list[str]) -> str:
    """Inputs of Criteo's format whose 26 ids are all the same."""
    return "".join("\t".join([str(i % 2), *["3"] * 13, *[text] * 26]) + "\n" for i, text in enumerate(ids))


def test_criteo_logs_continue_too(tmp_path: Path) -> None:
    """Their values are numbers while they are read; the vocabulary on the disk is text."""
    config = LogConfig(train="day.tsv", format="criteo", validation_fraction=0.0, test_fraction=0.0)
    (tmp_path / "day.tsv").write_text(criteo_text(["05db9164", "05db9164", "", "7"]))
    first = ingest(config, tmp_path / "first", base=tmp_path)
    (tmp_path / "day.tsv").write_text(criteo_text(["07", "7", "07", "68fd1e64", ""]))
    second = ingest(config, tmp_path / "second", base=tmp_path, parent=first)
    known = dict(zip(["05db9164", "05db9164", "", "7"], first.ids[:, 25].tolist(), strict=True))
    assert second.ids[:, 25].tolist() == [4, known["7"], 4, 5, known[""]]
    assert second.manifest.summary["missing_share"]["C1"] == 0.2


def test_a_text_vocabulary_is_no_parent_of_hex_ids(tmp_path: Path) -> None:
    names = tuple(f"C{index}" for index in range(1, 27))
    dense = tuple(f"I{index}" for index in range(1, 14))
    header = ",".join(["label", *dense, *names]) + "\n"
    (tmp_path / "log.csv").write_text(header + criteo_text(["0A", "b"]).replace("\t", ","))
    settings = {"validation_fraction": 0.0, "test_fraction": 0.0}
    text = LogConfig(train="log.csv", categorical=names, dense=dense, **settings)
    first = ingest(text, tmp_path / "first", base=tmp_path)
    (tmp_path / "day.tsv").write_text(criteo_text(["b", "b"]))
    with pytest.raises(ArtifactError, match="are no hex ids of up to 8 digits"):
        ingest(LogConfig(train="day.tsv", format="criteo", **settings), tmp_path / "two", base=tmp_path, parent=first)


def test_an_interrupted_ingest_continues_behind_the_known_values(tmp_path: Path) -> None:
    header, days = "label,item\n", {"one": "1,a\n0,b\n1,a\n", "two": "1,c\n0,c\n1,b\n", "three": "0,d\n1,a\n1,c\n"}
    for name, lines in days.items():
        (tmp_path / f"{name}.csv").write_text(header + lines)
    parent = ingest(dataclasses.replace(CONFIG, train="one.csv"), tmp_path / "parent", base=tmp_path)
    config = dataclasses.replace(CONFIG, train=("two.csv", "three.csv"))
    whole = ingest(config, tmp_path / "whole", base=tmp_path, parent=parent)
    (tmp_path / "three.csv").write_text(header + "x,d\n")
    with pytest.raises(LogError):
        ingest(config, tmp_path / "log", base=tmp_path, parent=parent)
    assert (tmp_path / ".log.partial.json").exists()
    (tmp_path / "three.csv").write_text(header + days["three"])
    again = ingest(config, tmp_path / "log", base=tmp_path, parent=parent)
    # a, b and the reserved id are the parent's; c is shown three times, d once.
    assert again.ids.ravel().tolist() == whole.ids.ravel().tolist() == [3, 3, 1, 4, 0, 3]
    assert again.manifest.files == whole.manifest.files
