"""The Triton kernels against numba and plain torch: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fae.artifacts.columnar_log import model_features
from fae.core.optimizers import OPTIMIZERS, bias_corrected_rate
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.streaming.staging import FaultInjection
from fae.training.step import train_step

from cases import CPU, assert_same_bytes, flat_shared_log, make_embeddings, random_log, shared_log, train, wide_log

pytest.importorskip("triton")
from fae.embedding.step_rates import StepRates

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def one_step(log, layout, placement, optimizer, engine, device):
    """Outputs of every feature, and the tables after updates with known gradients."""
    embeddings = make_embeddings(
        placement, log, layout, RowOptimizer(name=optimizer, learning_rate=0.1), device=device, engine=engine
    )
    embeddings.initialise(3)
    outputs = []
    packed = log.packed(layout)
    for batch in embeddings.stream(packed, [0, packed.num_batches - 1, packed.num_batches - 1]):
        features = embeddings.lookup(batch)
        loss = 0.0
        for index, feature in enumerate(model_features(log.features)):
            outputs.append(features[feature.name].detach().cpu().clone())
            factor = (
                torch.arange(features[feature.name].numel(), device=embeddings.device) % 7 + 1.0
            )  # of one sign: sums do not cancel
            loss = loss + (features[feature.name].reshape(-1) * factor * (index + 1)).sum()
        loss.backward()
        embeddings.update(batch)
    tables = [tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)]
    return outputs, tables


@pytest.mark.parametrize("placement", ["device", "tiered"])
@pytest.mark.parametrize(
    ("dim", "optimizer"),
    [(1, "sgd"), (4, "rowwise_adagrad"), (10, "adam"), (16, "adagrad"), (64, "rowwise_adagrad"), (200, "sgd")],
)
def test_one_step_is_that_of_the_cpu(placement, dim, optimizer):
    log = random_log(dim, num_inputs=60, batch_size=40, lists=True)
    log = dataclasses.replace(log, embedding_dims=(dim, dim, dim, dim, 4 if dim != 4 else 8))
    layout = log.layout(0.3, 2)
    outputs, tables = one_step(log, layout, placement, optimizer, "triton", DEVICE)
    expected_outputs, expected_tables = one_step(log, layout, placement, optimizer, "cpu", CPU)
    for ours, expected in zip(outputs[: len(log.features)], expected_outputs, strict=False):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)
    for ours, expected in zip(tables, expected_tables, strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-6)


def test_kept_sequences():
    log = random_log(3, num_inputs=40, batch_size=20, lists=True)
    features = tuple(dataclasses.replace(f, pooling="none") if f.name == "d" else f for f in log.features)
    log = dataclasses.replace(log, features=features)
    layout = log.layout(0.3, 2)
    ours, expected = (one_step(log, layout, "tiered", "adagrad", *form) for form in (("triton", DEVICE), ("cpu", CPU)))
    for one, other in zip([*ours[0], *ours[1]], [*expected[0], *expected[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("make", [flat_shared_log, shared_log])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_columns_that_share_a_table(make, optimizer):
    log = make(4)
    layout = log.layout(0.3, 2)
    ours, expected = (one_step(log, layout, "tiered", optimizer, *form) for form in (("triton", DEVICE), ("cpu", CPU)))
    for one, other in zip([*ours[0], *ours[1]], [*expected[0], *expected[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_agrees_with_the_cpu_and_tiered_is_device(optimizer):
    log = random_log(1, num_inputs=70, lists=True)
    layout = log.layout(0.3, 1)
    on_device = train(log, layout, optimizer, "device", engine="triton", device=DEVICE)
    assert_same_bytes(train(log, layout, optimizer, "tiered", engine="triton", depth=3, device=DEVICE), on_device)
    for one, other in zip(on_device, train(log, layout, optimizer, "cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("depth", [2, 4])
def test_delays_and_nan_in_free_slots_change_nothing_where_rows_are_read_by_location(depth):
    log = random_log(5, num_inputs=90, batch_size=10, lists=True)
    layout = log.layout(0.1, 5)
    faults = FaultInjection(max_delay_seconds=0.002, fill_with_nan=True, seed=depth)
    ours = train(log, layout, "rowwise_adagrad", "tiered", engine="triton", depth=depth, faults=faults, device=DEVICE)
    assert_same_bytes(ours, train(log, layout, "rowwise_adagrad", "device", engine="triton", device=DEVICE))


@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad"])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_batch_that_is_not_updated_keeps_what_earlier_ones_did(optimizer, leaves):
    """Its rows are read in other slots; the update that would write them to its own slot does not happen."""
    log = random_log(5, num_inputs=60, batch_size=10, lists=True)
    layout = log.layout(0.1, 5)
    results = []
    for placement in ("tiered", "device"):
        embeddings = make_embeddings(
            placement, log, layout, RowOptimizer(name=optimizer, learning_rate=0.1), depth=4, device=DEVICE,
            engine="triton",
        )  # fmt: skip
        embeddings.initialise(3)
        packed = log.packed(layout)
        for number, batch in enumerate(embeddings.stream(packed, range(packed.num_batches))):
            features = embeddings.lookup(batch)
            if number == 3 and leaves:
                break
            if number % 3:
                sum((features[feature.name] ** 2).sum() for feature in log.features).backward()
                embeddings.update(batch)
        results.append([tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)])
    assert_same_bytes(*results)


@pytest.mark.parametrize("placement", ["device", "tiered", "paper"])
def test_adam_counts_the_updates_that_were_made(placement):
    """Rates are computed when a stream begins; a batch that is not updated must not count for the later rates."""
    log = random_log(5, num_inputs=90, batch_size=10, lists=True)
    layout = log.layout(0.4, 5)
    packed = log.packed(layout)
    optimizer = RowOptimizer(name="adam", learning_rate=0.1)
    results, rates = [], []
    for engine, device in (("triton", DEVICE), ("cpu", CPU)):
        embeddings = make_embeddings(placement, log, layout, optimizer, depth=4, device=device, engine=engine)
        embeddings.initialise(3)
        for first, skipped in ((0, ()), (0, (0, 1, 4, 8)), (4, (2,))):  # the later streams continue the count
            for number, batch in enumerate(embeddings.stream(packed, range(first, packed.num_batches))):
                features = embeddings.lookup(batch)
                if engine == "triton":
                    rate = batch.buffer.views.words[1:2].cpu().numpy().view(np.float32)[0]
                    rates.append((embeddings.steps + 1, rate))
                if number not in skipped:
                    sum((features[feature.name] ** 2).sum() for feature in log.features).backward()
                    embeddings.update(batch)
            list(embeddings.stream_frozen(packed, [0, 1, 2]))
        assert embeddings.steps == 9 + 5 + 4
        results.append([tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)])
    expected = [bias_corrected_rate(0.1, optimizer.betas, step) for step, _ in rates]
    np.testing.assert_array_equal([rate for _, rate in rates], np.array(expected, np.float32))
    for ours, cpu in zip(*results, strict=True):
        torch.testing.assert_close(ours, cpu, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_that_change_and_decay_reach_the_kernels(optimizer):
    """Also after a batch that is not updated, in long rows and short ones."""
    log = random_log(5, num_inputs=90, batch_size=10, lists=True)
    layout, results = log.layout(0.2, 5), []
    packed, rows = log.packed(layout), RowOptimizer(name=optimizer, learning_rate=0.1, weight_decay=0.7)
    for placement, engine, device in (("device", "triton", DEVICE), ("tiered", "triton", DEVICE), ("cpu", "cpu", CPU)):
        embeddings = make_embeddings(placement, log, layout, rows, depth=4, device=device, engine=engine)
        embeddings.initialise(3)
        for factors in (lambda step: 1 / step, lambda step: 0.5, None):
            embeddings.follow_rates(factors)
            for number, batch in enumerate(embeddings.stream(packed, range(packed.num_batches))):
                features = embeddings.lookup(batch)
                if number != 2:
                    sum((features[feature.name] ** 2).sum() for feature in log.features).backward()
                    embeddings.update(batch)
        results.append([tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)])
    assert_same_bytes(results[0], results[1])
    for ours, cpu in zip(results[0], results[2], strict=True):
        torch.testing.assert_close(ours, cpu, rtol=2e-4, atol=2e-5)


def test_rates_are_left_alone_where_every_batch_is_updated(monkeypatch):
    log = random_log(5, num_inputs=60, batch_size=10)
    calls = []
    monkeypatch.setattr(StepRates, "correct", lambda *arguments: calls.append(arguments))
    train(log, log.layout(0.2, 1), "adam", "tiered", engine="triton", depth=3, device=DEVICE, epochs=2)
    assert calls == []


def test_paper_swaps_through_the_engine():
    log = random_log(2, num_inputs=60)
    layout = log.layout(0.6, 1)
    ours = train(log, layout, "rowwise_adagrad", "paper", engine="triton", device=DEVICE)
    for one, other in zip(ours, train(log, layout, "rowwise_adagrad", "cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


class TwoWidths(nn.Module):
    """Uses one group of features only."""

    def __init__(self, feature):
        super().__init__()
        self.feature, self.weight = feature, nn.Parameter(torch.ones(1))

    def forward(self, dense, features):
        return features[self.feature].sum(1) * self.weight


@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad", "adam"])
@pytest.mark.parametrize("feature", ["a", "e"])
def test_a_group_that_the_model_leaves_out_keeps_its_rows(optimizer, feature):
    log = random_log(5, num_inputs=80, lists=True)
    layout = log.layout(0.2, 1)
    results = []
    for placement, engine, device in (("tiered", "triton", DEVICE), ("cpu", "cpu", CPU)):
        embeddings = make_embeddings(
            placement, log, layout, RowOptimizer(name=optimizer, learning_rate=0.1), depth=4, device=device,
            engine=engine,
        )  # fmt: skip
        embeddings.initialise(3)
        model = TwoWidths(feature).to(embeddings.device)
        steps = torch.optim.SGD(model.parameters(), lr=0.0)
        packed = log.packed(layout)
        for batch in embeddings.stream(packed, [*range(packed.num_batches)] * 2):
            train_step(model, embeddings, steps, batch)
        results.append([tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_long_rows_and_long_segments():
    """One id takes nearly every lookup: rows of several segments, and of more than are summed at once."""
    log = random_log(4, num_inputs=2400, batch_size=2400)
    log.ids[:2300, 0] = 5
    layout = log.layout(0.3, 1)
    ours, expected = (one_step(log, layout, "device", "sgd", *form) for form in (("triton", DEVICE), ("cpu", CPU)))
    for one, other in zip(ours[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("optimizer", "make"), [
    ("sgd", random_log), ("rowwise_adagrad", random_log), ("sgd", flat_shared_log),
])  # fmt: skip
def test_bf16_is_near_fp32_and_tiered_is_device(optimizer, make):
    log = wide_log(make(6, num_inputs=48))
    layout = log.layout(0.3, 1)
    ours = train(log, layout, optimizer, "device", engine="triton", device=DEVICE, precision="bf16")
    tiered = train(log, layout, optimizer, "tiered", engine="triton", depth=3, device=DEVICE, precision="bf16")
    assert_same_bytes(tiered, ours)
    if optimizer == "sgd":  # the others divide by the gradient's size: a rounded sign moves a row by a whole step
        for one, other in zip(ours, train(log, layout, optimizer, "cpu"), strict=True):
            torch.testing.assert_close(one, other, rtol=3e-2, atol=3e-3)


@pytest.mark.parametrize("make", [random_log, flat_shared_log])
def test_fused_interaction_is_the_models_own(make):
    """Forward and backward of the fused kernel against the model's path over pooled embeddings, in float32."""
    log = wide_log(make(7, num_inputs=40, batch_size=40))
    layout = log.layout(0.3, 1)
    embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=DEVICE, engine="triton")
    embeddings.initialise(3)
    dense = torch.randn((40, 16), generator=torch.Generator().manual_seed(1)).to(DEVICE, torch.bfloat16)
    dense.requires_grad_()
    for batch in embeddings.stream(log.packed(layout), [0]):
        joined = embeddings.lookup(batch).dot_interaction(dense)
        vectors = torch.cat([dense.detach().float().unsqueeze(1), embeddings.lookup(batch).stacked.detach()], 1)
    vectors = vectors.bfloat16().float().requires_grad_()
    pairs = torch.tril_indices(4, 4, offset=-1)
    products = torch.bmm(vectors, vectors.transpose(1, 2))[:, pairs[0], pairs[1]]
    expected = torch.cat([vectors[:, 0], products], 1)
    assert joined.shape == (40, 24)
    assert not joined[:, 22:].any()
    torch.testing.assert_close(joined[:, :22].float(), expected, rtol=1e-2, atol=2e-2)
    weights = torch.linspace(-1, 1, 22, device=DEVICE).bfloat16()
    (joined[:, :22] * weights).sum().backward()
    (expected * weights.float()).sum().backward()
    torch.testing.assert_close(dense.grad.float(), vectors.grad[:, 0], rtol=2e-2, atol=1e-2)
    rows = embeddings._gpu._row_gradients.float().view(40, 3, 16)
    torch.testing.assert_close(rows, vectors.grad[:, 1:], rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam"])
def test_flat_optimizer_is_torchs(name):
    from fae.training.dense import make_dense_optimizer

    torch.manual_seed(1)
    models = [nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 1)).to(DEVICE) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    flat = make_dense_optimizer(name, models[0], 0.05, flat=True)
    usual = make_dense_optimizer(name, models[1], 0.05)
    x = torch.randn(20, 5, device=DEVICE)
    for _ in range(4):
        for model, optimizer in zip(models, (flat, usual), strict=True):
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            optimizer.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    states = [optimizer.state_dict()["state"] for optimizer in (flat, usual)]
    if name != "sgd":
        for index, values in states[1].items():
            for key, value in values.items():
                if key != "step":
                    torch.testing.assert_close(states[0][index][key].cpu(), value.cpu(), rtol=1e-5, atol=1e-7)
    flat.load_state_dict(flat.state_dict())


