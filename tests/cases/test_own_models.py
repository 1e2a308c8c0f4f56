"""A model and a loop of one's own: what the training does with each and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import fae
from fae.core.errors import TrainingError

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
    metrics = dataclasses.asdict(fae.evaluate(model, embeddings, run.open_packed().test))
    assert metrics == {name: result["test"][name] for name in metrics}
    best = losses.index(min(losses)) + 1
    again, others = own(run)
    fae.Trainer(again, others, run.open_packed(), dataclasses.replace(config, epochs=best, early_stopping=0)).fit()
    for one, other in zip(tables(embeddings), tables(others), strict=True):
        assert torch.equal(one, other)


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


def test_a_feature_that_is_not_there_is_named_with_its_nearest(run):
    class Typo(torch.nn.Module):
        def forward(self, dense, embeddings):
            assert "usr" not in embeddings
            return embeddings["usr"].sum(1)

    embeddings = run.open_embeddings()
    with pytest.raises(fae.FaeError, match=r"embeddings\['usr'\].*no such feature; did you mean 'user'\?"):
        fae.Trainer(Typo(), embeddings, run.open_packed(), run.recipe.train).fit()
    for batch in embeddings.stream_frozen(run.open_packed().train, [0]):
        features = embeddings.lookup(batch)
        with pytest.raises(KeyError):
            features["usr"]
        with pytest.raises(fae.FaeError, match=r"lengths of 'user'.*pooling = \"none\""):
            features.lengths("user")


@pytest.mark.parametrize("part", ["train", "evaluate"])
def test_shapes_that_do_not_fit_are_told_with_what_the_model_was_given(run, part):
    model, embeddings = own(run)
    model.out = torch.nn.Linear(7, 1)
    packed = run.open_packed()
    trainer = fae.Trainer(model, embeddings, packed, run.recipe.train)
    work = trainer.fit if part == "train" else lambda: fae.evaluate(model, embeddings, packed.train)
    given = r"it is given dense \[16, 2\] and embeddings of user \[16, 4\], item \[16, 4\]"
    with pytest.raises(TrainingError, match=f"forward of Linear failed: .*{given}"):
        work()


def test_other_errors_of_a_model_stay_what_they_are(run):
    model, embeddings = own(run, change=lambda x: (_ for _ in ()).throw(RuntimeError("out of paint")))
    with pytest.raises(RuntimeError, match=r"^out of paint$"):
        fae.evaluate(model, embeddings, run.open_packed().test)


def trained(run, folder=None, **changes):
    model, embeddings = own(run)
    config = dataclasses.replace(run.recipe.train, **changes)
    trainer = fae.Trainer(model, embeddings, run.open_packed(), config, folder=folder)
    return trainer.fit(), model, embeddings


def test_a_folder_keeps_the_training_of_a_model_of_ones_own(run, tmp_path, capsys):
    first, _, embeddings = trained(run, tmp_path)
    capsys.readouterr()
    again, _, loaded = trained(run, tmp_path)
    assert again == first
    assert all(map(torch.equal, tables(loaded), tables(embeddings)))
    with pytest.raises(fae.FaeError, match="finished training of another model, configuration or log"):
        trained(run, tmp_path, learning_rate=0.5)
    more, _, continued = trained(run, tmp_path, epochs=2)
    whole, _, expected = trained(run, epochs=2)
    assert more["test"] == whole["test"]
    assert all(map(torch.equal, tables(continued), tables(expected)))


def test_state_dicts_go_from_one_placement_to_another(run):
    _, _, embeddings = trained(run)
    state = embeddings.state_dict()
    assert state["steps"] == run.open_packed().train.num_batches
    for placement in ("device", "hybrid", "tiered"):
        other = fae.make_embeddings(placement, run.open_hot_set(), embeddings.optimizer, device="cpu")
        other.initialise(5)
        assert not torch.equal(other.state_dict()["user.weight"], state["user.weight"])
        other.load_state_dict(state)
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(other.state_dict()[name]))
            for name, value in state.items()
        )
    short = {name: value for name, value in state.items() if name != "item.state"}
    for wrong, told in (
        (short, "has no 'item.state'"), ({**state, "itm.weight": 1}, r"did you mean 'item.weight'\?"),
        ({**state, "user.weight": state["user.weight"][1:]}, r"'user.weight' of the state is \[\d+, 4\], and must be"),
        ({**state, "user.weight": None}, "'user.weight' of the state is NoneType"),
    ):  # fmt: skip
        with pytest.raises(fae.FaeError, match=told):
            other.load_state_dict(wrong)
    assert torch.equal(other.state_dict()["user.weight"], state["user.weight"])


def test_batches_are_a_torch_dataset_of_vocabulary_ids(run):
    log, packed = run.open_log(), run.open_packed()
    for split in ("train", "validation", "test"):
        data = fae.BatchDataset(packed, log, split)
        seen = []
        assert len(data) == getattr(packed, split).num_batches
        for item in torch.utils.data.DataLoader(data, batch_size=None, num_workers=1 if split == "test" else 0):
            inputs = item["inputs"].numpy()
            seen += inputs.tolist()
            for column, feature in enumerate(log.features):
                assert item["ids"][feature.name].tolist() == log.ids[inputs, column].tolist()
            assert item["labels"].tolist() == log.labels[inputs].tolist()
            assert torch.equal(item["dense"], torch.from_numpy(log.dense[inputs]))
            assert item["weights"].tolist() == [1] * len(inputs)
        start, stop = log.split(split)
        assert sorted(seen) == list(range(start, stop))
        assert torch.equal(data[-1]["inputs"], data[len(data) - 1]["inputs"])
    with pytest.raises(IndexError):
        data[len(data)]
    with pytest.raises(fae.FaeError, match="split = 'dev' must be one of train, validation, test"):
        fae.BatchDataset(packed, log, "dev")
