"""Notes on labels and dense columns, which are lines for people: one class, no values, too large, cut off at 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fae.ingest.config import LogConfig
from fae.ingest.notes.note_words import shown_share

LARGE = 1e4
"""Largest dense value behind the transform without a note."""
VANISHED_SHARE = 0.05
"""Share of the values of a dense column that may be negative and become 0 without a note."""


def class_notes(label_rate: Mapping[str, float | None]) -> list[str]:
    """Splits with one class only."""
    notes = []
    for rate in (0.0, 1.0):
        names = ["training" if name == "train" else name for name, found in label_rate.items() if found == rate]
        if names:
            which = f"the {names[0]} split has" if len(names) == 1 else f"the {' and '.join(names)} splits have"
            notes.append(
                f"{which} one class only: every label is {rate:.0f}, so AUC is not defined there"
                + (", and nothing can be learned that tells the classes apart" if "training" in names else "")
                + '; is the log sorted by label? Set [log] split = "random", or add the other class'
            )
    return notes


def dense_notes(
    config: LogConfig,
    missing: Mapping[str, Sequence[int]],
    sizes: Mapping[str, int],
    facts: Mapping[str, Any],
) -> list[str]:
    """Dense columns without values, far too large, or cut off at 0.

    Parameters
    ----------
    missing, sizes
        Per split: inputs that lack each column, and all inputs.
    facts
        `fae.ingest.notes.dense_facts.DenseFacts.state`.
    """
    notes: list[str] = []
    total = sum(sizes.values())
    for index, settings in enumerate(config.dense_settings()):
        name, transform = settings.name, settings.transform or config.dense_transform
        lacking = {split: counts[index] for split, counts in missing.items() if sizes[split]}
        vanished, largest = facts["vanished"][index], facts["largest"][index]
        if lacking["train"] == sizes["train"]:
            where = "log" if sum(lacking.values()) == total else "training split"
            notes.append(f"the dense column {name!r} has no value in the whole {where}; leave it out, or correct it")
        else:
            notes += [
                f"the dense column {name!r} has no value in any input of the {split} split, and training lacks it in "
                f"{shown_share(lacking['train'] / sizes['train'])}; was it left out there?"
                for split, count in lacking.items()
                if count == sizes[split] and lacking["train"] < sizes["train"] / 2
            ]
        if largest > LARGE:
            notes.append(
                f'the dense column {name!r} has values as large as {largest:.3g} (dense_transform = "{transform}"), '
                "with which training seldom works; a time or a key is no number to learn from: leave it out or list it "
                'as categorical; a count takes dense_transform = "log1p"; anything else, scale it'
            )
        with_value = total - sum(lacking.values())
        if config.known is None and with_value and vanished > VANISHED_SHARE * with_value:
            notes.append(
                f"{shown_share(vanished / with_value)} of the values of the dense column {name!r} are negative and "
                f'became 0, as dense_transform = "{transform}" is for counts; set dense_transform = "none", or '
                '"signed_log1p" where they are large'
            )
    return notes