def test_mean_loss_ignores_padding():
    from fae.kernels.triton_dense import loss_and_gradient

    logits = torch.tensor([0.3, -90.0, 90.0, 9.0], device=DEVICE, requires_grad=True)
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0], device=DEVICE)
    loss_sum = torch.full((), 5.0, dtype=torch.float64, device=DEVICE)
    num_inputs = torch.tensor([3], dtype=torch.int32, device=DEVICE)
    loss, grad = loss_and_gradient(logits.detach(), labels, num_inputs, loss_sum)
    usual = logits.detach()[:3].clone().requires_grad_()
    expected = nn.functional.binary_cross_entropy_with_logits(usual, labels[:3])
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(loss_sum, 5.0 + 3 * expected.detach().double())
    torch.testing.assert_close(grad, torch.cat([usual.grad, torch.zeros(1, device=DEVICE)]))


def test_logits_may_be_a_column_of_something_wider():
    """A model may return such logits, and the kernel reads contiguous numbers."""
    from fae.kernels.triton_dense import loss_and_gradient

    wide = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    labels, num_inputs = torch.ones(5, device=DEVICE), torch.tensor([5], dtype=torch.int32, device=DEVICE)
    found = [
        loss_and_gradient(logits, labels, num_inputs, torch.zeros((), dtype=torch.float64, device=DEVICE))
        for logits in (wide[:, 1], wide[:, 1].clone(), wide[0, 1].expand(5), wide[0, 1].repeat(5))
    ]
    for (loss, grad), (expected_loss, expected_grad) in (found[:2], found[2:]):
        assert torch.equal(loss, expected_loss)
        assert torch.equal(grad, expected_grad)


