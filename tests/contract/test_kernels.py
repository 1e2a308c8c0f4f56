"""One contract for row kernels: every engine does the same as autograd over a dense table.

A new engine is one entry of `ENGINES`.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fae.kernels.cpu as cpu
import fae.kernels.cpu_row_steps as cpu_row_steps
from fae.artifacts import lookup_addresses
from fae.artifacts.batch_arrays import Segments
from fae.core.optimizers import DEFAULT_BETAS, OPTIMIZERS, bias_corrected_rate, state_width
from fae.kernels.cpu import CpuGroupKernels
from fae.kernels.geometry import group_geometries
from fae.kernels.input_views import InputViews, group_field
from fae.kernels.reference import ReferenceGroupKernels
from fae.pack.sort_kernels import SEGMENT_LOOKUPS

NO_ROWS = np.empty(0, np.int64)
FLAT = ([1, 1, 1], ["sum", "sum", "mean"])
LISTS = ([1, 3, 2, 4], ["sum", "mean", "none", "sum"])


class PythonForm(CpuGroupKernels):
    """The numba kernels without numba, so that coverage sees their lines and Python checks their indices."""

    def _patched(self, call, *arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cpu, "translate", cpu.translate.py_func)
            for module in (cpu, cpu_row_steps):
                patch.setattr(module, "step_row", module.step_row.py_func)
            for name in ("gather_kernel", "pool_kernel", "update_kernel", "sum_kernel", "step_kernel"):
                factory = getattr(cpu, name)
                patch.setattr(cpu, name, lambda *key, factory=factory: factory(*key).py_func)
            return call(*arguments, **options)

    def lookup(self, *arguments, **options):
        self._patched(super().lookup, *arguments, **options)

    def update(self, *arguments, **options):
        self._patched(super().update, *arguments, **options)


class HalvesForm(CpuGroupKernels):
    """An update in two halves, as ranks that train together make it: sums of rows, then their steps."""

    def update(self, weight, state, order, grad, learning_rate, eps, **options):
        rows = self._rows.reshape(-1)[order]
        found, starts = np.unique(rows, return_index=True)
        by_place = np.argsort(starts)
        found, starts = found[by_place], starts[by_place].astype(np.int32)
        sums = self.sum_rows(order, starts[found >= 0], len(order), grad.numpy())
        self.step_rows(weight, state, found[found >= 0], sums, learning_rate, eps, **options)


class PythonHalvesForm(PythonForm):
    """The same without numba."""

    def update(self, *arguments, **options):
        self._patched(partial(HalvesForm.update, self), *arguments, **options)


def segments_of(sorted_addresses):
    """Starts and addresses of the segments, and rows of several, of one group's addresses in their order."""
    starts, addresses, long_rows = [], [], []
    for address in np.unique(sorted_addresses[sorted_addresses >= 0]):
        begin, end = np.searchsorted(sorted_addresses, [address, address + 1])
        cuts = range(begin, end, SEGMENT_LOOKUPS)
        if len(cuts) > 1:
            long_rows += [len(starts), len(cuts)]
        starts += cuts
        addresses += [address] * len(cuts)
    return starts, addresses, long_rows


