"""Which ``[train] order`` to set: mixed batches where the host can stream, batches of one kind where it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fae.core.threads import num_threads
from fae.planning.budgets.budget_figures import BudgetFigures
from fae.planning.machine_constants import MachineConstants
from fae.planning.step_time import predict_steps

_GAIN = 0.10
"""Batches of one kind can cost accuracy: they are advised where they are faster by more than this."""
_FEW_CORES = 2


@dataclass(frozen=True, kw_only=True)
class OrderAdvice:
    """Which order to set, and why.

    Attributes
    ----------
    order
        As ``[train] order`` spells it.
    rates
        Predicted inputs/s of ``tiered`` with mixed batches and with batches of one kind.
    sentence
        For people.
    """

    order: str
    rates: dict[str, float]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"advised": self.order, "inputs_per_second": self.rates, "sentence": self.sentence}


def advise_order(figures: BudgetFigures, machine: MachineConstants, own: str) -> OrderAdvice:
    """Compare both orders at a budget.

    Parameters
    ----------
    own
        The recipe's order.
    """
    here, there = (predict_steps(work, machine)["tiered"] for work in (figures.work, figures.other_work))
    mixed, by_kind = (here, there) if figures.work.settings.mixed else (there, here)
    rates = {"shuffled": mixed.inputs_per_second, "interleaved": by_kind.inputs_per_second}
    gain = by_kind.inputs_per_second / mixed.inputs_per_second - 1
    if figures.work.cold_rows == 0 and figures.other_work.cold_rows == 0:
        return OrderAdvice(order="shuffled", rates=rates, sentence="Nothing is streamed: every order is as fast.")
    if machine.device == "cuda" and (gain > _GAIN or (machine.source == "measured" and num_threads() <= _FEW_CORES)):
        sentence = (
            f'Set [train] order = "interleaved": this host streams slowly, and batches of one kind are predicted to be '
            f"{100 * max(gain, 0):.0f} % faster than mixed ones. Compare the test AUC: they can cost some."
        )
        return OrderAdvice(order="interleaved", rates=rates, sentence=sentence)
    kept = "keep" if own == "shuffled" else "set"
    return OrderAdvice(
        order="shuffled", rates=rates,
        sentence=f'{kept.capitalize()} [train] order = "shuffled": mixed batches stream as fast, within '
        f"{100 * max(gain, 0):.0f} %, and cost no accuracy. On a host with two cores, interleaved is faster.",
    )  # fmt: skip
