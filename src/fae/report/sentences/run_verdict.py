"""The first line of a page: what was trained, how good it is, how fast, in how much memory, and whether FAE helped."""

from __future__ import annotations

from collections.abc import Sequence

from fae.core.units import format_bytes, format_count
from fae.report.paper_table import is_paper_table, paper_verdict
from fae.report.pictures.amounts import bytes_on_device, total_bytes, total_rows
from fae.report.records import RunRecord
from fae.report.sentences.noise import (
    auc_error_of,
    base_log_loss,
    best_places,
    differ,
    label_rate_of,
    rate_error_of,
)
from fae.report.shown_values import metric_text

_MODELS = {
    "dlrm": "DLRM", "tbsm": "TBSM", "deepfm": "DeepFM", "dcnv2": "DCN V2", "wide_deep": "Wide & Deep",
}  # fmt: skip
_RATE = ("train", "samples_per_second")
FITS_ANY_GPU = 4 * 2**30
"""Bytes of rows that leave half of the smallest card of today free: nobody needs a hot set for them."""
_UNKNOWN = "The record says too little for a verdict: it has neither a test nor a training."


def verdict_of(runs: Sequence[RunRecord]) -> str:
    """The verdict on a run, on a run beside one without FAE, or on several runs, as one sentence or two."""
    papers = [run for run in runs if is_paper_table(run)]
    if papers:
        others = [run for run in runs if not is_paper_table(run)]
        return " ".join([*([verdict_of(others)] if others else []), *map(paper_verdict, papers)])
    with_hot = [run for run in runs if run.has("hot")]
    others = [run for run in runs if not run.has("hot")]
    if len(runs) == 1:
        return _one_run(runs[0])
    if len(with_hot) == 1 and others:
        return _against_baseline(with_hot[0], others[0])
    return _several(runs)


def model_name(run: RunRecord) -> str:
    """The model as people write it."""
    name = run.text("recipe", "model", "name")
    return _MODELS.get(name, name) if name else "A model"


def _one_run(run: RunRecord) -> str:
    quality, speed = _quality(run), _speed(run)
    if not quality and not speed:
        return _UNKNOWN
    reaches = f" reaches {quality}" if quality else " trains"
    return f"{_trained(run)}{reaches}{',' * bool(quality and speed)}{f' {speed}' * bool(speed)}{_memory(run)}."


def _trained(run: RunRecord) -> str:
    """The subject of the sentence."""
    inputs, epochs = run.number("train", "num_inputs"), run.number("train", "epochs")
    if not inputs:
        return model_name(run)
    ranks = run.number("train", "ranks") or 1
    by = f" by {ranks:g} {'GPUs' if run.text('machine', 'gpu') else 'processes'}" if ranks > 1 else ""
    if epochs and epochs > 1:
        return f"{model_name(run)}, trained for {epochs:g} epochs on {format_count(inputs / epochs)} inputs{by},"
    return f"{model_name(run)}, trained on {format_count(inputs)} inputs{by},"


def _quality(run: RunRecord) -> str:
    """Test AUC and log loss beside those of the base rate."""
    auc, loss, rate = run.number("test", "auc"), run.number("test", "log_loss"), label_rate_of(run)
    parts, base = [], base_log_loss(rate)
    if auc is not None:
        error = auc_error_of(run)
        chance = "" if error is None or differ(auc, error, 0.5, 0.0) else ", within noise of guessing"
        before = run.number("parent", "test_before", "auc")
        earlier = "" if before is None else f"before: {metric_text(before)}; "
        parts.append(f"a test AUC of {metric_text(auc)} ({earlier}guessing: 0.5{chance})")
    if loss is not None:
        below = ""
        if base is not None and rate is not None:
            share = abs(1 - loss / base)
            side = "below" if loss < base else "above"
            beside = f"{100 * share:.0f} % {side}" if share >= 0.005 else "no better than"
            below = f", {beside} that of the base rate of {100 * rate:.1f} % ({metric_text(base)})"
        parts.append(f"a log loss of {metric_text(loss)}{below}")
    return " and ".join(parts)


def _speed(run: RunRecord) -> str:
    rate = run.number("train", "samples_per_second")
    if rate is None:
        return ""
    cores = run.number("machine", "cores")
    where = run.text("machine", "gpu") or (f"{cores:g} CPU cores" if cores and run.has("machine", "gpu") else None)
    return f"at {format_count(rate)} inputs/s" + (f" on {where}" if where else "")