class TritonForm:
    """The Triton kernels behind the calls of the others; in Triton's interpreter where there is no GPU."""

    def __init__(self, geometry, batch_size, optimizer):
        from fae.kernels.triton_rows import TritonGroupKernels

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.optimizer = optimizer
        self.kernels = TritonGroupKernels(geometry, 0, batch_size, optimizer, self.device, staged=False)

    def lookup(self, addresses, num_hot_rows, weight, out, *, shift, cold_rows):
        self.addresses, self.num_hot_rows = addresses, num_hot_rows
        listed = cold_rows if len(cold_rows) else np.arange(num_hot_rows, len(weight) - shift) + shift
        self.cold_rows = torch.from_numpy(listed).to(self.device)
        pooled = out.to(self.device)
        self.kernels.lookup(
            self.inputs(np.zeros(addresses.size, np.int32), 0.0), self.cold_rows, num_hot_rows,
            weight.to(self.device), pooled,
        )  # fmt: skip
        out.copy_(pooled)

    def update(self, weight, state, order, grad, learning_rate, eps, *, betas=DEFAULT_BETAS, step=1, kept_share=1.0):
        rate = bias_corrected_rate(learning_rate, betas, step) if self.optimizer == "adam" else learning_rate
        inputs, (rows, states) = (
            self.inputs(order, rate, kept_share),
            (tensor.to(self.device) for tensor in (weight, state)),
        )
        self.kernels.update(
            inputs, self.cold_rows, self.num_hot_rows, rows, states, grad.to(self.device), eps, betas,
            decays=kept_share != 1,
        )  # fmt: skip
        weight.copy_(rows)
        state.copy_(states)

    def inputs(self, order, rate, kept_share=0.0) -> InputViews:
        """An input buffer: header, then starts and addresses of the segments, then rows of several segments."""
        starts, addresses, long_rows = segments_of(self.addresses.reshape(-1)[order])
        header = np.zeros(group_field(1), np.int32)
        header[0], header[1] = len(self.addresses), np.float32(rate).view(np.int32)
        header[2] = np.float32(kept_share).view(np.int32)
        count, field = len(starts), group_field(0)
        header[field + 1 : field + 6] = (
            count, len(long_rows) // 2, len(header), len(header) + count, len(header) + 2 * count
        )  # fmt: skip
        self.kernels.reserve(count, len(long_rows) // 2)
        words, table, lookups = (
            torch.from_numpy(np.array(values, np.int32)).to(self.device)
            for values in ([*header, *starts, *addresses, *long_rows], self.addresses, order)
        )
        nothing = torch.empty(0, device=self.device)
        return InputViews(
            words=words, longs=self.cold_rows, addresses=table, dense=nothing, labels=nothing, order=lookups
        )


ENGINES = {
    "numba": CpuGroupKernels,
    "python": PythonForm,
    "halves": HalvesForm,
    "python halves": PythonHalvesForm,
    "reference": lambda *arguments: ReferenceGroupKernels(*arguments, torch.device("cpu")),
    "triton": TritonForm,
}
engines = pytest.mark.parametrize("engine", ENGINES)


def make_kernels(engine, geometry, batch_size, optimizer):
    if engine == "triton":
        pytest.importorskip("triton")
    return ENGINES[engine](geometry, batch_size, optimizer)


class Case:
    """A random batch of one group over 20 rows: the first 12 are hot, the last 2 are never listed."""

    num_rows, num_hot = 20, 12

    def __init__(self, lengths, poolings, dim, batch_size, seed):
        self.random = np.random.default_rng(seed)
        (self.geometry,) = group_geometries(lengths, poolings, [dim] * len(lengths))
        self.lengths, self.poolings, self.dim, self.batch_size = lengths, poolings, dim, batch_size
        rows = self.random.integers(-1, self.num_rows - 2, (batch_size, sum(lengths)))
        rows[self.random.random(rows.shape) < 0.4] = 3  # one row that takes many lookups
        rows[-1] = -1  # a padded input
        self.rows = rows
        self.cold_rows = np.unique(rows[rows >= self.num_hot]).astype(np.int64)
        self.addresses = np.where(
            rows >= self.num_hot, self.num_hot + np.searchsorted(self.cold_rows, rows), rows
        ).astype(np.int32)
        self.order = np.argsort(self.addresses.reshape(-1), kind="stable").astype(np.int32)
        self.weight = torch.from_numpy(self.random.normal(size=(self.num_rows, dim)).astype(np.float32))
        self.grad = torch.from_numpy(self.random.normal(size=(batch_size, self.geometry.width)).astype(np.float32))

    def pooled(self, weight):
        """What a lookup means, with autograd."""
        columns, first = [], 0
        for length, pooling in zip(self.lengths, self.poolings, strict=True):
            rows = torch.from_numpy(self.rows[:, first : first + length])
            vectors = weight[rows.clamp(min=0)] * (rows >= 0).unsqueeze(-1)
            if pooling == "none":
                columns.append(vectors.flatten(1))
            elif pooling == "mean":
                columns.append(vectors.sum(1) / (rows >= 0).sum(1).clamp(min=1).unsqueeze(1))
            else:
                columns.append(vectors.sum(1))
            first += length
        return torch.cat(columns, 1)


def wanted_update(optimizer, weight, state, gradient, eps, betas, step):
    """What an update with learning rate 0.1 means, in double precision, for rows that the batch touches."""
    if optimizer == "sgd":
        return weight - 0.1 * gradient, state
    if optimizer == "rowwise_adagrad":
        state = state + (gradient**2).mean(1, keepdim=True)
        return weight - 0.1 * gradient / (state.sqrt() + eps), state
    if optimizer == "adagrad":
        state = state + gradient**2
        return weight - 0.1 * gradient / (state.sqrt() + eps), state
    moment, square = state.chunk(2, 1)
    moment = betas[0] * moment + (1 - betas[0]) * gradient
    square = betas[1] * square + (1 - betas[1]) * gradient**2
    corrected = (square / (1 - betas[1] ** step)).sqrt()
    epsilon = eps / (1 - betas[1] ** step) ** 0.5  # torch.optim.SparseAdam adds eps before the correction
    return weight - 0.1 * moment / (1 - betas[0] ** step) / (corrected + epsilon), torch.cat([moment, square], 1)


cases = pytest.mark.parametrize(("lengths", "poolings"), [FLAT, LISTS], ids=["flat", "lists"])


@cases
@engines
@pytest.mark.parametrize(("dim", "kept_share"), [(1, 1.0), (4, 1.0), (16, 1.0), (4, 0.75)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lookup_and_update(engine, lengths, poolings, dim, optimizer, kept_share):
    case = Case(lengths, poolings, dim, 12, seed=dim)
    kernels = make_kernels(engine, case.geometry, case.batch_size, optimizer)
    weight = case.weight.clone()
    out = torch.full((case.batch_size, case.geometry.width), 7.0)
    kernels.lookup(case.addresses, case.num_hot, weight, out, shift=0, cold_rows=case.cold_rows)

    leaf = case.weight.double().requires_grad_()
    expected = case.pooled(leaf)
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.all(out[-1] == 0)

    (expected * case.grad.double()).sum().backward()
    state = torch.rand((case.num_rows, state_width(optimizer, dim)), generator=torch.Generator().manual_seed(1))
    before, betas = state.clone(), (0.8, 0.97)
    kernels.update(weight, state, case.order, case.grad, 0.1, 1e-3, betas=betas, step=3, kept_share=kept_share)
    wanted, wanted_state = wanted_update(
        optimizer, kept_share * case.weight.double(), before.double(), leaf.grad, 1e-3, betas, 3
    )  # fmt: skip
    touched = np.unique(case.rows[case.rows >= 0])
    torch.testing.assert_close(state.double()[touched], wanted_state[touched], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight.double()[touched], wanted[touched], rtol=1e-5, atol=1e-5)
    untouched = np.setdiff1d(np.arange(case.num_rows), touched)
    assert len(untouched), "the case must leave a row alone"
    assert torch.equal(weight[untouched], case.weight[untouched])
    assert torch.equal(state[untouched], before[untouched])


@cases
@pytest.mark.parametrize("form", ["numba", "python", "triton"])
@pytest.mark.parametrize("batch_size", [1, 12, 90])
def test_addresses_follow_from_the_order(form, lengths, poolings, batch_size, monkeypatch):
    case = Case(lengths, poolings, 4, batch_size, seed=batch_size)
    found = np.full_like(case.addresses, 77)
    if form == "triton":
        kernels = make_kernels("triton", case.geometry, batch_size, "sgd")
        kernels.addresses, kernels.cold_rows = case.addresses, torch.zeros(1, dtype=torch.int64)
        derived = torch.from_numpy(found).to(kernels.device)
        inputs = kernels.inputs(case.order, 0.0)
        kernels.kernels.derive_addresses(inputs, derived)
        found = derived.cpu().numpy()
        for count in (1, 2):  # planes, the upper ones of bytes and of 16 bits
            kinds = [np.uint16, [np.uint8, np.uint16][batch_size % 2]][:count]
            planes = [(case.order >> shift).astype(kind) for shift, kind in zip((0, 16), kinds, strict=False)]
            planes = [plane.view(np.int16) if plane.itemsize == 2 else plane for plane in planes]
            order, again = torch.full_like(inputs.order, 99), torch.full_like(derived, 77)
            planes = tuple(torch.from_numpy(plane).to(kernels.device) for plane in planes)
            kernels.kernels.derive_addresses(dataclasses.replace(inputs, order=order, planes=planes), again)
            assert torch.equal(order, inputs.order)
            assert torch.equal(again, derived)
    else:
        if form == "python":
            monkeypatch.setattr(lookup_addresses, "write_addresses", lookup_addresses.write_addresses.py_func)
        starts, addresses, _ = (
            np.array(each, np.int32) for each in segments_of(case.addresses.reshape(-1)[case.order])
        )
        segments = Segments(starts=starts, addresses=addresses, long_rows=np.zeros((0, 2), np.int32))
        lookup_addresses.derive_addresses(case.order, [segments], np.array([0, case.order.size]), found)
    assert np.array_equal(found, case.addresses)


@engines
def test_staged_addresses_are_shifted(engine):
    case = Case(*FLAT, 4, 6, seed=5)
    kernels = make_kernels(engine, case.geometry, case.batch_size, "sgd")
    slot, slot_rows = 2, 9
    bank = torch.zeros((case.num_hot + 3 * slot_rows, 4))
    bank[: case.num_hot] = case.weight[: case.num_hot]
    first = case.num_hot + slot * slot_rows
    bank[first : first + len(case.cold_rows)] = case.weight[case.cold_rows]
    out = torch.empty((case.batch_size, case.geometry.width))
    kernels.lookup(case.addresses, case.num_hot, bank, out, shift=slot * slot_rows, cold_rows=NO_ROWS)
    torch.testing.assert_close(out, case.pooled(case.weight))


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "adam"])
@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_threads_do_not_change_a_byte(threads, optimizer, monkeypatch):
    monkeypatch.setattr(cpu, "_MIN_LOOKUPS", 16)
    results = []
    for count in ("1", threads):
        monkeypatch.setenv("FAE_NUM_THREADS", count)
        case = Case(*LISTS, 8, 301, seed=11)
        kernels = CpuGroupKernels(case.geometry, case.batch_size, optimizer)
        state = torch.zeros((case.num_rows, state_width(optimizer, 8)))
        out = torch.empty((case.batch_size, case.geometry.width))
        kernels.lookup(case.addresses, case.num_hot, case.weight, out, shift=0, cold_rows=case.cold_rows)
        kernels.update(case.weight, state, case.order, case.grad, 0.1, 1e-8)
        results.append((out, case.weight, state))
    for one, many in zip(*results, strict=True):
        assert torch.equal(one, many)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([FLAT, LISTS]), st.integers(1, 40), st.sampled_from(OPTIMIZERS))
