"""Run records for tests of the report, and a strict reader of its pages."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from fae.profile.skew import skew_curve
from fae.report.records import RunRecord

VOID = {"meta", "link", "wbr"}
OPTIONAL = {"html", "body"}
"""Their end tags may be left out; the parser of the tests takes them as left open."""


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order; collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """All words, one space between two tags."""
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str, css: str = "") -> int:
        """Elements of that tag that have all of the classes."""
        return sum(name == tag and set(css.split()) <= set((at.get("class") or "").split()) for name, at in self.tags)


def make_record() -> dict[str, Any]:
    """A small record with everything in it."""
    counts = {"user": np.arange(400, 0, -1), "item": 1000 // np.arange(1, 201), "site": np.array([9, 9, 2])}
    num_hot = {"user": 40, "item": 60, "site": 3}
    return {
        "recipe": {
            "log": {"train": "log.csv", "categorical": ["user", "item", "site"]},
            "model": {"name": "dlrm", "embedding_dim": 4},
            "hot": {"budget": "4KiB"},
            "train": {"order": "adaptive", "placement": "tiered", "optimizer": "sgd", "learning_rate": 0.1},
        },
        "seed": 7,
        "versions": {"fae": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "machine": {"processor": "A processor", "cores": 2, "memory_bytes": 2**33, "gpu": None, "system": "Linux"},
        "commit": "abc",
        "log": {
            "num_inputs": 600, "features": [{"name": name} for name in counts],
            "splits": {"train": [0, 432], "validation": [432, 480], "test": [480, 600]},
            "label_rate": {"train": 0.4, "validation": 0.41, "test": 0.39},
        },
        "hot": {
            "selection": "peeling", "budget_bytes": 4096, "bytes": 1648, "staging_bytes": 900, "num_rows": 103,
            "coverage": 0.71, "input_share": 0.345, "predicted": {"input_share": 0.35}, "bound": 0.5,
            "notes": ["auto took peeling"], "candidates": {"threshold": {"input_share": 0.2, "coverage": 0.8}},
            "tables": [
                {"name": name, "num_embeddings": len(counts[name]), "embedding_dim": 4, "num_hot": hot,
                 "bytes": 16 * hot, "coverage": 0.6}
                for name, hot in num_hot.items()
            ],
            "budgets": {
                "selection": "peeling", "num_inputs": 432,
                "points": [
                    {"budget_bytes": 1024 << step, "coverage": 0.3 + step / 10, "input_share": step / 10}
                    for step in range(4)
                ],
            },
        },
        "pack": {"num_batches": {"hot": 5, "cold": 9}, "padding_share": 0.01, "label_rate": {"hot": 0.4, "cold": None}},
        "tables": [
            {"name": name, "num_embeddings": len(of), "row_bytes": 16, **skew_curve(of)} for name, of in counts.items()
        ],
        "train": {
            "samples_per_second": 1234.5, "seconds": 3.0, "num_inputs": 432, "device_bytes": 2548,
            "loss_curve": [[100, 0.6], [200, 0.5], [432, 0.45]],
            "validation_curve": [
                {"inputs": 200, "whole": False, "log_loss": 0.9}, {"inputs": 432, "whole": True, "log_loss": 0.47},
            ],
            "schedule": [
                {"epoch": 0, "phase": "cold", "rate": 50, "batches": 5, "validation_loss": 0.6},
                {"epoch": 0, "phase": "hot", "rate": 50, "batches": 5, "validation_loss": 0.5},
                {"epoch": 0, "phase": "cold", "rate": 25, "batches": 4},
            ],
            "swaps": {"count": 2, "moved_bytes": 2048, "copy_seconds": 0.5},
        },
        "validation": {"auc": 0.7, "log_loss": 0.47},
        "test": {"auc": 0.723456, "log_loss": 0.48, "normalized_entropy": None, "num_inputs": 120},
        "stage_seconds": {"ingest": 1.0, "profile": 0.5, "calibrate": 0.5, "pack": 1.0, "train": 5.0},
        "fingerprints": {"log": "f00"},
    }  # fmt: skip


def make_run(label: str = "a", **changes: Any) -> RunRecord:
    """The record of `make_record` under a label, with other sections in place of some."""
    return RunRecord(label=label, record={**make_record(), **changes})


def without(record: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy of a record that lacks the value at a path."""
    record = copy.deepcopy(record)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return record


def write_run(folder: Path, record: Any) -> Path:
    """Write ``run.json`` into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return folder


def paper_record(**changes: Any) -> dict[str, Any]:
    """The record of a `fae bench paper` on a GPU, with names as long as they get."""
    timings = {
        "plain PyTorch, CPU only": (4_083, [3_900, 4_300]), "plain PyTorch, CPU-GPU": (21_900, [21_000, 22_800]),
        "FAE's kernels, CPU-GPU": (41_000, [40_500, 41_800]), "FAE, paper": (210_461, [205_000, 214_000]),
        "FAE, tiered": (611_493, [609_000, 614_000]), "FAE, tiered, shuffled": (612_069, [608_000, 615_000]),
        "every row on the GPU": (655_000, [650_000, 661_000]),
    }  # fmt: skip
    rows = [
        {"label": label, "contender": label, "samples_per_second": rate, "spread": spread, "num_samples": 5,
         "epoch_seconds": 4e7 / rate, "over plain cpu": rate / 4_083, "over plain hybrid": rate / 21_900,
         "auc": 0.7907, "log_loss": 0.4524, "input_share": 0.62 if "FAE, " in label else None, "swaps": 12,
         "bytes_to_device": 12_000_000_000, "bytes_to_host": 9_000_000_000, "device_bytes": 268_000_000,
         "batches_measured": 400}
        for label, (rate, spread) in timings.items()
    ]  # fmt: skip
    table = {
        "batch_size": 2048, "rows": rows, "host": {"warning": "the host was not steady"},
        "left_out": [{"label": "XDL", "why": "is no program that still runs"}],
        "claims": [{"their": "XDL CPU-only", "speedup": 2.3, "ours": {"paper": 51.5, "tiered": 149.8}},
                   {"their": "XDL CPU-GPU", "speedup": 1.52, "ours": {}}],
        "published": {
            "epoch_seconds": {"cold": 80.5, "hot": 100.2, "swaps_to_device": 4.1, "swaps_to_host": 3.9},
            "whole_epoch": {
                "traffic": {"swaps": 12, "swap_bytes_to_device": 4_000_000, "pooled_bytes_to_device": 5_000_000},
                "schedule": [{"phase": "cold", "rate": 50}, {"phase": "hot", "rate": 50}],
            },
        },
    }  # fmt: skip
    return {
        "kind": "paper_table", "complete": True, "settings": {"device": "cuda"},
        "workload": {"title": "RMC2: DLRM on Criteo-Kaggle-shaped data, 33.8 M rows of dim 16, SGD"},
        "log": {"train_inputs": 40_000_000, "num_rows": 33_800_000, "touched_rows": 20_000_000,
                "table_bytes": 2_163_200_000, "made_up": True},
        "sessions": [{"machine": {"processor": "A processor", "cores": 26, "memory_bytes": 2**38, "gpu": "A GPU"}}],
        "tables": [table, {**table, "batch_size": 32768, "host": {}}],
        **changes,
    }  # fmt: skip
