"""The Triton kernels of several ranks, in one process: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fae.core.optimizers import OPTIMIZER_CODE, OPTIMIZERS, optimizer_facts, state_width
from fae.distributed.exchange import total_sums
from fae.distributed.tree_sum import tree_sum
from fae.kernels.cpu import CpuGroupKernels

from cases import random_log

pytest.importorskip("triton")
from fae.kernels.triton_dense import DENSE_BLOCK, add_ranks, dense_update, loss_and_gradient, part_blocks
from fae.training.step import backward_on_device
from kernel_ranks import BETAS, DEVICE, EPS, LOGS, RATE, STEP, Ranks, many_rows, require_alike


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("name", LOGS)
def test_totals_are_those_of_the_reference_to_the_byte(name, world, batch):
    """A row of -0 from which -1 times the total is taken is the total, of either sign of 0."""
    log, group = LOGS[name]
    ranks = Ranks(log, log.layout(0.4, 1), world, group, batch, "sgd", rate=-1.0)
    sums = ranks.sum_slices()
    for rank, own in enumerate(sums):
        np.testing.assert_allclose(own, ranks.sums_of_cpu(rank), rtol=1e-5, atol=1e-5)
    if name.startswith("lists, 1") and not batch:
        assert len(ranks.slices[0].batch(0).segments[group].long_rows), "there are long rows"
    random = np.random.default_rng(world)
    sums = [np.where(random.random(own.shape) < 0.3, np.float32(-0.0), own) for own in sums]
    ranks.put(sums)
    ends = ranks.step(torch.full((ranks.num_rows, ranks.dim), -0.0), torch.empty((ranks.num_rows, 0)))
    require_alike(ends)
    expected = np.full((ranks.num_rows, ranks.dim), -0.0, np.float32)
    expected[ranks.target_rows] = total_sums(ranks.listed, sums, ranks.dim)
    assert ends[0][0].numpy().tobytes() == expected.tobytes()
    assert np.signbit(expected[ranks.target_rows][expected[ranks.target_rows] == 0]).any() or batch


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("kept", [1.0, 0.75])
@pytest.mark.parametrize(("optimizer", "world"), [*zip(OPTIMIZERS, (2, 4, 8, 4), strict=True)])
def test_steps_are_those_of_the_cpu(optimizer, world, kept, staged):
    log, group = LOGS["lists, 12 beside 4"]
    ranks = Ranks(log, log.layout(0.4, 1), world, group, 2, optimizer, kept=kept, slot_rows=90 * staged)
    sums = ranks.sum_slices()
    random = np.random.default_rng(1)
    weight = torch.from_numpy(random.normal(size=(ranks.num_rows, ranks.dim)).astype(np.float32))
    state = torch.from_numpy(random.random((ranks.num_rows, state_width(optimizer, ranks.dim)), np.float32))
    ends = ranks.step(weight, state)
    require_alike(ends)
    assert len(np.setdiff1d(np.arange(ranks.num_rows), ranks.target_rows)), "some row must be left alone"
    for tensor in (weight, state):
        tensor[ranks.target_rows] = tensor[ranks.bank_rows].clone()
    CpuGroupKernels(ranks.geometry, ranks.size, optimizer).step_rows(
        weight, state, ranks.target_rows, total_sums(ranks.listed, sums, ranks.dim), RATE, EPS, betas=BETAS,
        step=STEP, kept_share=kept,
    )  # fmt: skip
    for ours, expected in zip(ends[0], (weight, state), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
        left = np.setdiff1d(np.arange(ranks.num_rows), ranks.target_rows)
        assert torch.equal(ours[left], expected[left])


def test_hot_and_cold_rows_are_stepped_by_themselves():
    """What steps the ones reads no sum of the others; and nothing is stepped where no sums wait."""
    log, group = LOGS["lists, 12 beside 4"]
    ranks = Ranks(log, log.layout(0.4, 1), 4, group, 0, "sgd", rate=-1.0)
    sums = ranks.sum_slices()
    is_hot, totals = ranks.listed.unique_rows < ranks.hot, total_sums(ranks.listed, sums, ranks.dim)
    blank, nothing = torch.full((ranks.num_rows, ranks.dim), -0.0), torch.empty((ranks.num_rows, 0))
    for part, stepped in (("hot", is_hot), ("cold", ~is_hot)):
        own = [stepped[ranks.listed.places_of_slice(rank)] for rank in range(4)]
        ranks.put([np.where(keep[:, None], each, np.float32("nan")) for keep, each in zip(own, sums, strict=True)])
        expected = blank.numpy().copy()
        expected[ranks.target_rows[stepped]] = totals[stepped]
        assert 0 < stepped.sum() < len(stepped)
        for rows, _ in ranks.step(blank, nothing, part):
            assert rows.numpy().tobytes() == expected.tobytes()
    ranks.waiting.zero_()
    assert ranks.step(blank, nothing)[0][0].numpy().tobytes() == blank.numpy().tobytes()


@pytest.mark.parametrize(("world", "num_hosts"), [(4, 2), (8, 2), (8, 4)])
@pytest.mark.parametrize(("name", "batch"), [("many rows", 0), ("lists, 1 beside 4", 0), ("lists, 1 beside 4", 1)])
def test_sums_of_hosts_step_rows_to_the_same_bytes(name, world, num_hosts, batch):
    """Also where blocks of the list do not make whole parts, and where a host looks none of a part up."""
    log, group = (many_rows(), 0) if name == "many rows" else LOGS[name]
    results = []
    for hosts in (1, num_hosts):
        ranks = Ranks(log, log.layout(0.4, 1), world, group, batch, "adam", num_hosts=hosts)
        ranks.sum_slices()
        weight = torch.from_numpy(np.random.default_rng(1).normal(size=(ranks.num_rows, ranks.dim)).astype(np.float32))
        ends = ranks.step(weight, torch.zeros((ranks.num_rows, state_width("adam", ranks.dim))))
        require_alike(ends)
        assert not torch.equal(ends[0][0], weight)
        results.append(ends[0])
    require_alike(results)


def test_a_row_of_thousands_of_lookups():
    """More further segments than are added together."""
    log = random_log(1, num_inputs=5000, batch_size=5000)
    log = dataclasses.replace(
        log, ids=np.where(np.arange(5000) % 99 == 0, 2, 1)[:, None].astype(np.int32), features=log.features[1:2],
        embedding_dims=(1,), groups=[np.arange(5000)],
    )  # fmt: skip
    ranks = Ranks(log, log.layout(0.4, 1), 2, 0, 0, "sgd")
    assert ranks.slices[0].most_shared[0][2] > 64
    for gradient in ranks.gradients:
        gradient.abs_()
    for rank, own in enumerate(ranks.sum_slices()):
        np.testing.assert_allclose(own, ranks.sums_of_cpu(rank), rtol=1e-5)


def test_other_numbers_of_ranks_are_refused():
    log, group = LOGS["flat, 1"]
    ranks = Ranks(log, log.layout(0.4, 1), 2, group, 1, "sgd")
    ranks.sum_slices()
    ranks.buffers += ranks.buffers[:1]
    with pytest.raises(ValueError, match="3 slices"):
        ranks.step(torch.zeros((ranks.num_rows, 1)), torch.empty((ranks.num_rows, 0)))
    pointers = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    nothing = torch.zeros(0, device=DEVICE)
    vector = torch.zeros(8, device=DEVICE)
    with pytest.raises(ValueError, match="3 slices"):
        dense_update(
            OPTIMIZER_CODE["sgd"], vector, vector, nothing, nothing.bfloat16(), torch.ones(2, device=DEVICE),
            torch.ones(1, device=DEVICE), eps=0.0, betas=BETAS, of_ranks=pointers,
        )  # fmt: skip


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_dense_gradients_are_summed_in_the_tree(optimizer, world):
    random, size = np.random.default_rng(world), 1500

    def tensor(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape).astype(np.float32)).to(DEVICE)

    scales = torch.from_numpy(10.0 ** random.integers(-6, 7, size)).float().to(DEVICE)
    grads = [tensor(size) * scales for _ in range(world)]
    pointers = torch.tensor([grad.data_ptr() for grad in grads], device=DEVICE)
    weight, state = tensor(size), tensor(state_width(optimizer_facts(optimizer).dense, size)).abs()
    rate = torch.full((1,), 0.1, device=DEVICE)
    corrections, results = torch.tensor([0.3, 0.2], device=DEVICE), []
    unread = torch.full_like(weight, float("nan"))
    for grad, of_ranks in ((unread, pointers), (tree_sum(grads), None)):
        ends = weight.clone(), state.clone(), torch.zeros(size, dtype=torch.bfloat16, device=DEVICE)
        dense_update(
            OPTIMIZER_CODE[optimizer], ends[0], grad, ends[1], ends[2], corrections, rate, eps=1e-8, betas=BETAS,
            of_ranks=of_ranks,
        )  # fmt: skip
        assert not torch.equal(ends[0], weight)
        results.append([each.float().cpu().numpy().tobytes() for each in ends])
    assert results[0] == results[1]


@pytest.mark.parametrize(("world", "num_hosts", "blocks"), [(4, 2, 5), (8, 2, 3), (8, 4, 1)])
def test_dense_gradients_of_hosts_are_summed_in_the_same_tree(world, num_hosts, blocks):
    """In parts, of which the last may be shorter or empty."""
    random, size, near = np.random.default_rng(world), DENSE_BLOCK * blocks - 99, world // num_hosts
    grads = [torch.from_numpy(random.standard_normal(size).astype(np.float32)).to(DEVICE) for _ in range(world)]
    of_ranks = torch.tensor([grad.data_ptr() for grad in grads], device=DEVICE)
    length = part_blocks(size, near) * DENSE_BLOCK
    parts = torch.full((near, num_hosts, length), float("nan"), device=DEVICE)
    for host in range(num_hosts):
        for part in range(near):
            add_ranks(of_ranks[host * near : (host + 1) * near], part * length, size, parts[part, host])
    of_hosts = (parts.data_ptr() + 4 * length * torch.arange(near * num_hosts, device=DEVICE)).view(near, num_hosts)
    results = []
    for pointers in (of_ranks, of_hosts):
        weight, nothing = torch.ones(size, device=DEVICE), torch.zeros(0, device=DEVICE)
        dense_update(
            OPTIMIZER_CODE["sgd"], weight, nothing, nothing, nothing.bfloat16(), torch.ones(2, device=DEVICE),
            torch.full((1,), 0.1, device=DEVICE), eps=0.0, betas=BETAS, of_ranks=pointers,
        )  # fmt: skip
        results.append(weight.cpu().numpy().tobytes())
    assert results[0] == results[1] != torch.ones(size).numpy().tobytes()


def slice_words(num_inputs: int, size: int, rank: int) -> torch.Tensor:
    """The first words of an input buffer of a slice."""
    own = min(max(num_inputs - rank * size, 0), size)
    return torch.tensor([own, 0, 0, num_inputs], dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("num_inputs", [1, 1500, 4096])
@pytest.mark.parametrize("world", [2, 8])
def test_losses_of_slices_add_up_to_that_of_the_batch(num_inputs, world):
    random, size = np.random.default_rng(1), 4096 // world
    logits = torch.from_numpy(random.normal(size=4096).astype(np.float32)).to(DEVICE)
    labels = torch.from_numpy(random.integers(0, 2, 4096).astype(np.float32)).to(DEVICE)
    labels[num_inputs:] = float("nan")
    total = torch.zeros((), dtype=torch.float64, device=DEVICE)
    parts = []
    for rank in range(world):
        part, words = slice(rank * size, (rank + 1) * size), slice_words(num_inputs, size, rank)
        parts.append(loss_and_gradient(logits[part], labels[part], words, total, words[3:4]))
    leaf = logits[:num_inputs].clone().requires_grad_()
    expected = nn.functional.binary_cross_entropy_with_logits(leaf, labels[:num_inputs])
    expected.backward()
    torch.testing.assert_close(sum(loss for loss, _ in parts), expected.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(total, num_inputs * expected.detach().double(), rtol=1e-5, atol=1e-5)
    grad = torch.cat([each for _, each in parts])
    torch.testing.assert_close(grad[:num_inputs], leaf.grad, rtol=1e-5, atol=1e-9)
    assert not grad[num_inputs:].any()


@pytest.mark.parametrize(("weighted", "scale"), [(False, 1.0), (True, 1.0), (True, 0.0)])
def test_backward_of_slices_is_that_of_the_batch(weighted, scale):
    """By weight too, where one slice may have none of it, or all."""
    random, world, num_inputs = np.random.default_rng(2), 4, 70
    logits = torch.from_numpy(random.normal(size=128).astype(np.float32)).to(DEVICE)
    labels = torch.from_numpy(random.integers(0, 2, 128).astype(np.float32)).to(DEVICE)
    weights = torch.from_numpy(scale * random.uniform(0, 3, 128).astype(np.float32)).to(DEVICE)
    weights[32:64] = 0
    weights[num_inputs:] = 0
    whole = weights.double().sum().view(1)
    results = []
    for ranks in (1, world):
        total = torch.zeros((), dtype=torch.float64, device=DEVICE)
        loss, leaf = 0.0, logits.clone().requires_grad_()
        for rank in range(ranks):
            part = slice(rank * 128 // ranks, (rank + 1) * 128 // ranks)
            words = slice_words(num_inputs, 128 // ranks, rank)
            of_batch = None if ranks == 1 else whole if weighted else words[3:4]
            loss = loss + backward_on_device(
                leaf[part] * 1.0, labels[part], words, total, weights[part] if weighted else None, of_batch
            )
        results.append((loss, total, leaf.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    real = weights if weighted else (torch.arange(128, device=DEVICE) < num_inputs).float()
    leaf = logits.clone().requires_grad_()
    losses = nn.functional.binary_cross_entropy_with_logits(leaf, labels, reduction="none")
    mean = (losses * real).sum() / (real.sum() if real.any() else 1.0)
    mean.backward()
    torch.testing.assert_close(results[1][0], mean.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(results[1][2], leaf.grad, rtol=1e-5, atol=1e-8)
