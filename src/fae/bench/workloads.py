"""The paper's three workloads: what recipes/rmc*.toml say, the synthetic log of each, and what the paper claims.

The tables are those of the recipes (a test compares them), so that the verb also works where only the package is
installed. Imports no library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CLAIMS: tuple[Mapping[str, Any], ...] = (
    {"over": "plain cpu", "their": "XDL CPU-only", "speedup": 2.3},
    {"over": "plain hybrid", "their": "XDL CPU-GPU", "speedup": 1.52},
)
"""The paper's headline: the average over its workloads, an Intel Xeon with NVIDIA V100s, accuracy as the baseline's."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One workload of the paper.

    Attributes
    ----------
    title
        One line for people.
    recipe
        Its file in ``recipes/``.
    shape
        Shape of the synthetic log (`fae synthetic`).
    num_inputs
        Inputs of the synthetic log, unless the user gives a number: enough that not every touched row can be hot.
    click_rate
        Share of labels that are 1 in the synthetic log.
    model, hot, train
        Tables of its recipe.
    """

    name: str
    title: str
    recipe: str
    shape: str
    num_inputs: int
    click_rate: float = 0.25
    model: Mapping[str, Any] = field(default_factory=dict)
    hot: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


WORKLOADS: Mapping[str, Workload] = {
    "rmc1": Workload(
        name="rmc1",
        title="RMC1: TBSM on Taobao-shaped data, 5.2 M rows of dim 16, Adagrad",
        recipe="rmc1_tbsm.toml",
        shape="taobao",
        num_inputs=4_000_000,
        click_rate=0.5,
        model={
            "name": "tbsm", "embedding_dim": 16, "bottom_mlp": [], "top_mlp": [15, 15], "inner": "definite",
            "attention": "mlp", "attention_mlp": [15, 15], "final_mlp": [60],
        },
        hot={"budget": "256MiB"},
        train={
            "batch_size": 256, "optimizer": "adagrad", "learning_rate": 0.05, "dense_learning_rate": 0.05,
            "compile": True,
        },
    ),
    "rmc2": Workload(
        name="rmc2",
        title="RMC2: DLRM on Criteo-Kaggle-shaped data, 33.8 M rows of dim 16, SGD",
        recipe="rmc2_dlrm.toml",
        shape="criteo",
        num_inputs=8_000_000,
        model={"name": "dlrm", "embedding_dim": 16, "bottom_mlp": [512, 256, 64], "top_mlp": [512, 256]},
        hot={"budget": "256MiB"},
        train={"batch_size": 1024, "optimizer": "sgd", "learning_rate": 0.1},
    ),
    "rmc3": Workload(
        name="rmc3",
        title="RMC3: DLRM on Criteo-Terabyte-shaped data, 187.8 M rows of dim 64, SGD",
        recipe="rmc3_dlrm.toml",
        shape="terabyte",
        num_inputs=8_000_000,
        model={"name": "dlrm", "embedding_dim": 64, "bottom_mlp": [512, 256], "top_mlp": [512, 512, 256]},
        hot={"budget": "512MiB"},
        train={"batch_size": 2048, "optimizer": "sgd", "learning_rate": 0.1},
    ),
}  # fmt: skip
