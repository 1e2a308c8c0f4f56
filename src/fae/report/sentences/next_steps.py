"""What to try next: rules on memory and columns, and the list of all rules; each names its reason and a command.

A rule looks at one thing and says nothing where the record does not know it. `RULES` is in order of weight; the page
shows the first `MOST_STEPS` that apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fae.core.units import format_bytes, format_count
from fae.report.pictures.amounts import total_bytes, total_rows
from fae.report.records import RunRecord, as_number
from fae.report.sentences.commands import NextStep, again
from fae.report.sentences.run_verdict import FITS_ANY_GPU
from fae.report.sentences.training_steps import (
    a_single_column_is_as_good_step,
    more_epochs_step,
    no_better_than_the_base_rate_step,
    no_validation_step,
    order_of_batches_step,
    validation_turned_step,
)

MOST_STEPS = 5
_STEP_WORTH = 0.05
"""Hot-input share that a doubled budget must add to be worth it."""
_ALL = 0.9995
_ANY_WIDTHS = ("dlrm", "dcnv2", "wide_deep")
"""Models whose tables may differ in width."""
_MANY_UNKNOWN, _MANY_ONCE = 0.1, 0.5


def next_steps(run: RunRecord) -> list[NextStep]:
    """The most important things to try, at most `MOST_STEPS`; none for a record without a hot set."""
    if not run.has("hot"):
        return []
    found = [step for rule in RULES if (step := rule(run)) is not None]
    # Two reasons for one command: the weightier one is told.
    return list({step.command: step for step in reversed(found)}.values())[::-1][:MOST_STEPS]


def _rows_fit_anyway(run: RunRecord) -> NextStep | None:
    total, gpu = total_bytes(run), run.text("machine", "gpu")
    if not gpu or total is None or run.text("recipe", "train", "placement") not in ("tiered", "paper", None):
        return None
    whole = _every_row_is_hot(run)
    if not whole and total > FITS_ANY_GPU:
        return None
    return NextStep(
        title="Keep every row on the GPU",
        why=f"all rows take {format_bytes(int(total))}, which {'the budget holds' if whole else 'any GPU holds'}; "
        "nothing then has to be streamed",
        command=again(run, "train.placement", "device", name="device"),
    )


def _every_row_is_hot(run: RunRecord) -> bool:
    hot, rows = run.number("hot", "num_rows"), total_rows(run)
    return hot is not None and rows is not None and hot >= rows


def _budget_knee(run: RunRecord) -> NextStep | None:
    """The budget up to which doubling still pays, or a smaller one that does as well."""
    if run.text("recipe", "train", "placement") not in ("tiered", "paper", None):
        return None
    chosen = run.number("hot", "budget_bytes")
    points = sorted(
        (budget, share)
        for point in run.items("hot", "budgets", "points")
        if (budget := as_number(point.get("budget_bytes"))) is not None
        and (share := as_number(point.get("input_share"))) is not None
    )
    now = next((share for budget, share in points if budget == chosen), None)
    if now is None and _every_row_is_hot(run):
        now = 1.0
    if not chosen or now is None:
        return None
    larger = [(chosen, now), *((budget, share) for budget, share in points if budget > chosen)]
    knee = 0
    while knee + 1 < len(larger) and larger[knee + 1][1] - larger[knee][1] >= _STEP_WORTH:
        knee += 1
    if knee:
        budget, share = larger[knee]
        return NextStep(
            title=f"Give it {format_bytes(int(budget))}",
            why=f"hot rows would then serve {100 * share:.0f} % of the inputs whole, up from {100 * now:.0f} %"
            + ("; beyond it a doubled budget adds less than 5 points" if share < _ALL else ""),
            command=again(run, "--budget", _size(budget), name=_size(budget)),
        )
    smaller = [(budget, share) for budget, share in points if budget <= chosen / 2 and share >= now - 0.01]
    if not smaller:
        return None
    budget, share = smaller[0]
    return NextStep(
        title=f"{format_bytes(int(budget))} would do",
        why=f"hot rows would still serve {100 * share:.1f} % of the inputs whole, now {100 * now:.1f} %",
        command=again(run, "--budget", _size(budget), name=_size(budget)),
    )


def _size(budget: float) -> str:
    """A size that the command line takes and that is the budget to the byte."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if budget >= unit and budget % unit == 0:
            return f"{budget / unit:.0f}{name}"
    return f"{budget:.0f}"


