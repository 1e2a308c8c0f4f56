"""Models through `torch.compile`: traced whole, the same numbers, and a clear way back where a model cannot be."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo

from fae.artifacts.columnar_log import FeatureSchema
from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.kernels.geometry import group_geometries
from fae.models.config import DLRMConfig, TBSMConfig
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.compiled_model import CompiledModel, can_compile
from fae.training.dense import make_dense_optimizer
from fae.training.runner import StepRunner

from cases import make_embeddings, random_log

TBSM = TBSMConfig(name="tbsm", embedding_dim=8, bottom_mlp=(), top_mlp=(7, 7), attention_mlp=(5,), final_mlp=(6,))
DLRM = DLRMConfig(name="dlrm", embedding_dim=8, bottom_mlp=(16,), top_mlp=(16,))
LENGTH = 6


def features_of(config, seed=0, batch=12):
    """Feature schemas, and the features of a batch with leaves to take gradients."""
    length, pooling = (LENGTH, "none") if config.name == "tbsm" else (1, "sum")
    schemas = [
        FeatureSchema(name="user", num_embeddings=50),
        FeatureSchema(name="item", num_embeddings=50, length=length, pooling=pooling),
    ]
    (geometry,) = group_geometries([1, length], ["sum", pooling], [8, 8])
    random = torch.Generator().manual_seed(seed)
    buffer = torch.randn(batch, geometry.width, generator=random, requires_grad=True)
    lengths = {"item": torch.randint(0, length + 1, (batch,), generator=random)}
    views = FeatureViews(["user", "item"], [[0, 1]], [geometry])
    return schemas, FeatureEmbeddings(views, lambda: [buffer], lengths), buffer


@pytest.fixture
def traced_whole(monkeypatch):
    """`torch.compile` without code generation, in which what cannot be traced is an error; lists the graphs."""
    torch._dynamo.reset()
    graphs, real = [], torch.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def tracing(function, *, dynamic, options):
        assert options == {"deterministic": True}
        return real(function, dynamic=dynamic, fullgraph=True, backend=backend)

    monkeypatch.setattr(torch, "compile", tracing)
    yield graphs
    torch._dynamo.reset()


@pytest.mark.parametrize("config", [TBSM, DLRM], ids=["tbsm", "dlrm"])
def test_traced_whole_once_and_the_same_numbers(config, traced_whole):
    schemas, _, _ = features_of(config)
    model = build_model(config, schemas, 2, seed=1)
    compiled = CompiledModel(model)
    for seed in (1, 2):
        dense = torch.randn(12, 2, generator=torch.Generator().manual_seed(seed))
        found = []
        for call in (model, compiled):
            _, features, buffer = features_of(config, seed)
            model.zero_grad()
            logits = call(dense, features)
            logits.sum().backward()
            found.append([logits.detach(), buffer.grad, *(p.grad.clone() for p in model.parameters())])
        for one, other in zip(*found, strict=True):  # small products are summed in another order
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert found[0][1].abs().sum() > 0
    assert len(traced_whole) == 1, "another batch of the same shape needs no other form"


def test_every_shape_of_a_process_has_room(traced_whole):
    """torch gives up quietly behind eight forms of one function; a bench of three workloads has more."""
    schemas, _, _ = features_of(TBSM)
    for batch in range(4, 16):
        for seed in range(2):  # models of one shape share a form
            compiled = CompiledModel(build_model(TBSM, schemas, 2, seed=seed))
            compiled(torch.zeros(batch, 2), features_of(TBSM, batch=batch)[1])
    assert len(traced_whole) == 12


class First(torch.nn.Module):
    """Looks at one feature by its name."""

    def forward(self, dense, embeddings):
        return embeddings["user"].sum(1)


def test_features_that_lie_elsewhere_are_found_there(traced_whole):
    """Sides of placement ``paper`` have views of their own."""
    compiled, (geometry,) = CompiledModel(First()), group_geometries([1, 1], ["sum", "sum"], [8, 8])
    buffer = torch.arange(32.0).view(2, 16)
    for order, columns in (([0, 1], slice(8)), ([1, 0], slice(8, 16)), ([0, 1], slice(8))):
        features = FeatureEmbeddings(FeatureViews(["user", "item"], [order], [geometry]), [buffer])
        assert torch.equal(compiled(torch.zeros(2, 2), features), buffer[:, columns].sum(1))


def test_features_of_another_kind_go_to_the_model_itself(traced_whole):
    schemas, features, _ = features_of(DLRM)
    model = build_model(DLRM, schemas, 2, seed=1)
    plain = {name: features[name].flatten(1) for name in ("user", "item")}
    assert torch.equal(CompiledModel(model)(torch.zeros(12, 2), plain), model(torch.zeros(12, 2), plain))
    assert not traced_whole


def test_fused_blocks_are_left_alone():
    schemas, _, _ = features_of(DLRM)
    model = build_model(DLRM, schemas, 2, seed=1)
    assert can_compile(model)
    make_dense_optimizer("sgd", model, 0.1, flat=True, bf16=True)
    assert not can_compile(model)


class Fails(CompiledModel):
    """Fails as torch's compiler does, in the forward or in the backward pass."""

    where = "forward"

    def __call__(self, dense, features):
        if self.where == "forward":
            raise torch._dynamo.exc.Unsupported("a call that cannot be traced")
        logits = self.model(dense, features)
        logits.register_hook(lambda grad: (_ for _ in ()).throw(RuntimeError("no C compiler")))
        return logits


@pytest.mark.parametrize(
    ("where", "engine"), [("forward", None), ("backward", None), ("forward", "triton"), ("backward", "triton")]
)
def test_what_cannot_be_compiled_runs_as_it_is(where, engine, monkeypatch, capsys):
    """The step is done once, with the same weights and the same loss as without; on a GPU the loss comes first."""
    monkeypatch.setattr(Fails, "where", where)
    found = []
    for fails in (False, True):
        log = random_log(1, num_inputs=64, batch_size=16)
        layout = log.layout(0.3, 1)
        rows = RowOptimizer(name="sgd", learning_rate=0.1)
        embeddings = make_embeddings("device" if engine else "cpu", log, layout, rows, engine=engine)
        embeddings.initialise(7)
        model = build_model(log.config(), log.features, log.dense.shape[1], seed=7)
        runner = StepRunner(model, embeddings, make_dense_optimizer("sgd", model, 0.1))
        if fails:
            runner._forward, runner._is_proven = Fails(model), False
        packed = log.packed(layout)
        for batch in embeddings.stream(packed, range(packed.num_batches)):
            runner(batch)
        assert not runner.is_compiled
        tables = [tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)]
        found.append([runner.take_loss(), *tables, *(p.detach().clone() for p in model.parameters())])
    assert found[0][0] == found[1][0]
    assert all(torch.equal(one, other) for one, other in zip(found[0][1:], found[1][1:], strict=True))
    assert capsys.readouterr().err.count("cannot be compiled") == 1