def _memory(run: RunRecord) -> str:
    """How much GPU memory rows take, and whether FAE helped."""
    used, total, rows = bytes_on_device(run), total_bytes(run), total_rows(run)
    placement, hot = run.text("recipe", "train", "placement"), run.number("hot", "num_rows")
    size = "" if total is None else f" ({format_bytes(int(total))})"
    if hot is not None and rows and hot >= rows:
        return f"; FAE was not needed, as the budget holds every row of every table{size}"
    gpu = run.text("machine", "gpu")
    if placement == "spread" and not gpu:
        return "; FAE did not help, as ranks of CPUs have all rows in host memory under placement spread"
    if placement not in (None, "tiered", "paper", "spread"):
        return f"; FAE did not help, as placement {placement} makes no use of hot rows"
    if used is None or not total:
        return ""
    sizes = f"{format_bytes(int(used))} of {'GPU memory' if gpu else 'the fast tier'} for rows instead of {size[2:-1]}"
    if total <= FITS_ANY_GPU:
        return f"; it took {sizes}, but tables this small fit any GPU whole, so FAE was not needed"
    share = run.number("hot", "input_share")
    inputs = "" if share is None else f", and {100 * share:.1f} % of the inputs needed no other rows"
    if gpu:
        return f"; FAE {'helped' if used < total else 'saved nothing'}: it took {sizes}{inputs}"
    return f"; it took {sizes}{inputs}, but whether FAE helps needs a GPU to be seen"


def _against_baseline(run: RunRecord, plain: RunRecord) -> str:
    """A run beside one without hot rows, such as plain PyTorch."""
    quality, speed, name = _quality(run), _speed(run), _baseline_name(plain)
    if not quality or not speed:
        return _one_run(run)
    aucs, rates = ([one.number(*path) for one in (run, plain)] for path in (("test", "auc"), _RATE))
    beside = f" ({name}: not recorded)"
    if aucs[0] is not None and aucs[1] is not None:
        errors = [auc_error_of(one) for one in (run, plain)]
        same = metric_text(aucs[0]) == metric_text(aucs[1])
        noise = not differ(aucs[0], errors[0], aucs[1], errors[1])
        word = "like" if same else "within noise of" if noise else "above" if aucs[0] > aucs[1] else "below"
        losses = plain.number("test", "log_loss")
        theirs = metric_text(aucs[1]) + (f" and {metric_text(losses)}" if losses is not None else "")
        beside = f", {word} {name} ({theirs})"
    times = ""
    if rates[0] and rates[1]:
        same = not differ(rates[0], rate_error_of(run), rates[1], rate_error_of(plain))
        times = f", as fast as {name}" if same else f", {rates[0] / rates[1]:.1f} times the speed of {name}"
    return f"{_trained(run)} reaches {quality}{beside}, {speed}{times}{_memory(run)}."


def _baseline_name(plain: RunRecord) -> str:
    placement = plain.text("recipe", "train", "placement") or ""
    return "plain PyTorch" if placement.startswith("plain PyTorch") else plain.label


def _several(runs: Sequence[RunRecord]) -> str:
    """What tells some runs apart, and what does not."""
    aucs, rates = ([run.number(*path) for run in runs] for path in (("test", "auc"), _RATE))
    parts = []
    if None not in aucs:
        printed = [metric_text(auc) for auc in aucs if auc is not None]
        best = best_places(aucs, [auc_error_of(run) for run in runs], printed, 1)
        parts.append(
            f"{_winners(runs, best, printed)} test AUC"
            if best
            else f"the test AUC is the same within noise ({_span(printed)})"
        )
    if None not in rates:
        printed = [format_count(rate) for rate in rates if rate is not None]
        best = best_places(rates, [rate_error_of(run) for run in runs], printed, 1)
        parts.append(
            f"{_winners(runs, best, printed)} speed, in inputs/s"
            if best
            else f"no run is faster than the others beyond noise ({_span(printed)} inputs/s)"
        )
    if not parts:
        return f"These {len(runs)} records have neither a test AUC nor a rate in common to compare."
    return f"Of {len(runs)} runs: {'; '.join(parts)}."


def _winners(runs: Sequence[RunRecord], best: frozenset[int], printed: Sequence[str]) -> str:
    names = [f"{runs[place].label} ({printed[place]})" for place in sorted(best)]
    named = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{named} {'has' if len(names) == 1 else 'have'} the best"


def _span(printed: Sequence[str]) -> str:
    return printed[0] if len(set(printed)) == 1 else ", ".join(printed)