def test_fused_mlp_is_the_layers():
    from fae.models.layers import MLP
    from fae.training.dense import make_dense_optimizer

    torch.manual_seed(2)
    blocks = [MLP([13, 32, 16, 1], final_relu=False).to(DEVICE), MLP([13, 48, 16], final_relu=True).to(DEVICE)]
    x = torch.randn(200, 13, device=DEVICE)
    for block in blocks:
        usual = MLP([13, *(linear.out_features for linear in block.linears)], final_relu=block.final_relu).to(DEVICE)
        usual.load_state_dict(block.state_dict())
        optimizer = make_dense_optimizer("sgd", block, 1.0, flat=True, bf16=True)
        before = [parameter.detach().clone() for parameter in block.parameters()]
        (block(x).float() ** 2).mean().backward()
        optimizer.step()
        (usual(x) ** 2).mean().backward()
        for old, new, parameter in zip(before, block.parameters(), usual.parameters(), strict=True):
            gradient = old - new.detach()
            assert torch.norm(gradient - parameter.grad) < 0.03 * torch.norm(parameter.grad) + 1e-4


def test_gradients_beside_are_joined_before_they_are_used(monkeypatch):
    """The order of the calls to two streams, with fakes where there is no GPU."""
    from contextlib import nullcontext

    from fae.kernels import triton_dense
    from fae.models import fused_mlp
    from fae.models.layers import MLP
    from fae.training.dense import make_dense_optimizer

    class Stream:
        def __init__(self, name):
            self.name, self.device = name, DEVICE

        def wait_stream(self, other):
            calls.append(f"{self.name} waits for {other.name}")

    calls: list[str] = []
    current, aside = Stream("main"), Stream("aside")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    for module, name in ((fused_mlp, "_product_float32"), (fused_mlp, "masked_product"), (fused_mlp, "sum_parts"),
                         (triton_dense, "dense_update")):  # fmt: skip
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, _n=name, _r=real, **kw: calls.append(_n) or _r(*args, **kw))
    block = MLP([16, 32, 16, 1], final_relu=False).to(DEVICE)
    optimizer = make_dense_optimizer("sgd", block, 1.0, flat=True, bf16=True)
    block.fused._side_stream = aside
    block(torch.randn(200, 16, device=DEVICE)).sum().backward()
    held = block.fused._operands
    assert len(held) == 5, "a gradient and an input of each product, and the parts of the sums"
    optimizer.step()
    assert calls == [
        "aside waits for main", "_product_float32", "masked_product", "aside waits for main", "_product_float32",
        "aside waits for main", "sum_parts", "main waits for aside", "dense_update",
    ]  # fmt: skip
    assert not block.fused._operands
    calls.clear()
    optimizer.step()
    assert calls == ["dense_update"], "nothing to wait for"


