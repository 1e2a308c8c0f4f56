"""A model and a loop of one's own: what the training does with each and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import fae
from fae.core.errors import TrainingError
from fae.training.metrics import Metrics

from commands import write_log, write_recipe

SMALL = {"hot": {"budget": "3500B", "small_table": "128B", "ring_depth": 2}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_log(folder)
    recipe = fae.load_recipe(
        write_recipe(folder, **SMALL), ["train.placement=tiered", "log.validation_fraction=0.2", "train.batch_size=16"]
    )
    made = fae.RunFolder(recipe, folder / "run", device="cpu")
    for stage in ("ingest", "profile", "calibrate", "pack"):
        made.stage(stage)
    assert made.open_packed().train.num_batches > made.open_packed().train.num_hot_batches
    return made


class Linear(torch.nn.Module):
    def __init__(self, names, width, change):
        super().__init__()
        torch.manual_seed(3)
        self.names, self.change, self.out = names, change, torch.nn.Linear(width, 1)

    def forward(self, dense, embeddings):
        return self.change(self.out(torch.cat([embeddings[name] for name in self.names], dim=1)).squeeze(1))


class Product(torch.nn.Module):
    """A factorisation: no weights but the rows."""

    def forward(self, dense, embeddings):
        first, second = list(embeddings)[:2]
        return (embeddings[first] * embeddings[second]).sum(1)


def own(run, change=lambda x: x):
    embeddings = run.open_embeddings()
    names, width = [feature.name for feature in embeddings.layout.features], sum(embeddings.layout.embedding_dims)
    model = Linear(names, width, change)
    return model, embeddings


def tables(embeddings):
    return [embeddings.export_table(table)[0] for table in range(len(embeddings.layout.features))]


def test_early_stopping_without_a_folder_ends_with_the_best_epoch(run):
    """Later epochs at this rate are worse; the metrics and the weights are those of the best one all the same."""
    config = dataclasses.replace(run.recipe.train, epochs=8, early_stopping=2, learning_rate=1.0)
    model, embeddings = own(run)
    result = fae.Trainer(model, embeddings, run.open_packed(), config).fit()
    losses = [point["log_loss"] for point in result["train"]["validation_curve"]]
    assert min(losses) < losses[-1]
    assert result["validation"]["log_loss"] == pytest.approx(min(losses), rel=1e-6)
    assert fae.evaluate(model, embeddings, run.open_packed().test) == Metrics(**result["test"])
    best = losses.index(min(losses)) + 1
    again, others = own(run)
    fae.Trainer(again, others, run.open_packed(), dataclasses.replace(config, epochs=best, early_stopping=0)).fit()
    for one, other in zip(tables(embeddings), tables(others), strict=True):
        assert torch.equal(one, other)


def test_a_folder_needs_a_plan(run, tmp_path):
    model, embeddings = own(run)
    with pytest.raises(ValueError, match="needs a plan"):
        fae.Trainer(model, embeddings, run.open_packed(), run.recipe.train, folder=tmp_path)


def test_rows_alone_are_a_model(run):
    embeddings = run.open_embeddings()
    before = tables(embeddings)
    result = fae.Trainer(Product(), embeddings, run.open_packed(), run.recipe.train).fit()
    assert result["test"]["auc"] is not None
    assert not torch.equal(before[0], tables(embeddings)[0])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x[:-1], "shape [15]"), (lambda x: x[:, None], "shape [16, 1]"), (torch.sum, "shape []"),
        (lambda x: (x,), "tuple"), (lambda x: None, "NoneType"),
    ],
)  # fmt: skip
def test_what_is_no_logit_an_input_is_refused(run, change, found):
    model, embeddings = own(run, change)
    with pytest.raises(TrainingError) as caught:
        fae.Trainer(model, embeddings, run.open_packed(), run.recipe.train).fit()
    assert f"forward of Linear returned {found} for 16 inputs" in str(caught.value)
    with pytest.raises(TrainingError, match="must return logits of shape"):
        fae.evaluate(model, embeddings, run.open_packed().test)
    assert model.training  # as it was, also after an error


def test_a_model_may_detach_its_features(run):
    model, embeddings = own(run)
    before = tables(embeddings)
    model.forward = lambda dense, features: model.out(
        torch.cat([features[name].detach() for name in model.names], dim=1)
    ).squeeze(1)
    weight = model.out.weight.detach().clone()
    fae.Trainer(model, embeddings, run.open_packed(), run.recipe.train).fit()
    assert not torch.equal(weight, model.out.weight)
    assert all(torch.equal(one, other) for one, other in zip(before, tables(embeddings), strict=True))


@pytest.mark.parametrize("placement", ["tiered", "device", "cpu", "hybrid", "paper"])
def test_an_update_without_a_backward_pass_is_refused(run, placement):
    recipe = dataclasses.replace(run.recipe, train=dataclasses.replace(run.recipe.train, placement=placement))
    embeddings = fae.RunFolder(recipe, run.out, device="cpu").open_embeddings()
    model, _ = own(run)
    packed = run.open_packed().train
    for batch in embeddings.stream(packed, [0, packed.num_batches - 1]):  # hot, cold
        embeddings.lookup(batch)
        with pytest.raises(RuntimeError, match="no backward pass has come"):
            embeddings.update(batch)
        model(batch.dense, embeddings.lookup(batch)).sum().backward()
        embeddings.lookup(batch)  # its gradients are other ones
        with pytest.raises(RuntimeError, match="no backward pass has come"):
            embeddings.update(batch)
        model(batch.dense, embeddings.lookup(batch)).sum().backward()
        embeddings.update(batch)
    assert embeddings.steps == 2


def test_tables_are_not_read_or_written_while_slots_hold_rows(run):
    model, embeddings = own(run)
    packed = run.open_packed().train
    stream = embeddings.stream(packed, [packed.num_batches - 1])  # cold
    batch = next(stream)
    model(batch.dense, embeddings.lookup(batch)).sum().backward()
    embeddings.update(batch)
    for use in (lambda: embeddings.export_table(0), lambda: embeddings.initialise(1)):
        with pytest.raises(RuntimeError, match="still open"):
            use()
    stream.close()
    changed, fresh = tables(embeddings), tables(run.open_embeddings())
    assert any(not torch.equal(one, other) for one, other in zip(changed, fresh, strict=True))


def test_folders_may_be_named_as_text(run):
    assert fae.ColumnarLog(str(run.path("ingest"))).path == run.path("ingest")
    assert fae.HotSet(str(run.path("calibrate"))).path == run.path("calibrate")
    assert fae.PackedDataset(str(run.path("pack"))).path == run.path("pack")
