"""How good the scores of a run are beyond one number: calibration, single columns beside it, kinds of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fae.core.units import format_count
from fae.report.pictures.page_cards import Bar, BarPart, PageCard
from fae.report.pictures.svg import Axis, Plot, percent
from fae.report.records import RunRecord, as_number
from fae.report.sentences.noise import NUM_ERRORS, auc_error, auc_error_of, differ, share_error
from fae.report.shown_values import Shown, metric_text, show_count, show_metric, show_share

_MOST_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class ScoreDetails:
    """What the page says of the test scores of a run.

    Attributes
    ----------
    parts
        ``(name, inputs, share, AUC, log loss, label rate)`` of kinds of inputs; empty where the record has none.
    group
        AUC within groups in a sentence; empty where the run has no ``group_by``.
    """

    calibration: PageCard
    context: PageCard
    parts: Sequence[tuple[str, Shown, Shown, Shown, Shown, Shown]]
    group: str


def read_scores(run: RunRecord) -> ScoreDetails | None:
    """The details, or None where the record has none of them, as older ones do."""
    if not any(run.table("test", name) for name in ("calibration", "context", "unknown_ids", "group_auc")):
        return None
    return ScoreDetails(
        calibration=calibration_card(run), context=context_card(run), parts=_parts(run), group=_group(run)
    )


def calibration_card(run: RunRecord) -> PageCard:
    """Label rate against mean prediction, a dot a bin, beside the line on which both are equal."""
    title = "Do probabilities come true?"
    bins = [
        (score, rate, as_number(each.get("num_inputs")))
        for each in run.items("test", "calibration", "bins")
        if (score := as_number(each.get("mean_prediction"))) is not None and 0 <= score <= 1
        and (rate := as_number(each.get("label_rate"))) is not None and 0 <= rate <= 1
    ]  # fmt: skip
    if not bins:
        return PageCard(title=title)
    high = min(1.0, 1.08 * max(max(score, rate) for score, rate, _ in bins) or 0.1)
    plot = Plot(
        label="label rate against mean prediction, a tenth of the inputs a dot",
        x=Axis(low=0.0, high=high, label="mean prediction", form=percent),
        y=Axis(low=0.0, high=high, label="label rate", form=percent),
    )
    plot.line([(0.0, 0.0), (high, high)], "others", tip="predictions that come true")
    for score, rate, count in bins:
        error = share_error(rate, count)
        if error:
            span = [(score, max(0.0, rate - NUM_ERRORS * error)), (score, min(high, rate + NUM_ERRORS * error))]
            plot.line(span, "s0 raw")
    plot.line([(score, rate) for score, rate, _ in bins], "s0")
    for score, rate, count in bins:
        told = f" of {format_count(count)} inputs" if count else ""
        plot.dot(score, rate, "s0", tip=f"predicted {100 * score:.1f} %, came true {100 * rate:.1f} %{told}")
    ratio, error = run.number("test", "calibration", "ratio"), run.number("test", "calibration", "expected_error")
    words = []
    if ratio is not None:
        words.append(f"Predictions sum to {ratio:.3f} times the labels.")
    if error is not None:
        words.append(f"They are off by {100 * error:.2f} points on average (expected calibration error).")
    words.append("A dot is a tenth of the test inputs, its bar two standard errors; on the grey line both are equal.")
    return PageCard(title=title, pictures=[plot.render()], caption=" ".join(words))


def context_card(run: RunRecord) -> PageCard:
    """Test AUC beside those of single columns, as bars above 0.5."""
    title = "Against the best single columns"
    auc = run.number("test", "auc")
    columns = [
        (str(each.get("column")), value)
        for each in run.items("test", "context", "columns")
        if (value := as_number(each.get("auc"))) is not None
    ][:_MOST_COLUMNS]
    if auc is None or not columns:
        return PageCard(title=title)
    bars = [
        Bar(
            name=name, text=metric_text(value),
            parts=[BarPart(css=css, share=min(1.0, max(0.0, 2 * value - 1)), tip=f"{name}: AUC {metric_text(value)}")],
        )
        for name, value, css in [("this model", auc, "s0"), *((name, value, "others") for name, value in columns)]
    ]  # fmt: skip
    error = auc_error_of(run)
    beats = "" if error is None or differ(auc, error, columns[0][1], error) else (
        f" The model is within noise of {columns[0][0]} alone."
    )  # fmt: skip
    sampled = " of a sample" if run.get("test", "context", "sampled") is True else ""
    return PageCard(
        title=title, bars=bars,
        caption=f"Test AUC{sampled}, drawn from 0.5 (guessing) to 1. A single column predicts the label rate of its "
        f"value in training.{beats}",
    )  # fmt: skip


def _parts(run: RunRecord) -> list[tuple[str, Shown, Shown, Shown, Shown, Shown]]:
    """Inputs with and without unknown ids."""
    lines = []
    for key, name in (("without", "all ids known"), ("with", "with unknown ids")):
        if run.table("test", "unknown_ids", key):
            at = ("test", "unknown_ids", key)
            auc, count, rate = (run.number(*at, each) for each in ("auc", "num_inputs", "label_rate"))
            error = auc_error(auc, count, rate)
            shown = show_metric(auc)
            if isinstance(shown, str) and error is not None:
                shown = f"{shown} ± {metric_text(NUM_ERRORS * error)}"
            lines.append(
                (name, show_count(count), show_share(run.number(*at, "share")), shown,
                 show_metric(run.number(*at, "log_loss")), show_share(rate))
            )  # fmt: skip
    return lines


def _group(run: RunRecord) -> str:
    at = ("test", "group_auc")
    auc, column, count = run.number(*at, "auc"), run.text(*at, "column"), run.number(*at, "num_groups")
    if auc is None or column is None:
        return ""
    inputs, one_class = run.number(*at, "num_inputs"), run.number(*at, "one_class_groups")
    within = f"AUC within each {column}: {metric_text(auc)}"
    if count is not None and inputs is not None:
        within += f", over {format_count(count)} of them with {format_count(inputs)} inputs"
    return within + (f"; {format_count(one_class)} have labels of one kind and are left out." if one_class else ".")