def test_batches_that_are_mostly_padding():
    log = random_log(9, num_inputs=10, batch_size=16)  # a batch that is mostly padding
    log = dataclasses.replace(log, ids=np.where(log.ids > 3, -1, log.ids).astype(np.int32))
    layout = log.layout(0.5, 1)
    ours = train(log, layout, "adam", "tiered", engine="triton", depth=2, device=DEVICE)
    for one, other in zip(ours, train(log, layout, "adam", "cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def test_evaluation_takes_the_precision_of_training():
    """Fused blocks hand bfloat16 to layers that are not fused: those must be evaluated as they are trained."""
    from fae.models.config import DCNv2Config
    from fae.models.registry import build_model
    from fae.training.dense import make_dense_optimizer
    from fae.training.quality.evaluate import predict_split

    log = wide_log(random_log(8, num_inputs=40, batch_size=20))
    layout = log.layout(0.3, 1)
    logits = {}
    for precision in ("fp32", "bf16"):
        embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=DEVICE, engine="triton")
        embeddings.initialise(3)
        config = DCNv2Config(name="dcnv2", embedding_dim=16, deep_mlp=(32, 16))
        model = build_model(config, log.features, 3, seed=1).to(DEVICE)
        make_dense_optimizer("sgd", model, 0.1, flat=True, bf16=precision == "bf16")
        _, logits[precision] = predict_split(model, embeddings, log.packed(layout), precision=precision)
    assert np.abs(logits["fp32"]).max() > 0.01
    np.testing.assert_allclose(logits["bf16"], logits["fp32"], rtol=0.1, atol=0.02)


@pytest.mark.parametrize("placement", ["device", "tiered"])
def test_weighted_steps_are_those_of_the_cpu(placement):
    """The weights of the inputs are part of the input buffer, and the loss is their weighted mean."""
    log = random_log(8, num_inputs=60, batch_size=16, lists=True)
    log = dataclasses.replace(log, weights=np.random.default_rng(1).uniform(0, 3, 60).astype(np.float32))
    layout, results = log.layout(0.4, 1), []
    for engine, device in (("triton", DEVICE), ("cpu", CPU)):
        embeddings = make_embeddings(
            placement, log, layout, RowOptimizer(name="sgd", learning_rate=0.1), device=device, engine=engine
        )
        embeddings.initialise(3)
        model = build_model(log.config(), log.features, log.dense.shape[1], seed=3).to(device)
        dense_optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for batch in embeddings.stream(log.packed(layout), [0, 3, 1, 2]):
            train_step(model, embeddings, dense_optimizer, batch, loss_sum=total)
        tables = [tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)]
        results.append([total.cpu(), *(parameter.detach().cpu() for parameter in model.parameters()), *tables])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
