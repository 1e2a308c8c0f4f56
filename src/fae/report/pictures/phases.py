"""The phases of the shuffle scheduler: what trained when, at which rate, and the loss at each swap."""

from __future__ import annotations

from fae.core.units import format_count
from fae.report.pictures.page_cards import PageCard
from fae.report.pictures.svg import WIDE, Axis, Plot, short_count
from fae.report.records import RunRecord, as_number

_MOST_DOTS = 60


def schedule_card(run: RunRecord) -> PageCard:
    """A bar a phase, as wide as its batches and as long as its rate: up for hot batches, down for cold ones."""
    title = "The shuffle scheduler"
    steps = [
        (batches, rate, str(step.get("phase")), as_number(step.get("validation_loss")), as_number(step.get("epoch")))
        for step in run.items("train", "schedule")
        if (batches := as_number(step.get("batches"))) and batches > 0
        and (rate := as_number(step.get("rate"))) is not None
    ]  # fmt: skip
    if not steps:
        return PageCard(title=title)
    total = sum(step[0] for step in steps)
    x = Axis(low=0.0, high=total, label="batches trained", form=short_count)
    reach = max(1.0, *(step[1] for step in steps)) * 1.15
    rates = Plot(
        label="rate of the scheduler over batches, hot batches up, cold ones down", x=x,
        y=Axis(low=-reach, high=reach, label="rate, per cent", form=lambda value: f"{abs(value):g}"),
        width=WIDE, height=230,
    )  # fmt: skip
    done, seen = 0.0, []
    for batches, rate, phase, loss, epoch in steps:
        css, sign = {"cold": ("cold", -1), "hot": ("hot", 1)}.get(phase, ("others", 1))
        tip = f"R({rate:g}), {batches:g} {phase} batches" + ("" if epoch is None else f", epoch {epoch + 1:g}")
        rates.bar(done, done + batches, sign * rate, css, tip=tip)
        done += batches
        if loss is not None:
            seen.append((done, loss))
    rates.word(total, 0.88 * reach, "hot batches", left=True)
    rates.word(total, -0.88 * reach, "cold batches", left=True)
    pictures = [rates.render()]
    if seen:
        low, high = min(loss for _, loss in seen), max(loss for _, loss in seen)
        margin = 0.06 * (high - low) or 0.01
        plot = Plot(
            label="validation loss at swaps", x=x,
            y=Axis(low=low - margin, high=high + margin, label="log loss, nats", form=lambda value: f"{value:g}"),
            width=WIDE, height=210,
        )  # fmt: skip
        plot.line(seen, "s0")
        told = [(place, f"{loss:.5f} after {format_count(place)} batches") for place, loss in seen]
        plot.hover(told[:: -(-len(told) // _MOST_DOTS)])
        for (place, loss), (_, tip) in zip(seen, told, strict=True) if len(seen) <= _MOST_DOTS else ():
            plot.dot(place, loss, "s0", tip=tip, radius=3)
        pictures.append(plot.render())
    return PageCard(
        title=title, pictures=pictures,
        legend=[("hot", "hot batches"), ("cold", "cold batches"),
                *([("line s0", "log loss at a swap, of a sample of the validation split")] * bool(seen))],
        caption=f"{len(steps)} phases. A bar is as wide as its batches and as long as the rate R(r): r per cent of the "
        "cold batches, then r per cent of the hot ones. It halves where the loss rose and doubles after four falls.",
    )  # fmt: skip
