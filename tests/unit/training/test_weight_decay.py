"""Weight decay is torch's AdamW for dense weights, the same for rows of a batch, and under no placement another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fae.core.errors import RecipeError
from fae.core.optimizers import OPTIMIZERS
from fae.embedding.placements import PLACEMENTS
from fae.models.layers import MLP
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.dense import make_dense_optimizer, set_dense_rate
from fae.training.step import train_step
from train_setting import Setting, tensors_of

from cases import assert_same_bytes, make_embeddings, random_log

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RATES = (0.1, 0.02, 0.3)


def two_models(seed: int = 3) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    ours, theirs = (MLP([5, 16, 1], final_relu=False).to(DEVICE) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The weights after a step at each of some rates."""
    random = torch.Generator().manual_seed(4)
    for rate in RATES:
        set_dense_rate(optimizer, rate)
        optimizer.zero_grad()
        model(torch.randn(9, 5, generator=random).to(DEVICE)).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def matrices_and_vectors(model: nn.Module, weight_decay: float) -> list[dict]:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def test_beside_adam_it_is_adamw_to_the_bit() -> None:
    if DEVICE.type == "cuda":
        pytest.skip("torch's AdamW takes another path there")
    ours, theirs = two_models()
    expected = torch.optim.AdamW(matrices_and_vectors(theirs, 0.5), lr=0.1)
    assert_same_bytes(
        trained(ours, make_dense_optimizer("adam", ours, 0.1, weight_decay=0.5)), trained(theirs, expected)
    )


def test_beside_sgd_it_is_torchs_weight_decay() -> None:
    ours, theirs = two_models()
    found = trained(ours, make_dense_optimizer("sgd", ours, 0.1, weight_decay=0.5))
    for one, other in zip(
        found, trained(theirs, torch.optim.SGD(matrices_and_vectors(theirs, 0.5), lr=0.1)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad", "adam"])
@pytest.mark.parametrize("bf16", [False, True])
def test_the_flat_optimizer_decays_like_torchs(optimizer, bf16) -> None:
    pytest.importorskip("triton")
    ours, theirs = two_models()
    plain = make_dense_optimizer(optimizer, theirs, 0.1, weight_decay=0.5)
    flat = make_dense_optimizer(optimizer, ours, 0.1, flat=True, bf16=bf16, weight_decay=0.5)
    near = {"rtol": 0.05, "atol": 0.02} if bf16 else {"rtol": 1e-5, "atol": 1e-6}
    for one, other in zip(trained(ours, flat), trained(theirs, plain), strict=True):
        torch.testing.assert_close(one, other, **near)
    before = [parameter.detach().clone() for parameter in ours.parameters()]
    flat.zero_grad()
    if not bf16:  # without gradients nothing shrinks
        flat._moments.zero_()
        flat.step()
        assert_same_bytes([parameter.detach() for parameter in ours.parameters()], before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_rows_of_a_batch_shrink_and_no_others(optimizer, placement) -> None:
    """Gradients of zero, so that decay alone moves a row (Adam's and Adagrad's state begins at zero)."""
    log = random_log(3, lists=True, num_inputs=40, batch_size=16)
    layout = log.layout(0.3, 3)
    rows = RowOptimizer(name=optimizer, learning_rate=0.1, weight_decay=2.0)
    embeddings = make_embeddings(placement, log, layout, rows)
    embeddings.initialise(3)
    embeddings.follow_rates(lambda step: 0.5)
    before = [embeddings.export_table(table)[0].clone() for table in range(len(log.features))]
    dense_optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)

    def forward(dense, features):
        return 0 * sum(features[name].flatten(1).sum(1) for name in features)

    for batch in embeddings.stream(log.packed(layout), [0]):
        train_step(forward, embeddings, dense_optimizer, batch)
    first, inputs = 0, log.groups[0]
    for table, feature in enumerate(log.features):
        ids = log.ids[inputs, first : first + feature.length]
        listed, after = np.unique(ids[ids >= 0]), embeddings.export_table(table)[0]
        others = np.setdiff1d(np.arange(feature.num_embeddings), listed)
        assert torch.equal(after[listed], before[table][listed] * np.float32(0.9))
        assert torch.equal(after[others], before[table][others])
        first += feature.length


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_placement_changes_no_byte(tmp_path, optimizer) -> None:
    setting = Setting(tmp_path, share=0.6)
    config = TrainConfig(
        batch_size=32, optimizer=optimizer, weight_decay=0.5, row_weight_decay=0.2, rate_schedule="cosine",
        warmup_epochs=0.2,
    )  # fmt: skip
    trainers = [setting.trainer(None, config, placement) for placement in PLACEMENTS]
    for trainer in trainers:
        trainer.fit()
        assert_same_bytes(tensors_of(trainer), tensors_of(trainers[0]))
    plain = setting.trainer(None, TrainConfig(batch_size=32, optimizer=optimizer))
    plain.fit()
    assert not torch.equal(tensors_of(plain)[0], tensors_of(trainers[0])[0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weight_decay": -0.1}, "weight_decay = -0.1 must be 0 or more"),
        ({"row_weight_decay": 50.0}, "row_weight_decay = 50.0 times a learning rate of 0.02 must be less than 1"),
        ({"weight_decay": 3.0, "dense_learning_rate": 0.5}, "weight_decay = 3.0 times a learning rate of 0.5 must be"),
    ],
)
def test_what_decay_refuses(keys, message) -> None:
    with pytest.raises(RecipeError) as refused:
        TrainConfig(**keys)
    assert message in str(refused.value)


def test_only_what_is_set_names_a_training() -> None:
    assert not {"weight_decay", "row_weight_decay"} & set(TrainConfig().to_parameters())
    assert TrainConfig(weight_decay=0.1).to_parameters()["weight_decay"] == 0.1
