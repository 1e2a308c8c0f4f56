"""Profiles of cards: names as people write them, sizes that fit the name, and predictions in a sensible order."""

from __future__ import annotations

import re

import pytest

from fae.core.errors import RecipeError
from fae.planning.cards import CARDS, card_constants, find_card
from fae.planning.step_time import predict_steps
from step_works import settings, work


@pytest.mark.parametrize("name", ["rtx4060ti", "RTX 4060 Ti", "rtx-4060-ti", "NVIDIA GeForce RTX 4060 Ti 16 GB"])
def test_names_are_found_as_people_write_them(name: str) -> None:
    assert find_card(name).name == "rtx4060ti"


@pytest.mark.parametrize("card", CARDS.values(), ids=lambda card: card.name)
def test_memory_is_what_the_title_says(card: object) -> None:
    gigabytes = int(re.search(r"(\d+) GB", card.title)[1])  # type: ignore[attr-defined, index]
    assert 0.9 < card.memory_bytes / (gigabytes * 2**30) <= 1.0  # type: ignore[attr-defined]
    assert card.bf16_rate >= card.fp32_rate  # type: ignore[attr-defined]


def test_an_unknown_card_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"--gpu 'rtx4095' is no card with a profile; did you mean 'rtx4090'\?"):
        find_card("rtx4095")
    with pytest.raises(RecipeError, match="known: a10, "):
        card_constants("banana", settings())


def test_constants_say_that_they_are_published() -> None:
    machine = card_constants("a10", settings())
    assert (machine.source, machine.device, machine.memory_bytes) == ("published", "cuda", 23028 * 2**20)
    assert machine.margin >= 0.3
    assert machine.memory_rate < 600e9
    faster = card_constants("a10", settings(precision="bf16"))
    assert faster.product_rate > machine.product_rate


def test_faster_cards_are_predicted_to_be_faster() -> None:
    large = settings(32768, precision="bf16")
    times = [
        predict_steps(work(20_000, unique_rows=40_000, of=large), card_constants(name, large))["device"].seconds
        for name in ("t4", "rtx3070", "a10", "rtx4090", "a100-80gb", "h100", "h200")
    ]
    assert times == sorted(times, reverse=True)
    assert times[0] > 5 * times[-1]
