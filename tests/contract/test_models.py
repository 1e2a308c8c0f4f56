"""What every model promises, run over every model in every form (`tests/support/model_cases.py`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fae.models.config import MODEL_CONFIGS
from fae.models.registry import MODELS
from fae.streaming.row_store import RowOptimizer
from fae.training.plain import PlainEmbeddings, PlainTrainer

from model_cases import CASES, HISTORY, Case, make_batch
from model_references import REFERENCES

LENGTHS = [6, 5, 2, 1, 6, 3, 4, 6]
"""Lengths of the sequences in a batch: whole, cut, one step of history, only the candidate."""

every_model = pytest.mark.parametrize("name", CASES)
by_products_alone = [name for name, case in CASES.items() if getattr(case.config, "attention", "mlp") != "mlp"]
sequence_models = pytest.mark.parametrize("name", [name for name in CASES if CASES[name].features == HISTORY])


def loss_of(model: torch.nn.Module, batch, weights: torch.Tensor) -> torch.Tensor:
    return (model(batch.dense, batch.embeddings) * weights).sum()


def test_every_model_has_cases_a_reference_and_options():
    assert {case.config.name for case in CASES.values()} == set(MODELS) == set(MODEL_CONFIGS) == set(REFERENCES)
    assert all(cls().name == name for name, cls in MODEL_CONFIGS.items())


def test_the_page_names_every_model_and_option():
    page = (Path(__file__).parents[2] / "docs" / "guide" / "models.md").read_text()
    for name, cls in MODEL_CONFIGS.items():
        assert f"`{name}`" in page
        assert not [option.name for option in dataclasses.fields(cls) if f"`{option.name}`" not in page]


@every_model
def test_equals_the_slow_reference(name):
    case = CASES[name]
    model = case.build().double()
    lengths = [*LENGTHS, 0] if case.features == HISTORY else LENGTHS
    batch = make_batch(case, lengths, dtype=torch.float64)
    weights = {key: value.detach().numpy() for key, value in model.state_dict().items()}
    logits = model(batch.dense, batch.embeddings).detach().numpy()
    assert logits.shape == (len(lengths),)
    for index in range(len(lengths)):
        vectors = {feature.name: batch.rows(feature, index) for feature in case.features}
        expected = REFERENCES[case.config.name](case.config, weights, batch.dense[index].numpy(), vectors, 6)
        assert logits[index] == pytest.approx(expected, rel=1e-10, abs=1e-10)


@every_model
def test_logits_depend_on_their_own_input_alone(name):
    case = CASES[name]
    model, batch = case.build(), make_batch(CASES[name], LENGTHS)
    logits = model(batch.dense, batch.embeddings)
    with torch.no_grad():
        for tensor in (batch.dense, *batch.buffers):
            tensor[3] = torch.randn(tensor.shape[1]) * 3
    changed = model(batch.dense, batch.embeddings)
    others = torch.arange(len(LENGTHS)) != 3
    assert torch.equal(logits[others], changed[others])
    assert not torch.equal(logits[3], changed[3])
    (gradient,) = torch.autograd.grad(changed[3], batch.buffers[:1])
    assert torch.count_nonzero(gradient[others]) == 0


@every_model
def test_gradients_reach_every_feature_and_every_weight(name):
    case = CASES[name]
    model, batch = case.build(), make_batch(case, LENGTHS * 8)
    loss_of(model, batch, torch.randn(len(LENGTHS) * 8)).backward()
    gradients = batch.gradients()
    for feature in case.features:
        assert torch.count_nonzero(gradients[feature.name]) > 0, feature.name
    for weight, parameter in model.named_parameters():
        assert parameter.grad is not None, weight
        assert torch.isfinite(parameter.grad).all(), weight
        assert torch.count_nonzero(parameter.grad) > 0, weight


@every_model
def test_the_seed_alone_decides_the_first_weights(name):
    case = CASES[name]
    one, again, other = case.build(seed=4), case.build(seed=4), case.build(seed=5)
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    drawn = [(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if torch.count_nonzero(a)]
    assert drawn
    assert not any(torch.equal(a, b) for a, b in drawn)


@every_model
def test_padded_inputs_change_nothing(name):
    """Inputs behind the last: rows of zeros, no slot in use, no weight in the loss."""
    case = CASES[name]
    model = case.build()
    full, short = make_batch(case, LENGTHS), make_batch(case, LENGTHS)
    padded = make_batch(case, [*LENGTHS, 0, 0, 0])
    real = len(LENGTHS)
    with torch.no_grad():
        for tensor, source in zip([padded.dense, *padded.buffers], [short.dense, *short.buffers], strict=True):
            tensor.zero_()
            tensor[:real] = source
    loss_of(model, full, torch.ones(real)).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    logits = model(padded.dense, padded.embeddings)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[:real], model(full.dense, full.embeddings), rtol=1e-5, atol=1e-6)
    loss_of(model, padded, (torch.arange(real + 3) < real).float()).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
    for buffer, whole in zip(padded.buffers, full.buffers, strict=True):
        assert torch.count_nonzero(buffer.grad[real:]) == 0
        torch.testing.assert_close(buffer.grad[:real], whole.grad, rtol=1e-4, atol=1e-5)


@sequence_models
def test_pads_of_sequences_change_nothing(name):
    case = CASES[name]
    model = case.build()
    clean, dirty = make_batch(case, LENGTHS), make_batch(case, LENGTHS, pads=7.0)
    assert torch.equal(model(clean.dense, clean.embeddings), model(dirty.dense, dirty.embeddings))
    loss_of(model, dirty, torch.ones(len(LENGTHS))).backward()
    gradients = dirty.gradients()
    for feature in ("item", "category"):
        for index, length in enumerate(LENGTHS):
            assert torch.count_nonzero(gradients[feature][index, length:]) == 0
            assert torch.count_nonzero(gradients[feature][index, :length]) > 0


@pytest.mark.parametrize("name", by_products_alone)
def test_a_longer_maximum_changes_only_the_place_in_time(name):
    """Without it and without weights by place, a sequence means the same however long it could have been."""
    case = CASES[name]
    longer = Case(case.config, tuple(dataclasses.replace(f, length=9) if f.length > 1 else f for f in HISTORY), 0)
    model, long_model = case.build(), longer.build()
    long_model.load_state_dict(model.state_dict())
    batch = make_batch(case, LENGTHS)
    with torch.no_grad():
        for part in (model, long_model):
            part.bottom[0].weight.zero_()
        widened = {
            f.name: torch.nn.functional.pad(batch.embeddings[f.name], (0, 0, 0, 3)) if f.length > 1
            else batch.embeddings[f.name]
            for f in HISTORY
        }  # fmt: skip
        torch.testing.assert_close(model(batch.dense, batch.embeddings), long_model(batch.dense, widened))


@every_model
def test_a_plain_mapping_does_as_well(name):
    case = CASES[name]
    model, batch = case.build(), make_batch(case, LENGTHS)
    plain = {name: batch.embeddings[name] for name in reversed(list(batch.embeddings))}
    torch.testing.assert_close(model(batch.dense, plain), model(batch.dense, batch.embeddings))


@every_model
def test_compiles_without_a_break(name):
    torch._dynamo.reset()
    case = CASES[name]
    model, batch = case.build(), make_batch(case, LENGTHS)
    expected = model(batch.dense, batch.embeddings)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    # A compiler may sum small products in another order.
    torch.testing.assert_close(compiled(batch.dense, batch.embeddings), expected, rtol=1e-5, atol=1e-6)
    other = make_batch(case, LENGTHS[::-1], seed=8)
    torch.testing.assert_close(
        compiled(other.dense, other.embeddings), model(other.dense, other.embeddings), rtol=1e-5, atol=1e-6
    )


@every_model
def test_makes_no_tensor_outside_its_device(name):
    """On the device without memory, a host tensor in the forward pass, or a look at a value, is an error."""
    case = CASES[name]
    model, batch = case.build().to("meta"), make_batch(case, LENGTHS, device="meta")
    logits = model(batch.dense, batch.embeddings)
    assert logits.device.type == "meta"
    assert logits.shape == (len(LENGTHS),)
    logits.sum().backward()


@every_model
def test_half_precision_comes_near(name):
    case = CASES[name]
    model, batch = case.build(), make_batch(case, LENGTHS)
    expected = model(batch.dense, batch.embeddings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch.dense, batch.embeddings)
    logits.float().sum().backward()
    assert all(torch.isfinite(buffer.grad).all() for buffer in batch.buffers)
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)


@every_model
def test_learns_a_small_problem(name):
    """Labels that follow one dense feature (where there is one) and the ids of two categorical ones."""
    case = CASES[name]
    random, size = np.random.default_rng(2), 512
    lengths = random.integers(1, 7, size)
    columns = []
    for feature in case.features:
        ids = random.integers(0, feature.num_embeddings, (size, feature.length))
        if feature.length > 1:
            ids[np.arange(feature.length) >= lengths[:, None]] = -1
        columns.append(ids)
    dense = random.normal(size=(size, case.num_dense))
    last = [ids[np.arange(size), np.maximum((ids >= 0).sum(1), 1) - 1] for ids in columns]
    signal = 1.0 * (last[0] % 3 == 0) + 1.0 * (last[-1] % 2 == 0) - 0.8 + dense[:, :1].sum(1)
    labels = (random.random(size) < 1 / (1 + np.exp(-3 * signal))).astype(np.float32)
    model = case.build()
    dims = case.config.dims([feature.name for feature in case.features])
    tables = PlainEmbeddings(case.features, dims, seed=3)
    trainer = PlainTrainer(model, tables, RowOptimizer(name="adagrad", learning_rate=0.05), dense_learning_rate=0.05)
    inputs = (torch.from_numpy(np.concatenate(columns, 1)), torch.from_numpy(dense).float(), torch.from_numpy(labels))
    losses = [trainer.step(*inputs) for _ in range(80)]
    base = -(labels.mean() * np.log(labels.mean()) + (1 - labels.mean()) * np.log(1 - labels.mean()))
    assert losses[-1] < 0.85 * base