def test_two_halves_are_an_update_to_the_byte(seed, shape, batch_size, optimizer):
    case = Case(*shape, 8, batch_size, seed)
    results = []
    for engine in ("numba", "halves"):
        kernels = make_kernels(engine, case.geometry, batch_size, optimizer)
        weight, state = case.weight.clone(), torch.ones((case.num_rows, state_width(optimizer, 8)))
        out = torch.empty((batch_size, case.geometry.width))
        kernels.lookup(case.addresses, case.num_hot, weight, out, shift=0, cold_rows=case.cold_rows)
        kernels.update(weight, state, case.order, case.grad, 0.1, 1e-8, step=2, kept_share=0.9)
        results.append(weight.numpy().tobytes() + state.numpy().tobytes())
    assert results[0] == results[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([FLAT, LISTS]), st.integers(1, 40), st.sampled_from(OPTIMIZERS))
def test_numba_is_the_reference(seed, shape, batch_size, optimizer):
    case = Case(*shape, 8, batch_size, seed)
    results = []
    for engine in ("numba", "reference"):
        kernels = make_kernels(engine, case.geometry, batch_size, optimizer)
        weight, state = case.weight.clone(), torch.ones((case.num_rows, state_width(optimizer, 8)))
        out = torch.empty((batch_size, case.geometry.width))
        kernels.lookup(case.addresses, case.num_hot, weight, out, shift=0, cold_rows=case.cold_rows)
        kernels.update(weight, state, case.order, case.grad, 0.1, 1e-8, step=2, kept_share=0.9)
        results.append((out, weight, state))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-6)
