"""The verdict of a plan in plain words: which budget and why, or why FAE is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fae.core.units import format_bytes
from fae.embedding.memory_plan import SPARE_BYTES, largest_budget
from fae.planning.budgets.budget_figures import BudgetFigures
from fae.planning.step_time import StepTime

Answer = Literal["use a budget", "all rows fit", "skew too flat", "dense part dominates", "too small", "no GPU"]
KNEE = 0.03
"""More memory is not worth it where it makes steps less than this share faster."""
_SHARE_KNEE = 0.02
"""The same where no times are known: hot inputs that it adds."""
_FLAT = 1.5
"""Skew is flat where hot rows serve less than this many times their share of the rows."""

Times = dict[str, StepTime]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do.

    Attributes
    ----------
    answer
        In a word or three.
    budget
        Which budget to give, in bytes; None where none trains or none is needed.
    placement
        Which ``[train] placement`` to use; None where nothing trains.
    sentences
        The answer and its reasons, for people.
    """

    answer: Answer
    budget: int | None
    placement: str | None
    sentences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "answer": self.answer,
            "needs_fae": self.answer == "use a budget",
            "budget_bytes": self.budget,
            "placement": self.placement,
            "sentences": list(self.sentences),
        }


def fits_gpu(figures: BudgetFigures, placement: str, gpu_memory: int | None) -> bool:
    """Whether a placement fits a GPU of this memory; without one, everything does."""
    if gpu_memory is None:
        return True
    needs = figures.on_gpu[placement]
    return needs.device_rows <= largest_budget(needs, gpu_memory)


def decide(
    budgets: Sequence[BudgetFigures], times: Sequence[Times], *, gpu_memory: int | None, on_gpu: bool, all_rows: int
) -> Verdict:
    """Decide.

    Parameters
    ----------
    budgets, times
        What each budget buys, ascending, and the predicted steps of each; no times where no machine is known.
    gpu_memory
        Bytes of the GPU; None where no GPU is named and none is here.
    all_rows
        Bytes of all rows with their state.
    """
    last = budgets[-1]
    if not on_gpu:
        return _without_gpu(budgets, times, all_rows)
    if fits_gpu(last, "device", gpu_memory) and gpu_memory is not None:
        needs = last.on_gpu["device"]
        taken = needs.device_rows + needs.device_beside
        return Verdict(
            answer="all rows fit", budget=None, placement="device",
            sentences=(
                f"You do not need FAE: all rows with their state take {format_bytes(all_rows)}, and with everything "
                f"beside them {format_bytes(taken)} of the GPU's {format_bytes(gpu_memory)}.",
                f'Set [train] placement = "device"; a budget of {format_bytes(all_rows)} is the same.',
            ),
        )  # fmt: skip
    fitting = [index for index, each in enumerate(budgets) if fits_gpu(each, "tiered", gpu_memory)]
    if not fitting:
        return _too_small(budgets[0], gpu_memory or 0)
    if not times:
        return _by_share(budgets, fitting, gpu_memory)
    return _by_time(budgets, times, fitting, gpu_memory)


def _by_time(
    budgets: Sequence[BudgetFigures], times: Sequence[Times], fitting: Sequence[int], gpu_memory: int | None
) -> Verdict:
    seconds = {index: times[index]["tiered"].seconds / budgets[index].work.inputs_per_batch for index in fitting}
    fastest = min(seconds.values())
    chosen = next(index for index in fitting if seconds[index] <= (1 + KNEE) * fastest)
    figures, time = budgets[chosen], times[chosen]["tiered"]
    hybrid = times[chosen].get("hybrid")
    why = _knee_in_words(budgets, times, fitting, chosen)
    # Tiers that are not faster by more than the knee are not worth their set-up.
    if hybrid is not None and (1 + KNEE) * hybrid.inputs_per_second >= time.inputs_per_second:
        if _is_flat(budgets[fitting[-1]]):
            return Verdict(
                answer="skew too flat", budget=None, placement="hybrid",
                sentences=(
                    f"You do not need FAE: the skew is too flat. The largest budget that fits keeps "
                    f"{_percent(_row_share(budgets[fitting[-1]]))} of the rows on the GPU and serves only "
                    f"{_percent(budgets[fitting[-1]].coverage.value)} of the lookups.",
                    f'[train] placement = "hybrid", rows on the CPU, is predicted to train {_rate(hybrid)}, tiers '
                    f"{_rate(time)}.",
                ),
            )  # fmt: skip
        if "dense" in hybrid.bound_by:
            return Verdict(
                answer="dense part dominates", budget=None, placement="hybrid",
                sentences=(
                    f"You do not need FAE: the dense part dominates, {_percent(_dense_share(hybrid))} of a step with "
                    "all rows on the CPU.",
                    f'[train] placement = "hybrid" is predicted to reach {_rate(hybrid)}, tiers {_rate(time)}.',
                ),
            )  # fmt: skip
        if hybrid.inputs_per_second > time.inputs_per_second:
            why = (*why, f"Rows on the CPU (placement hybrid) are predicted to be faster still: {_rate(hybrid)}.")
    return Verdict(
        answer="use a budget", budget=figures.budget, placement="tiered", sentences=(*_advice(figures), *why)
    )


