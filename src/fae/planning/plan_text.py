"""A plan as lines for a terminal of 100 columns: tables of rows, of budgets and of memory, and the verdict."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from fae.core.optimizers import OPTIMIZERS
from fae.core.units import format_bytes, format_count
from fae.planning.gpus_table import gpus_table
from fae.planning.stages.stage_lines import stage_table

WIDTH = 100
_MOST_TABLES = 12
_SHORT = {"rowwise_adagrad": "rowwise"}


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """The lines of a plan, none longer than `WIDTH`.

    Parameters
    ----------
    plan
        What `fae.planning.plan.plan` returns.
    """
    return [
        *_log_lines(plan),
        "",
        *_table_lines(plan),
        "",
        *_budget_lines(plan),
        "",
        *_memory_lines(plan),
        "",
        *_gpus_lines(plan),
        *_stage_lines(plan),
        *_verdict_lines(plan),
    ]


def _log_lines(plan: Mapping[str, Any]) -> list[str]:
    log, recipe = plan["log"], plan["recipe"]
    splits = ", ".join(f"{name} {format_count(count)}" for name, count in log["splits"].items())
    return _wrapped(plan["read"]["note"]) + _wrapped(
        f"{_count(log['num_inputs'])} inputs ({splits}), {log['num_columns']} categorical and "
        f"{log['num_dense']} dense columns; batches of {format_count(recipe['batch_size'])}, {recipe['optimizer']}"
    )


def _table_lines(plan: Mapping[str, Any]) -> list[str]:
    tables = sorted(plan["tables"], key=lambda table: -table["bytes"]["sgd"])
    shown, others = tables[:_MOST_TABLES], tables[_MOST_TABLES:]
    rows = [_table_row(table["name"], [table]) for table in shown]
    if others:
        rows.append(_table_row(f"{len(others)} smaller tables", others))
    rows.append(_table_row("all", tables))
    used = plan["recipe"]["optimizer"]
    head = ["table", "rows", "width", *(_SHORT.get(name, name) + ("*" if name == used else "") for name in OPTIMIZERS)]
    return [*_aligned([head, *rows]), "  bytes of rows with the optimizer's state; * the recipe's"]


def _table_row(name: str, tables: Sequence[Mapping[str, Any]]) -> list[str]:
    dims = sorted({table["embedding_dim"] for table in tables})
    rows = {end: sum(table["num_rows"][end] for table in tables) for end in ("value", "low", "high")}
    return [
        textwrap.shorten(name, 28, placeholder="...") if len(name) > 28 else name,
        _count(rows),
        "-".join(map(str, dims if len(dims) < 3 else [dims[0], dims[-1]])),
        *(format_bytes(sum(table["bytes"][optimizer] for table in tables)) for optimizer in OPTIMIZERS),
    ]


def _count(value: Mapping[str, Any]) -> str:
    exact = value["low"] == value["high"]
    return format_count(value["value"]) if exact else f"~{format_count(value['value'])}"


def _bytes_in_words(value: Mapping[str, Any]) -> str:
    if value["low"] == value["high"]:
        return format_bytes(value["value"])
    return f"about {format_bytes(value['value'])} ({format_bytes(value['low'])} to {format_bytes(value['high'])})"


def _budget_lines(plan: Mapping[str, Any]) -> list[str]:
    budgets = plan["budgets"]
    placements = [
        name for name in ("tiered", "hybrid", "device", "cpu") if any(name in each["steps"] for each in budgets)
    ]
    head = ["budget", "hot rows", "lookups", "hot inputs", "ring", "on GPU", *placements, ""]
    rows = [[_size(each["budget_bytes"]), *_budget_row(each, placements)] for each in budgets]
    machine, gpu = plan["machine"], plan["gpu"]
    of_card = f"published ceilings and a host of {gpu['host_cores']} cores, not measured"
    how = "measured here" if machine["source"] == "measured" else of_card
    memory = f", {format_bytes(gpu['memory_bytes'])} of memory" if gpu["memory_bytes"] else ""
    return [
        *_aligned([head, *rows]),
        *_wrapped(
            f"predicted inputs/s on {gpu['name']}{memory} ({how}; within {100 * machine['margin']:.0f} %); "
            "lookups: the share that hot rows serve; hot inputs: they need no other row; "
            "+ does not fit the GPU; > advised; * the recipe's budget"
        ),
    ]


def _budget_row(each: Mapping[str, Any], placements: Sequence[str]) -> list[str]:
    rates = []
    for name in placements:
        step = each["steps"].get(name)
        fits = each["fits"].get(name, True)
        rates.append("" if step is None else _rate(step["inputs_per_second"]) + ("" if fits else "+"))
    ring = format_bytes(each["staging_bytes"]) if each["staging_bytes"] else "none"
    mark = (">" if each["is_advised"] else "") + ("*" if each["is_recipes"] else "")
    return [
        format_count(each["num_hot_rows"]),
        _percent(each["coverage"]),
        _percent(each["input_share"]),
        ring,
        format_bytes(each["memory"]["on_gpu"]["tiered"]["gpu_bytes"]),
        *rates,
        mark,
    ]


def _memory_lines(plan: Mapping[str, Any]) -> list[str]:
    each = _shown_budget(plan)
    where = "on_gpu" if plan["gpu"]["device"] == "cuda" else "on_cpu"
    head = ["at " + _size(each["budget_bytes"]), "rows, state, ring", "batches", "model, work", "GPU", "host"]
    rows = []
    for kind in dict.fromkeys(("on_gpu", where)):
        for name, needs in each["memory"][kind].items():
            sizes = (needs["device_rows"], needs["device_inputs"], needs["device_work"])
            total = format_bytes(needs["gpu_bytes"]) if kind == "on_gpu" else "-"
            label = name if kind == "on_gpu" else f"{name} on the CPU"
            rows.append([label, *map(format_bytes, sizes), total, format_bytes(needs["host_bytes"])])
    disk, exact = plan["disk"], each["memory"]["is_exact"]
    parts = ", ".join(
        f"{name} {format_bytes(disk[name])}" for name in ("log", "profile", "hot_set", "packed", "checkpoint")
    )
    told = "to the byte" if exact else "estimated"
    return [
        *_aligned([head, *rows]),
        *_wrapped(
            f"memory {told}; on the disk {format_bytes(disk['total'])}: {parts}; "
            f"up to {format_bytes(disk['most'])} while a checkpoint is replaced"
        ),
    ]


def _gpus_lines(plan: Mapping[str, Any]) -> list[str]:
    rows, sentence = gpus_table(plan["gpus"], _rate)
    return [*_aligned(rows), *_wrapped(sentence), ""] if rows else []


def _stage_lines(plan: Mapping[str, Any]) -> list[str]:
    if plan["stages"] is None:
        return []
    rows, sentences = stage_table(plan["stages"])
    return [*_aligned(rows), *(line for each in sentences for line in _wrapped(each)), ""]


def _verdict_lines(plan: Mapping[str, Any]) -> list[str]:
    smallest = plan["smallest_budget"]
    lines = _wrapped(
        f"smallest budget that trains: {format_bytes(smallest['bytes'])}, {format_bytes(smallest['staging_bytes'])} of "
        f"it staging ring; all rows: {_bytes_in_words(plan['all_rows'])}"
    )
    verdict = plan["verdict"]
    order = (plan["order"]["sentence"],) if verdict["placement"] == "tiered" else ()
    for sentence in (*verdict["sentences"], *_step_sentences(plan), *order):
        lines += _wrapped(sentence)
    return lines


def _step_sentences(plan: Mapping[str, Any]) -> list[str]:
    """How long a step takes at the budget that is shown."""
    each = _shown_budget(plan)
    steps = ", ".join(f"{1000 * step['seconds']:.3g} ms with {name}" for name, step in each["steps"].items())
    found = [
        f"A step of {format_count(plan['recipe']['batch_size'])} inputs at {_size(each['budget_bytes'])}: {steps}."
    ]
    if plan["recipe"]["reproducible"]:
        found.append(
            "These are times of a training without [train] reproducible, whose 8 slices a batch take longer: 2.35 "
            "times a step on one H200 and 1.56 times on two (batches of 32,768 inputs a GPU, DLRM)."
        )
    return found


def _shown_budget(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """The budget that is advised, else the recipe's, else the largest."""
    budgets: Sequence[Mapping[str, Any]] = plan["budgets"]
    for mark in ("is_advised", "is_recipes"):
        for each in budgets:
            if each[mark]:
                return each
    return budgets[-1]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: the first one left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([f"  {first}", *others]).rstrip())
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - 2, initial_indent="  ", subsequent_indent="    ")


def _percent(share: Mapping[str, float]) -> str:
    value, low, high = (100 * share[end] for end in ("value", "low", "high"))
    if f"{low:.1f}" == f"{high:.1f}":
        return f"{value:.1f} %"
    if high - low < 2:
        return f"{value:.1f} ({low:.1f}-{high:.1f}) %"
    return f"{value:.1f} ({math.floor(low)}-{math.ceil(high)}) %"


def _rate(rate: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g}{unit}" if rate < 100 * size else f"{rate / size:.0f}{unit}"
    return f"{rate:.3g}"


def _size(num_bytes: int) -> str:
    return format_bytes(num_bytes).replace(".0 ", " ")
