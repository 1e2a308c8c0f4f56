"""Row optimizers do what torch's do, with one step count, and never change a row that a batch does not list."""

from __future__ import annotations

import inspect
import typing

import numpy as np
import pytest
import torch

from fae.artifacts.columnar_log import FeatureSchema
from fae.core.errors import RecipeError
from fae.core.optimizers import OPTIMIZERS, state_width
from fae.embedding.placements import PLACEMENTS
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.dense import make_dense_optimizer
from fae.training.plain import PlainEmbeddings
from fae.training.step import train_step

from cases import CPU, make_embeddings, random_log


def test_recipes_may_name_every_optimizer_and_no_other():
    assert typing.get_args(typing.get_type_hints(TrainConfig)["optimizer"]) == OPTIMIZERS
    with pytest.raises(RecipeError, match="optimizer = 'lion' is not one of sgd, rowwise_adagrad, adagrad, adam"):
        state_width("lion", 4)


def test_eps_is_torchs_unless_it_is_set():
    assert [RowOptimizer(name=name).eps for name in OPTIMIZERS] == [1e-8, 1e-8, 1e-10, 1e-8]
    assert RowOptimizer(name="adagrad", eps=0.5).eps == 0.5
    parameters = torch.nn.Linear(1, 1)
    for name in ("adagrad", "adam"):
        assert RowOptimizer(name=name).eps == make_dense_optimizer(name, parameters, 0.1).defaults["eps"]
    assert RowOptimizer().betas == make_dense_optimizer("adam", parameters, 0.1).defaults["betas"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("rowwise_adagrad", torch.optim.Adagrad), ("adagrad", torch.optim.Adagrad),
     ("adam", torch.optim.Adam)],
)  # fmt: skip
def test_dense_weights_take_the_counterpart(name, kind):
    made = make_dense_optimizer(name, torch.nn.Linear(1, 1), 0.1)
    assert isinstance(made, kind)
    assert inspect.unwrap(kind.step) is type(made).torch_step


def sparse_gradients(weight, batches):
    """Gradients of random rows, batch after batch; some rows return after several steps."""
    random = np.random.default_rng(4)
    for _ in range(batches):
        rows = torch.from_numpy(random.choice(len(weight), 5, replace=False))
        yield rows, torch.from_numpy(random.normal(size=(5, weight.shape[1])).astype(np.float32))


@pytest.mark.parametrize("name", ["adagrad", "adam"])
def test_it_is_torchs_sparse_optimizer_step_by_step(name):
    """The same row gradients into torch's optimizer and into the row kernels, without a model around them."""
    from fae.kernels.cpu import CpuGroupKernels
    from fae.kernels.geometry import group_geometries

    (geometry,) = group_geometries([1], ["sum"], [4])
    optimizer = RowOptimizer(name=name, learning_rate=0.03, betas=(0.7, 0.9))
    kernels = CpuGroupKernels(geometry, 5, name)
    start = torch.randn((12, 4), generator=torch.Generator().manual_seed(2))
    theirs, ours = torch.nn.Parameter(start.clone()), start.clone()
    state = torch.zeros((12, optimizer.state_width(4)))
    if name == "adam":
        torch_optimizer = torch.optim.SparseAdam([theirs], lr=0.03, betas=(0.7, 0.9))
    else:
        torch_optimizer = torch.optim.Adagrad([theirs], lr=0.03)
    pooled = torch.empty((5, 4))
    for step, (rows, gradient) in enumerate(sparse_gradients(start, 20), start=1):
        theirs.grad = torch.sparse_coo_tensor(rows[None], gradient, (12, 4), check_invariants=True)
        torch_optimizer.step()
        addresses = rows.numpy().astype(np.int32)[:, None]
        kernels.lookup(addresses, 12, ours, pooled, shift=0, cold_rows=np.empty(0, np.int64))
        order = torch.argsort(rows).numpy().astype(np.int32)
        kernels.update(
            ours, state, order, gradient, optimizer.learning_rate, optimizer.eps, betas=optimizer.betas, step=step
        )
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    torch_state = torch_optimizer.state[theirs]
    names = ("exp_avg", "exp_avg_sq") if name == "adam" else ("sum",)
    torch.testing.assert_close(state, torch.cat([torch_state[key] for key in names], 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_rows_that_no_input_lists_are_left_alone(placement):
    """Moments that are not zero would change them if a pad of a batch or of a list, or another row, did."""
    log = random_log(3, lists=True, num_inputs=40, batch_size=16)  # the last batch holds 8 inputs and 8 pads
    layout = log.layout(0.3, 3)
    embeddings = make_embeddings(placement, log, layout, RowOptimizer(name="adam", learning_rate=0.1))
    embeddings.initialise(3)
    for table in range(len(log.features)):
        weight, state = embeddings.export_table(table)
        embeddings.import_table(table, weight, torch.full_like(state, 0.5))
    before = [embeddings.export_table(table) for table in range(len(log.features))]
    model = torch.nn.Linear(1, 1)

    def forward(dense, features):
        return sum(features[name].sum(1) for name in features) + 0 * model(dense[:, :1]).squeeze(1)

    packed, last = log.packed(layout), len(log.groups) - 1
    dense_optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in embeddings.stream(packed, [last]):
        assert batch.num_inputs == 8
        train_step(forward, embeddings, dense_optimizer, batch)
    first = 0
    for table, feature in enumerate(log.features):
        ids = log.ids[log.groups[last], first : first + feature.length]
        listed = np.unique(ids[ids >= 0])
        others = np.setdiff1d(np.arange(feature.num_embeddings), listed)
        for old, new in zip(before[table], embeddings.export_table(table), strict=True):
            assert torch.equal(old[others], new[others])
            assert not torch.any(torch.all(old[listed] == new[listed], dim=1))
        first += feature.length


def test_every_batch_is_one_step_even_where_a_group_is_not_used():
    log = random_log(6, lists=True)
    embeddings = make_embeddings("cpu", log, log.layout(0.1, 1), RowOptimizer(name="adam"))
    embeddings.initialise(1)
    packed = log.packed(embeddings.layout)
    for count, batch in enumerate(embeddings.stream(packed, [0, 1, 2]), start=1):
        embeddings.lookup(batch)["a"].sum().backward()  # the other width gets no gradient
        embeddings.update(batch)
        assert embeddings.steps == count
    assert torch.count_nonzero(embeddings.export_table(4)[1]) == 0
    assert embeddings.device == CPU


@pytest.mark.parametrize("pooling", ["sum", "none"])
def test_pads_change_no_row_of_the_plain_trainer_either(pooling):
    """A pad that is looked up and multiplied by zero gives row 0 a gradient of zero, and Adam would change it."""
    features = (FeatureSchema(name="s", num_embeddings=6, length=3, pooling=pooling),)
    plain = PlainEmbeddings(features, [4], seed=1)
    weight = plain.tables[0].weight
    ids = torch.tensor([[2, -1, 5], [-1, -1, -1]])
    out = plain(ids)["s"]
    if pooling == "none":
        assert torch.equal(out, torch.stack([weight[[2, 0, 5]], torch.zeros(3, 4)]) * (ids >= 0).unsqueeze(-1))
    else:
        assert torch.equal(out, torch.stack([weight[2] + weight[5], torch.zeros(4)]))
    out.sum().backward()
    assert sorted(weight.grad.coalesce().indices()[0].tolist()) == [2, 5]
