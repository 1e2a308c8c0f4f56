"""Cases of training: batches out of turn, padded inputs, threads, splits that cannot validate, numbers too large."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import fae
from case_folders import copy_case
from fae.core.errors import RecipeError, TrainingError

RECIPE = """
[log]
train = "a.csv"
label = "y"
categorical = ["user", "item"]
dense = ["price"]
dense_transform = "none"
[model]
name = "dlrm"
embedding_dim = 4
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = zip(
        (rng.random(1200) < 0.4).astype(int), rng.zipf(1.3, 1200) % 300, rng.zipf(1.3, 1200) % 300, rng.random(1200),
        strict=True,
    )  # fmt: skip
    lines = [f"{y},u{u},i{i},{p:.4f}\n" for y, u, i, p in rows]
    (tmp_path / "a.csv").write_text("y,user,item,price\n" + "".join(lines))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def prepared(folder, *settings):
    recipe = fae.load_recipe(folder / "recipe.toml", settings)
    run = fae.RunFolder(recipe, folder / "out")
    for stage in ("ingest", "profile", "calibrate", "pack"):
        run.stage(stage)
    return recipe, run


class Normed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.out, self.sizes = torch.nn.BatchNorm1d(1), torch.nn.Linear(9, 1), []

    def forward(self, dense, embeddings):
        self.sizes.append(len(dense))
        assert len(embeddings["user"]) == len(dense)
        return self.out(torch.cat([self.norm(dense), embeddings["user"], embeddings["item"]], dim=1)).squeeze(1)


def test_a_kept_batch_is_refused(folder):
    _, run = prepared(folder, "train.batch_size=32", 'hot.budget="2KiB"', "hot.ring_depth=2")
    packed, embeddings = run.open_packed(), run.open_embeddings()
    before = embeddings.export_table(0)[0].clone()
    kept = list(embeddings.stream(packed.train, range(packed.train.num_batches)))
    for batch in kept:
        with pytest.raises(RuntimeError, match="whose turn is over"):
            embeddings.lookup(batch)
    assert torch.equal(embeddings.export_table(0)[0], before)


@pytest.mark.parametrize("batch_size", [1000, 256, 100])
def test_batch_norm_sees_real_inputs_only(folder, batch_size):
    """Sizes that leave a last batch of 26, 2 and 26 of the 1,026 training inputs."""
    recipe, run = prepared(folder, f"train.batch_size={batch_size}", "train.epochs=10", 'train.order="shuffled"')
    packed, model = run.open_packed(), Normed()
    fae.Trainer(model, run.open_embeddings(), packed, recipe.train).fit()
    prices = np.loadtxt(folder / "a.csv", delimiter=",", skiprows=1, usecols=3)
    moving = 0.0
    for _ in range(10):
        for batch in packed.train.inputs:
            moving = 0.9 * moving + 0.1 * prices[batch[batch >= 0]].mean()
    # Within an epoch the order is another; batches of 2 inputs have means of their own.
    assert model.norm.running_mean.item() == pytest.approx(moving, abs=0.05)
    assert 1026 % batch_size in model.sizes


def test_a_batch_of_one_input_has_no_statistics(folder, capfd):
    recipe, run = prepared(folder, "train.batch_size=1025", "train.epochs=3", 'train.order="shuffled"')
    packed, model = run.open_packed(), Normed()
    capfd.readouterr()
    fae.Trainer(model, run.open_embeddings(), packed, recipe.train).fit()
    assert capfd.readouterr().err.count("Normed's batch normalisation can take no statistics") == 1
    prices = np.loadtxt(folder / "a.csv", delimiter=",", skiprows=1, usecols=3)
    full = next(batch for batch in packed.train.inputs if (batch >= 0).all())
    assert model.norm.running_mean.item() == pytest.approx(prices[full].mean() * (1 - 0.9**3), abs=1e-4)
    assert model.norm.training