def _knee_in_words(
    budgets: Sequence[BudgetFigures], times: Sequence[Times], fitting: Sequence[int], chosen: int
) -> tuple[str, ...]:
    time, largest = times[chosen]["tiered"], fitting[-1]
    lines = [f"It is predicted to train {_rate(time)}, bound by {time.bound_by}."]
    if largest != chosen:
        other = times[largest]["tiered"]
        gain = other.inputs_per_second / time.inputs_per_second - 1
        lines.append(
            f"More memory buys little: {format_bytes(budgets[largest].budget)} would be {_percent(max(0.0, gain))} "
            "faster."
        )
    if chosen != fitting[0]:
        below = fitting[fitting.index(chosen) - 1]
        loss = 1 - times[below]["tiered"].inputs_per_second / time.inputs_per_second
        if loss > 0:
            lines.append(f"Less costs: {format_bytes(budgets[below].budget)} would be {_percent(loss)} slower.")
    return tuple(lines)


def _by_share(budgets: Sequence[BudgetFigures], fitting: Sequence[int], gpu_memory: int | None) -> Verdict:
    best = max(budgets[index].input_share.value for index in fitting)
    chosen = next(index for index in fitting if budgets[index].input_share.value >= best - _SHARE_KNEE)
    figures = budgets[chosen]
    lines = [*_advice(figures)]
    if chosen != fitting[-1]:
        more = budgets[fitting[-1]]
        lines.append(
            f"More memory buys little: {format_bytes(more.budget)} would make {_percent(more.input_share.value)} hot."
        )
    if gpu_memory is None:
        lines.append("No GPU is here and none is named: --gpu NAME or --gpu-memory SIZE say what fits, and times.")
    return Verdict(answer="use a budget", budget=figures.budget, placement="tiered", sentences=tuple(lines))


def _advice(figures: BudgetFigures) -> tuple[str, ...]:
    return (
        f"Give it a budget of {format_bytes(figures.budget)}: {_percent(_row_share(figures))} of the rows are hot and "
        f"serve {_percent(figures.coverage.value)} of the lookups, and {_percent(figures.input_share.value)} of the "
        "inputs need no other row.",
    )


def _too_small(smallest: BudgetFigures, gpu_memory: int) -> Verdict:
    needs = smallest.on_gpu["tiered"]
    taken = needs.device_rows + needs.device_beside + SPARE_BYTES
    return Verdict(
        answer="too small", budget=None, placement=None,
        sentences=(
            f"A GPU with {format_bytes(gpu_memory)} is too small: the smallest budget that trains, "
            f"{format_bytes(smallest.budget)}, takes {format_bytes(taken)} with the model, batches on their way and "
            f"{format_bytes(SPARE_BYTES)} to work with.",
            "Choose a smaller [train] batch_size or [model], or a GPU with more memory.",
        ),
    )  # fmt: skip


def _without_gpu(budgets: Sequence[BudgetFigures], times: Sequence[Times], all_rows: int) -> Verdict:
    lines = [
        f"Without a GPU all rows ({format_bytes(all_rows)} with their state) are in host memory under every placement, "
        "so a budget buys nothing."
    ]
    if times and "cpu" in times[-1]:
        lines.append(f'[train] placement = "cpu" is predicted to train {_rate(times[-1]["cpu"])}.')
    needs = budgets[-1].on_gpu["device"]
    whole = -(-needs.device_rows // 2**20) * 2**20 + needs.device_beside + SPARE_BYTES  # `largest_budget` is whole MiB
    with_gpu = _by_share(budgets, range(len(budgets)), None)
    lines.append(f"A GPU with {format_bytes(whole)} of memory holds all rows, and you do not need FAE.")
    first, *others = with_gpu.sentences
    if with_gpu.budget != budgets[-1].budget:
        lines.append("With a smaller GPU: " + first)
    lines += others
    return Verdict(answer="no GPU", budget=with_gpu.budget, placement="cpu", sentences=tuple(lines))


def _is_flat(figures: BudgetFigures) -> bool:
    share = _row_share(figures)
    # Also where a budget has room for no hot row at all.
    return share < 1 and figures.coverage.value <= _FLAT * share


def _row_share(figures: BudgetFigures) -> float:
    rows = sum(feature.num_embeddings for feature in figures.hot_set.layout.features)
    return figures.num_hot / max(1, rows)


def _dense_share(time: StepTime) -> float:
    return sum(seconds for part, seconds in time.parts.items() if "dense" in part) / time.seconds


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rate(time: StepTime) -> str:
    low, high = time.range
    return f"{time.inputs_per_second:,.0f} inputs/s ({low:,.0f} to {high:,.0f})"