def _key_column(run: RunRecord) -> NextStep | None:
    """A recipe without columns that say nothing of other inputs."""
    listed = run.get("recipe", "log", "categorical")
    odd = [str(name) for name, facts in run.table("log", "value_facts").items()
           if isinstance(facts, dict) and facts.get("looks_like") in ("key", "timestamp")]  # fmt: skip
    if not odd or not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        return None
    kept = [name for name in listed if name not in odd]
    if not kept or len(kept) == len(listed):
        return None
    value = "[" + ", ".join(f'"{name}"' for name in kept) + "]"
    kind = "keys or points in time" if len(odd) > 1 else "a key or points in time"
    return NextStep(
        title=f"Leave out {', '.join(odd)}",
        why=f"nearly every value is new: {kind}, whose rows take memory and say nothing of other inputs",
        command=again(run, "log.categorical", value, name="fewer_columns"),
    )


def _one_column_dominates(run: RunRecord) -> NextStep | None:
    """Narrower rows for the table that causes most cold lookups."""
    share, width = run.number("hot", "input_share"), run.number("recipe", "model", "embedding_dim")
    accesses = {str(one.get("name")): as_number(one.get("accesses")) for one in run.items("tables")}
    cold = {}
    for table in run.items("hot", "tables"):
        served, count = as_number(table.get("coverage")), accesses.get(str(table.get("name")))
        if served is not None and count:
            cold[str(table.get("name"))] = (1 - served) * count
    everything = sum(cold.values())
    if len(cold) < 3 or everything <= 0 or share is None or share > 0.9 or not width or width < 8:
        return None
    name = max(cold, key=lambda one: cold[one])
    if cold[name] < 0.5 * everything or run.text("recipe", "model", "name") not in _ANY_WIDTHS:
        return None
    return NextStep(
        title=f"Make the rows of {name} narrower",
        why=f"{name} alone causes {100 * cold[name] / everything:.0f} % of the lookups of cold rows; rows of half the "
        "width take half the memory, so twice as many of them are hot",
        command=again(run, f"model.embedding_dims.{name}", f"{width // 2:g}", name="narrower"),
    )


def _unknown_ids(run: RunRecord) -> NextStep | None:
    """A trained row for values that are new, where many of them are."""
    if run.number("recipe", "log", "min_frequency") != 1:
        return None
    shares = {str(name): value for name, found in run.table("log", "unknown_share", "test").items()
              if (value := as_number(found)) is not None}  # fmt: skip
    most = max(shares, key=lambda name: shares[name], default=None)
    if most is None or shares[most] < _MANY_UNKNOWN:
        return None
    return NextStep(
        title="Give unknown ids a row that is trained",
        why=f"{100 * shares[most]:.0f} % of the test lookups of {most} are of values that training never saw; with "
        "min_frequency 2 they share a row with the values that it saw once",
        command=again(run, "log.min_frequency", "2", name="min_frequency_2"),
    )


def _seen_once(run: RunRecord) -> NextStep | None:
    if run.number("recipe", "log", "min_frequency") != 1:
        return None
    once = distinct = 0.0
    for facts in run.table("log", "value_facts").values():
        if isinstance(facts, dict) and facts.get("looks_like") is None:
            once, distinct = (
                once + (as_number(facts.get("seen_once")) or 0),
                distinct + (as_number(facts.get("distinct")) or 0),
            )
    if not distinct or once / distinct < _MANY_ONCE:
        return None
    return NextStep(
        title="Drop the rows of values that occur once",
        why=f"{format_count(once)} of {format_count(distinct)} values occur in a single training input; together they "
        "can share a row a table",
        command=again(run, "log.min_frequency", "2", name="min_frequency_2"),
    )


RULES: Sequence[Callable[[RunRecord], NextStep | None]] = (
    validation_turned_step,
    no_better_than_the_base_rate_step,
    _key_column,
    a_single_column_is_as_good_step,
    _rows_fit_anyway,
    _budget_knee,
    order_of_batches_step,
    more_epochs_step,
    _unknown_ids,
    _seen_once,
    _one_column_dominates,
    no_validation_step,
)
"""In order of weight."""
