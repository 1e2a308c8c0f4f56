"""What makes baselines on a CPU strong: freed memory is kept, bfloat16 where the CPU has units for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from fae.artifacts.columnar_log import ColumnarLog
from fae.bench import contenders
from fae.bench.contenders import PlainContender, take_faster_precision
from fae.bench.plain_contender import PlainPyTorch
from fae.models.config import model_config
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.training import step
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer
from train_setting import Setting

from model_cases import CASES, make_batch

# Segments of 40 MiB are always mapped anew by glibc, and no block is used before the answer is known.
_FAULTS = """
import ctypes, resource
from fae.core.host_memory import keep_freed_memory

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    size = 40 * 2**20
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
taken = [faults_of_a_step() for _ in range(3)]
assert keep_freed_memory()
faults_of_a_step()
kept = [faults_of_a_step() for _ in range(3)]
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(min(taken), max(kept), peak)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    taken, kept, peak_kilobytes = map(int, done.stdout.split())
    assert kept < 100 < taken
    assert peak_kilobytes < 200 * 1024


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_bf16_point_where_those_in_fp32_do(name):
    """On a CPU, of rows and of dense weights; the arithmetic is the same with AMX and without."""
    case, lengths = CASES[name], [6, 5, 2, 1, 6, 3, 4, 6]
    gradients = {}
    for precision in ("fp32", "bf16"):
        model, batch = case.build(), make_batch(case, lengths)
        with step.autocast(torch.device("cpu"), precision):
            logits = model(batch.dense, batch.embeddings)
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), (torch.arange(8) % 2).float()).backward()
        leaves = [*batch.buffers, *model.parameters()]
        assert all(leaf.grad is None or leaf.grad.dtype == torch.float32 for leaf in leaves)
        gradients[precision] = torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None])
    assert not torch.equal(gradients["fp32"], gradients["bf16"])
    assert torch.cosine_similarity(gradients["fp32"], gradients["bf16"], dim=0) > 0.995


@pytest.mark.parametrize("has_units", [False, True])
def test_training_takes_bf16_where_the_cpu_has_units_for_it(tmp_path, monkeypatch, capsys, has_units):
    monkeypatch.setattr(step, "cpu_multiplies_bf16", lambda: has_units)
    setting = Setting(tmp_path)
    trained = {}
    for precision in ("fp32", "bf16"):
        config = TrainConfig(batch_size=32, optimizer="sgd", placement="cpu", precision=precision)
        trained[precision] = setting.trainer(None, config).fit()
    assert trained["fp32"]["train"]["precision"] == "fp32"
    assert trained["bf16"]["train"]["precision"] == ("bf16" if has_units else "fp32")
    assert ("train: precision fp32" in capsys.readouterr().err) == (not has_units)
    losses = [result["test"]["log_loss"] for result in trained.values()]
    assert (losses[0] == losses[1]) == (not has_units)
    assert losses[0] == pytest.approx(losses[1], abs=0.01)


@pytest.mark.parametrize(("has_units", "faster", "expected"), [
    (True, "bf16", "bf16"), (True, "fp32", "fp32"), (False, "bf16", "fp32"),
])  # fmt: skip
def test_a_contender_on_a_cpu_takes_the_faster_precision(tmp_path, monkeypatch, has_units, faster, expected):
    monkeypatch.setattr(contenders, "cpu_multiplies_bf16", lambda: has_units)
    write_columnar(SyntheticConfig(shape="criteo", num_inputs=400, scale=0.0003), tmp_path / "log", ids="encoded")
    model = model_config({"name": "dlrm", "embedding_dim": 4, "bottom_mlp": [8], "top_mlp": [8]})
    peer = PlainPyTorch(
        ColumnarLog(tmp_path / "log"), model=model, num_batches=2, batch_size=32, optimizer="sgd", learning_rate=0.05,
        device="cpu",
    )  # fmt: skip
    contender = PlainContender(peer)
    trained = []

    def run(num_steps: int) -> float:
        trained.append(peer.precision)
        return num_steps * (1e-3 if peer.precision == faster else 2e-3)

    monkeypatch.setattr(peer, "run", run)
    take_faster_precision(contender, 0.0)
    assert contender.precision == peer.precision == expected
    assert set(trained) == ({"fp32", "bf16"} if has_units else set())


def test_the_trainer_keeps_freed_memory_on_a_cpu(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(f"{Trainer.__module__}.keep_freed_memory", lambda: calls.append(1))
    Setting(tmp_path).trainer(None, TrainConfig(batch_size=32, optimizer="sgd", placement="cpu"))
    assert calls == [1]