def test_the_dense_part_takes_the_threads_of_the_recipe(folder):
    """Its number is recorded, kept by a resumed training, and that of no machine."""
    before = torch.get_num_threads()
    recipe, run = prepared(folder, "train.threads=3", "train.epochs=2", "train.batch_size=64")
    seen = []

    class Watching(Normed):
        def forward(self, dense, embeddings):
            seen.append(torch.get_num_threads())
            return super().forward(dense, embeddings)

    result = fae.Trainer(Watching(), run.open_embeddings(), run.open_packed(), recipe.train).fit()
    assert (set(seen), result["train"]["threads"]) == ({3}, 3)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_one_recipe_is_one_checkpoint_on_any_number_of_threads(folder, threads):
    (folder / "recipe.toml").write_text(RECIPE.replace('"dlrm"', '"deepfm"'))
    before = torch.get_num_threads()
    found = []
    for number in (1, threads):
        torch.set_num_threads(number)
        try:
            recipe = fae.load_recipe(folder / "recipe.toml", ["train.batch_size=250"])
            fae.RunFolder(recipe, folder / f"out{number}", device="cpu").run()
        finally:
            torch.set_num_threads(before)
        found.append((folder / f"out{number}" / "checkpoint" / "tables" / "0.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["train.early_stopping=2"], "early_stopping = 2 needs a validation loss"),
        (['train.order="adaptive"'], 'order = "adaptive" needs a validation loss'),
    ],
)
def test_what_needs_a_validation_split_is_refused_without_one(folder, settings, named):
    recipe = fae.load_recipe(folder / "recipe.toml", ["log.validation_fraction=0.0", *settings])
    run = fae.RunFolder(recipe, folder / "out", device="cpu")
    with pytest.raises(RecipeError, match=f"{named}, and .log. validation_fraction is 0"):
        run.run()
    assert not (folder / "out" / "log").exists()
    empty = fae.load_recipe(folder / "recipe.toml", ["log.validation_fraction=0.0001", *settings])
    run = fae.RunFolder(empty, folder / "out", device="cpu")
    run.stage("ingest")
    with pytest.raises(RecipeError, match=f"{named}, and the validation split of the log is empty"):
        run.stage("profile")


def test_milliseconds_are_named_where_the_model_is_worse_than_the_rate(tmp_path):
    done = copy_case("dense-in-milliseconds", tmp_path).fae("run", "--device", "cpu")
    assert done.status == 0
    assert "of the bare click rate" in done.stderr
    assert "the likely cause is dense column 'ts' (up to 1.7e+12)" in done.stderr


def test_a_loss_that_is_not_finite_names_the_column(folder):
    lines = (folder / "a.csv").read_text().splitlines()
    (folder / "a.csv").write_text("\n".join([lines[0], *(f"{line}e36" for line in lines[1:])]) + "\n")
    _, run = prepared(folder, "train.batch_size=64", 'train.optimizer="sgd"')
    with pytest.raises(TrainingError, match=r"training diverged: .* the likely cause is dense column 'price' \(up to"):
        run.stage("train")


def test_one_class_says_why_there_is_no_auc(tmp_path):
    done = copy_case("one-class", tmp_path).fae("run", "--device", "cpu")
    assert done.status == 0
    assert "test AUC not defined: every label of the test split is 0" in done.stderr
    assert json.loads((tmp_path / "one-class" / "out" / "run.json").read_text())["test"]["auc"] is None


def test_weights_of_inputs_give_the_rate_of_the_whole_log(tmp_path):
    """Zeros were kept one in ten, so they weigh ten: half of the inputs are clicks, and one in eleven by weight."""
    case = copy_case("input-weights", tmp_path)
    assert case.fae("run", "--device", "cpu", "--set", "log.weight=w", "--set", "train.epochs=200").status == 0
    record = json.loads((case.folder / "out" / "run.json").read_text())
    log = np.loadtxt(case.folder / "a.csv", delimiter=",", skiprows=1, usecols=(0, 4))
    first, last = record["log"]["splits"]["test"]
    expected = (log[first:last, 0] * log[first:last, 1]).sum() / log[first:last, 1].sum()
    assert record["test"]["label_rate"] == pytest.approx(expected)
    assert record["log"]["label_rate"]["test"] == pytest.approx(expected)
    assert record["train"]["loss_curve"][-1][1] < 0.5


@pytest.mark.parametrize(("value", "named"), [("-1", "is -1"), ("", "is missing"), ("x", "'x'"), ("inf", "inf")])
def test_a_weight_that_is_none_is_refused(tmp_path, value, named):
    case = copy_case("input-weights", tmp_path)
    text = (case.folder / "a.csv").read_text().replace("1,u3,i3,1.5,1\n", f"1,u3,i3,1.5,{value}\n")
    (case.folder / "a.csv").write_text(text)
    done = case.fae("ingest", "--set", "log.weight=w")
    assert done.status == 2
    for part in ("line 5", "'w'", named):
        assert part in done.stderr
