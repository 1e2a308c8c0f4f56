"""Earlier faults of reading raw logs, put back by patching, for tests/campaigns/raw_logs.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _decimals_keep_their_scale() -> None:
    import fae.ingest.value_types.value_texts as module

    module._whole_decimals = lambda array, column, locate: array.cast("string")


def _short_floats_have_no_bound() -> None:
    import fae.ingest.value_types.value_texts as module

    module._EXACT.update({16: 2.0**53, 32: 2.0**53})


def _missing_words_are_values() -> None:
    import fae.ingest.provisional_ids as module

    original = module.as_text
    module.as_text = lambda array, column, locate, missing=(): original(array, column, locate)


def _swallowed_lines_are_taken() -> None:
    from fae.ingest.readers.record_blocks import RecordFile

    setattr(RecordFile, "_swallowed", lambda self, text, end, num_fields, is_input: False)  # noqa: B010


def _line_ends_in_quotes_are_cut() -> None:
    """The parser of the library sees blocks of its own, at whose ends it loses half of a CR LF in quotes."""
    import pyarrow.csv

    original = pyarrow.csv.ReadOptions

    def small_blocks(**options: Any) -> Any:
        return original(**{**options, "block_size": 96})

    pyarrow.csv.ReadOptions = small_blocks


def _encoded_numbers_are_cast() -> None:
    import fae.ingest.values as module

    module._only_digits = lambda values: True


def _labels_are_floats() -> None:
    import fae.ingest.dense_values as module

    original = module._meaning_of_labels

    def meaning_of_labels(config: Any) -> Callable[[str], int]:
        strict = original(config)

        def meaning(text: str) -> int:
            found = strict(text)
            if found >= 0 or (config is not None and (config.label_map or config.label_threshold is not None)):
                return found
            try:
                return {0.0: 0, 1.0: 1}.get(float(text), -1)
            except ValueError:
                return -1

        return meaning

    module._meaning_of_labels = meaning_of_labels


def _targets_of_links_decide_the_order() -> None:
    import fae.ingest.ingest as module

    original = module.find_sources

    def find_sources(*arguments: Any, **named: Any) -> Any:
        return sorted(original(*arguments, **named), key=lambda source: source.real)

    module.find_sources = find_sources


def _times_agree_with_dates() -> None:
    import fae.ingest.value_types.type_classes as module

    original = module.type_class

    def type_class(kind: Any) -> str:
        found = original(kind)
        return "numbers" if found in ("booleans", "dates", "times without a zone") else found

    module.type_class = type_class


def _padding_is_an_item() -> None:
    import dataclasses

    import fae.ingest.provisional_ids as module

    original = module.list_items
    module.list_items = lambda array, column, *others: original(
        array, dataclasses.replace(column, padding=None), *others
    )


FAULTS: dict[str, Callable[[], None]] = {
    "decimals keep their scale as text": _decimals_keep_their_scale,
    "float32 ids are not bounded": _short_floats_have_no_bound,
    "words of missing are ordinary values": _missing_words_are_values,
    "quotes that swallow lines are taken": _swallowed_lines_are_taken,
    "CR LF in quotes is cut at a block's end": _line_ends_in_quotes_are_cut,
    "encoded 0x1F is 31": _encoded_numbers_are_cast,
    "labels go through float()": _labels_are_floats,
    "targets of links decide the order": _targets_of_links_decide_the_order,
    "boolean and number, date and time are two values for one": _times_agree_with_dates,
    "padding is an item": _padding_is_an_item,
}
