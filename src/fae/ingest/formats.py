"""Public logs that a recipe names by one word: their columns, and the split of published results on them.

A format named after a public log is the file as its publisher gives it, unpacked or not. Sources of the splits:
`fae.ingest.splits`. Imports no library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["kaggle", "last file", "last day", "users"]


@dataclass(frozen=True, kw_only=True)
class KnownLog:
    """Columns and split of one public log.

    Attributes
    ----------
    label
        Name of the label's column; None leaves it to the recipe.
    dense, categorical
        Names of the columns.
    lists
        Columns of `categorical` that are kept as sequences, and their lengths.
    split
        The published split: ``kaggle`` trains on six of seven equal parts and halves the seventh; ``last file`` halves
        the last file; ``last day`` tests on the last day; ``users`` splits by user. None: by fractions.
    """

    label: str | None = None
    dense: tuple[str, ...] = ()
    categorical: tuple[str, ...]
    lists: tuple[tuple[str, int], ...] = ()
    split: Split | None = None


HISTORY = 20
"""Time steps of TBSM's published runs; one more slot holds the candidate."""
_COUNTS = tuple(f"I{index}" for index in range(1, 14))
_IDS = tuple(f"C{index}" for index in range(1, 27))
_AVAZU = (
    "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category",
    "device_id", "device_ip", "device_model", "device_type", "device_conn_type", "C14", "C15", "C16", "C17", "C18",
    "C19", "C20", "C21",
)  # fmt: skip

KNOWN_LOGS = {
    "criteo": KnownLog(dense=_COUNTS, categorical=_IDS),
    "criteo_kaggle": KnownLog(dense=_COUNTS, categorical=_IDS, split="kaggle"),
    "criteo_terabyte": KnownLog(dense=_COUNTS, categorical=_IDS, split="last file"),
    "avazu": KnownLog(label="click", categorical=_AVAZU, split="last day"),
    "taobao": KnownLog(
        categorical=("user", "item", "category"),
        lists=(("item", HISTORY + 1), ("category", HISTORY + 1)),
        split="users",
    ),
}
CRITEO_FORMATS = ("criteo", "criteo_kaggle", "criteo_terabyte")


def ready_module(log_format: str) -> str:
    """The module whose import gets a process ready to read shards of a log.

    >>> ready_module("criteo_kaggle"), ready_module("csv")
    ('fae.ingest.shards.ready_for_criteo', 'fae.ingest.shards.ready_for_text')
    """
    name = "criteo" if log_format in CRITEO_FORMATS else "parquet" if log_format == "parquet" else "text"
    return f"fae.ingest.shards.ready_for_{name}"


def about_text_bytes(log_format: str, num_bytes: int) -> int:
    """Bytes of text that files of `num_bytes` hold, about: what reading them takes.

    >>> about_text_bytes("csv", 1000), about_text_bytes("parquet", 1000)
    (1000, 4000)
    """
    return num_bytes * (4 if log_format == "parquet" else 1)
