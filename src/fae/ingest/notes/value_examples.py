"""Values as they were written, for notes: one that a split has and training has not, and one of training beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.ingest.notes.value_forms import differing_forms, same_but_for_form
from fae.ingest.numbering.id_blocks import IdRows
from fae.ingest.provisional_ids import ColumnEncoder

_MOST_VALUES = 1000
_MOST_ROWS = 1 << 20
_VALUES_AT_ONCE, _MOST_PARTS = 1 << 18, 4
"""A million values of training are compared at most, the first ones of the log."""


@dataclass(frozen=True, kw_only=True)
class UnknownExample:
    """A value of a split that has the reserved id there, and one of training.

    Attributes
    ----------
    here, in_training
        Text; empty for a missing value, None where there is no value.
    forms
        How the two differ, as names of `fae.ingest.notes.value_forms.FORMS`; empty if they are different values.
    form_share
        Share of the unknown values that were looked at (up to 1,000) that training has in another form.
    """

    here: str | None
    in_training: str | None
    forms: Sequence[str] = ()
    form_share: float = 0.0


def value_text(encoder: ColumnEncoder, provisional: int) -> str:
    """The text of a provisional id."""
    values = _texts(encoder, np.array([provisional], np.int32))
    return str(values[0].as_py() or "")


def unknown_example(
    encoder: ColumnEncoder, ids: IdRows, split: Sequence[int], final: npt.NDArray[np.int32], unknown_id: int
) -> UnknownExample:
    """Look at the first unknown values of a split and at those of training.

    Parameters
    ----------
    final, unknown_id
        As `fae.ingest.numbering.final_ids.Numbering`.
    """
    values = _texts(encoder, _unknown_ids(encoder, ids, split, final, unknown_id))
    values = values.filter(pc.not_equal(values, ""))
    known = _known_values(encoder, final, unknown_id)
    first = next((part[0].as_py() for part in known if len(part)), None)
    if not len(values) or first is None:
        return UnknownExample(here=values[0].as_py() if len(values) else None, in_training=first)
    pairs: list[tuple[str, str]] = []
    if encoder.vocabulary is not None:
        pairs = same_but_for_form(values, _known_values(encoder, final, unknown_id))
    if not pairs:
        return UnknownExample(here=values[0].as_py(), in_training=first)
    here, there = pairs[0]
    return UnknownExample(
        here=here, in_training=there, forms=differing_forms(here, there), form_share=len(pairs) / len(values)
    )


def _texts(encoder: ColumnEncoder, ids: npt.NDArray[np.int32]) -> Any:
    if encoder.vocabulary is None:
        return pa.array([str(number) for number in ids[ids >= 0].tolist()], pa.string())
    return encoder.vocabulary.values(ids)


def _unknown_ids(
    encoder: ColumnEncoder, ids: IdRows, split: Sequence[int], final: npt.NDArray[np.int32], unknown_id: int
) -> npt.NDArray[np.int32]:
    """Distinct provisional ids of a split with the reserved id, in order of first appearance."""
    found: dict[int, None] = {}
    start, stop = split
    step = max(1, _MOST_ROWS // (16 * ids.shape[1]))
    for begin in range(start, min(stop, start + _MOST_ROWS), step):
        values = ids.read(begin, min(begin + step, stop))[:, encoder.slots].reshape(-1)
        values = values[values >= 0]
        unknown = final[np.minimum(values, len(final) - 2)] == unknown_id
        found.update(dict.fromkeys(values[unknown].tolist()))
        if len(found) >= _MOST_VALUES:
            break
    return np.array([*found][:_MOST_VALUES], np.int32)


def _known_values(encoder: ColumnEncoder, final: npt.NDArray[np.int32], unknown_id: int) -> Iterator[Any]:
    """Values with an id of their own, without the missing one."""
    num_values = len(final) - 2
    for start in range(0, min(num_values, _MOST_PARTS * _VALUES_AT_ONCE), _VALUES_AT_ONCE):
        stop = min(start + _VALUES_AT_ONCE, num_values)
        own = np.flatnonzero(final[start:stop] != unknown_id) + start
        values = _texts(encoder, own.astype(np.int32))
        yield values.filter(pc.not_equal(values, ""))
