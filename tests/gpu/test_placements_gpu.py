"""On a GPU: tiered is device, bit for bit; the CPU agrees within rounding; delays and NaN in slots change nothing."""

from __future__ import annotations

import pytest
import torch

from fae.core.optimizers import OPTIMIZERS
from fae.streaming.staging import FaultInjection

from cases import (
    adversarial_logs,
    assert_same_bytes,
    flat_shared_log,
    history_log,
    random_log,
    shared_history_log,
    shared_log,
    train,
    wide_log,
)

CUDA = torch.device("cuda")
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@optimizers
@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_tiered_is_device(optimizer, lists, share):
    log = random_log(1, lists=lists)
    layout = log.layout(share, 1)
    expected = train(log, layout, optimizer, "device", device=CUDA)
    for depth in (2, 4):
        assert_same_bytes(train(log, layout, optimizer, "tiered", depth=depth, device=CUDA), expected)


@optimizers
@pytest.mark.parametrize("make", [flat_shared_log, shared_log, shared_history_log])
def test_columns_that_share_a_table(make, optimizer):
    log = make(4)
    layout = log.layout(0.2, 1)
    expected = train(log, layout, optimizer, "device", device=CUDA)
    assert_same_bytes(train(log, layout, optimizer, "tiered", depth=3, device=CUDA), expected)
    for one, other in zip(expected, train(log, layout, optimizer, "cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fused_interaction_takes_columns_that_share_a_table(precision):
    log = wide_log(flat_shared_log(5))
    layout = log.layout(0.2, 1)
    kind = {"device": CUDA, "precision": precision, "epochs": 2}
    expected = train(log, layout, "rowwise_adagrad", "device", **kind)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3, **kind), expected)
    if precision == "fp32":  # bfloat16 is compared in tests/contract/test_triton.py, under SGD
        for one, other in zip(expected, train(log, layout, "rowwise_adagrad", "cpu", epochs=2), strict=True):
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


@optimizers
@pytest.mark.parametrize("placement", ["tiered", "hybrid", "paper"])
def test_cpu_agrees_within_rounding(optimizer, placement):
    log = random_log(2)
    layout = log.layout(0.2, 1)
    for one, other in zip(
        train(log, layout, optimizer, placement, device=CUDA), train(log, layout, optimizer, "cpu"), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


@optimizers
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("placement", ["hybrid", "paper"])
def test_captured_dense_parts_are_the_same_steps(optimizer, placement, compiled, capsys):
    log = history_log(3) if compiled else wide_log(random_log(3))
    layout = log.layout(0.2, 1)
    kind = {"device": CUDA, "precision": "bf16", "epochs": 3, "compiled": compiled}
    captured = train(log, layout, optimizer, placement, **kind)
    assert "cannot be" not in capsys.readouterr().err
    for one, other in zip(captured, train(log, layout, optimizer, placement, dense_graph=False, **kind), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert_same_bytes(train(log, layout, optimizer, placement, **kind), captured)


@pytest.mark.parametrize("name", adversarial_logs())
def test_adversarial_batches(name):
    log = adversarial_logs()[name]
    layout = log.layout(0.2, 1)
    expected = train(log, layout, "rowwise_adagrad", "device", device=CUDA)
    assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3, device=CUDA), expected)


@pytest.mark.parametrize("depth", [2, 3, 8])
def test_random_delays_and_nan_in_free_slots(depth):
    log = random_log(5, num_inputs=200, batch_size=8)
    layout = log.layout(0.1, 5)
    faults = FaultInjection(max_delay_seconds=0.004, fill_with_nan=True, seed=5)
    ours = train(log, layout, "rowwise_adagrad", "tiered", depth=depth, faults=faults, device=CUDA)
    assert_same_bytes(ours, train(log, layout, "rowwise_adagrad", "device", device=CUDA))
