"""Logits of a model of one's own that cannot be trained are told in one line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fae.core.errors import TrainingError
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer
from train_setting import Setting


class OwnModel(nn.Module):
    def __init__(self, last) -> None:
        super().__init__()
        self.out, self.last = nn.Linear(16, 1), last

    def forward(self, dense, embeddings):
        return self.last(self.out(torch.cat([embeddings[name] for name in embeddings], 1)).squeeze(1))


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (torch.Tensor.long, "forward of OwnModel returned int64, and must return logits of a floating type"),
        (lambda logits: logits > 0, "forward of OwnModel returned bool"),
        (lambda logits: logits.to(torch.complex64), "forward of OwnModel returned complex64"),
        (torch.Tensor.detach, "the logits depend on no weight and no embedding"),
    ],
)
def test_logits_that_cannot_be_trained(tmp_path, last, message) -> None:
    setting, config = Setting(tmp_path), TrainConfig(batch_size=32)
    trainer = Trainer(OwnModel(last), setting.trainer(None, config).embeddings, setting.packed, config)
    with pytest.raises(TrainingError, match=message) as refused:
        trainer.fit()
    assert "\n" not in str(refused.value)
