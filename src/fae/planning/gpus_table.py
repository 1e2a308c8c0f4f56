"""The rows of a plan for several GPUs: values, lines for a terminal, and what the verdict says of one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fae.core.units import format_bytes, format_count
from fae.embedding.memory_plan import largest_budget
from fae.planning.budgets.budget_figures import BudgetFigures, BudgetPlanner
from fae.planning.cards import wire_constants
from fae.planning.gpus_memory import memory_of_gpu
from fae.planning.machine_constants import MachineConstants
from fae.planning.several_gpus import (
    GPUS_OF_HOST,
    GROUP_PLACEMENTS,
    needed_sizes,
    strong_groups,
    weak_groups,
)

Row = Mapping[str, Any]


def gpus_values(
    planner: BudgetPlanner, figures: BudgetFigures, machine: MachineConstants, gpu_memory: int | None
) -> dict[str, Any]:
    """``gpus`` of a plan.

    Parameters
    ----------
    figures
        The budget whose rows are hot.
    machine
        One GPU of them, and its host.
    gpu_memory
        Bytes of one; None where they are not known.
    """
    size, wire = figures.work.settings.batch_size, wire_constants(machine)
    others = [each for each in needed_sizes(size) if each != size]
    works = {size: figures.work, **planner.works_at(figures, others)}
    found: dict[str, Any] = {"budget_bytes": figures.budget, "wire": wire.to_json(), "weak": [], "strong": []}
    for placement in GROUP_PLACEMENTS:
        for scaling, groups in (("weak", weak_groups(works, size)), ("strong", strong_groups(works, size))):
            rows = [group.to_json(placement, machine, wire) for group in groups]
            for row, group in zip(rows, groups, strict=True):
                row["over_one"] = row["inputs_per_second"] / rows[0]["inputs_per_second"]
                if scaling == "weak":
                    needs = memory_of_gpu(placement, figures, group)
                    row["memory_bytes"], row["host_bytes"] = needs.device_rows + needs.device_beside, needs.on_host
                    row["fits"] = gpu_memory is None or needs.device_rows <= largest_budget(needs, gpu_memory)
            found[scaling] += rows
    return found


def with_gpus(plan: dict[str, Any], gpus: int | None) -> dict[str, Any]:
    """A plan whose verdict says how this many GPUs train; with None the same plan."""
    if gpus is None:
        return plan
    verdict = plan["verdict"]
    return {**plan, "verdict": {**verdict, "sentences": [*verdict["sentences"], _sentence(plan, gpus)]}}


def _sentence(plan: Mapping[str, Any], gpus: int) -> str:
    if plan["gpus"] is None:
        return f"--gpus {gpus} says nothing here: no GPU is in this plan; name one with --gpu."
    wanted = (plan["verdict"]["placement"], plan["recipe"]["placement"], "tiered")
    placement = next(each for each in wanted if each in GROUP_PLACEMENTS)
    (row,) = [row for row in _of(plan["gpus"]["weak"], placement) if (row["gpus"], row["hosts"]) == (gpus, 1)]
    strong = [each for each in _of(plan["gpus"]["strong"], placement) if each["gpus"] == gpus]
    same = f"; {strong[0]['over_one']:.2f} times with one batch of the recipe for all of them" if strong else ""
    fits = "" if row["fits"] else ", more than it has"
    return (
        f"{_gpus(gpus)}, {placement}, {_batch(row['batch_size'])} on each: predicted {row['inputs_per_second']:,.0f} "
        f"inputs/s, {row['over_one']:.2f} times one{same}; {format_bytes(row['memory_bytes'])} on each{fits}; each "
        f"receives {row['received_bytes_per_input']:,.0f} bytes an input." + _of_spread(plan["gpus"]["weak"], row)
    )


def _of_spread(weak: Sequence[Row], row: Row) -> str:
    """That all rows fit the GPUs together and not each of them; empty where that is not so, or is said already."""
    of_gpus = {each["placement"]: each for each in weak if (each["gpus"], each["hosts"]) == (row["gpus"], 1)}
    spread, device = of_gpus.get("spread"), of_gpus["device"]
    if row["gpus"] == 1 or row["placement"] == "spread" or device["fits"] or spread is None or not spread["fits"]:
        return ""
    return (
        f" All rows fit {_gpus(row['gpus'])} together, with placement = spread: {format_bytes(spread['memory_bytes'])} "
        f"on each, predicted {spread['inputs_per_second']:,.0f} inputs/s."
    )


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"


def _batch(size: int) -> str:
    return f"a batch of {format_count(size)}"


def _of(rows: Sequence[Row], placement: str) -> list[Row]:
    return [row for row in rows if row["placement"] == placement]


def gpus_table(gpus: Mapping[str, Any] | None, rate: Callable[[float], str]) -> tuple[list[list[str]], str]:
    """Rows of text, the first one their names, and what they mean; none without GPUs.

    Parameters
    ----------
    gpus
        ``gpus`` of a plan.
    rate
        How it writes inputs/s.
    """
    if gpus is None:
        return [], ""
    head = ["GPUs", "a step", "on each", "wire", "network", "step", "inputs/s", "over 1", "shared"]
    shared = {(row["placement"], row["gpus"]): row["over_one"] for row in gpus["strong"]}
    by_placement = {
        placement: [_cells(row, shared, rate) for row in _of(gpus["weak"], placement)] for placement in GROUP_PLACEMENTS
    }
    device, tiered, spread = by_placement.values()
    is_same = [row[1:] for row in device] == [row[1:] for row in tiered]
    rows = device if is_same else device + tiered + spread
    wire, same = gpus["wire"], "; tiered and spread do the same, no row is cold" * is_same
    over = f"{'NVLink' if wire['is_nvlink'] else 'the bus'}, {wire['wire_rate'] / 1e9:.0f} GB/s each way"
    size = next(row["batch_size"] for row in gpus["weak"])
    return [head, *rows], (
        f"predicted at {format_bytes(gpus['budget_bytes'])}{same}; "
        f"{_batch(size)} on each GPU (weak scaling), as many times one GPU as over 1 says; shared: the same where all "
        f"GPUs share {_batch(size)} (strong scaling); wire: bytes an input that a GPU receives over {over}; network: "
        f"those that a host of {GPUS_OF_HOST} receives of the other one; + does not fit"
    )


def _cells(row: Row, shared: Mapping[tuple[str, int], float], rate: Callable[[float], str]) -> list[str]:
    network, milliseconds = row["network_gigabits"], 1000 * row["seconds"]
    same = None if network else shared.get((row["placement"], row["gpus"]))
    return [
        f"{row['placement']} " + (f"{row['hosts']} x {GPUS_OF_HOST}, {network} Gb/s" if network else f"{row['gpus']}"),
        format_count(row["global_batch_size"]),
        format_bytes(row["memory_bytes"]) + ("" if row["fits"] else "+"),
        f"{row['received_bytes_per_input']:,.0f} B",
        f"{row['network_bytes_per_input']:,.0f} B" if network else "",
        f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:,.0f} ms",
        rate(row["inputs_per_second"]),
        f"{row['over_one']:.2f}",
        "" if same is None else f"{same:.2f}",
    ]
