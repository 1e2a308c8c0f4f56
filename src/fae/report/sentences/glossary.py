"""The words of a page and what they mean: told where one is hovered, tapped or focused, and in a list at the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from html import escape

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word.

    Attributes
    ----------
    key
        Its place on the page, ``word-<key>``.
    name
        As the list at the end of the page says it.
    meaning
        One or two sentences.
    forms
        Other ways in which a page says it.
    """

    key: str
    name: str
    meaning: str
    forms: tuple[str, ...] = ()


GLOSSARY = (
    Word(
        key="auc", name="AUC",
        meaning="The chance that a random input with label 1 gets a higher score than a random one with label 0. 0.5 "
        "is guessing, 1 is perfect; it judges the order of scores and not their size.",
    ),
    Word(
        key="log-loss", name="log loss",
        meaning="The mean of -ln(probability given to what happened). Less is better; it judges the probabilities "
        "themselves. Always answering the base rate gives the log loss to beat.",
    ),
    Word(
        key="base-rate", name="base rate", forms=("label rate",),
        meaning="The share of inputs with label 1. A model that answers it for every input has AUC 0.5.",
    ),
    Word(
        key="entropy", name="normalized entropy",
        meaning="Log loss divided by that of answering the base rate: below 1 the model knows something, 0.8 is 20 % "
        "better than the base rate.",
    ),
    Word(
        key="calibration", name="calibration", forms=("calibrated",),
        meaning="Whether probabilities come true: of inputs scored near 0.2, one in five should have label 1.",
    ),
    Word(
        key="noise", name="noise", forms=("within noise",),
        meaning="Two results that are less than two standard errors of their difference apart, or print the same, are "
        "not told apart; then none is marked as the best.",
    ),
    Word(
        key="input", name="input", forms=("inputs", "inputs/s", "inputs a second"),
        meaning="A line of the log: its label, its ids and its dense features.",
    ),
    Word(
        key="row", name="row", forms=("embedding rows", "rows of all tables"),
        meaning="The vector that a model learns for one id of one column, with the state that its optimizer keeps "
        "beside it. A table has a row for each id.",
    ),
    Word(
        key="lookup", name="lookup", forms=("lookups", "accesses"),
        meaning="One use of a row: an input looks up a row for each of its ids.",
    ),
    Word(
        key="hot-rows", name="hot rows", forms=("hot row", "hot set"),
        meaning="The rows that are used most. FAE keeps them on the GPU for the whole training, as many as the budget "
        "holds.",
    ),
    Word(
        key="cold-rows", name="cold rows", forms=("cold row",),
        meaning="All other rows. They are in host memory; those that a batch needs are copied to the GPU before it "
        "and written back after it.",
    ),
    Word(
        key="staging", name="staging ring", forms=("staging",),
        meaning="GPU memory in which the cold rows of the next few batches wait for their turn.",
    ),
    Word(
        key="budget", name="budget",
        meaning="The GPU memory that FAE may take for hot rows, their optimizer state and the staging ring.",
    ),
    Word(
        key="coverage", name="coverage",
        meaning="The share of lookups that hot rows serve.",
    ),
    Word(
        key="hot-input", name="hot-input share", forms=("hot inputs", "hot-input shares"),
        meaning="The share of inputs all of whose lookups are of hot rows. They train without waiting for host "
        "memory.",
    ),
    Word(
        key="batch", name="hot and cold batches",
        forms=("hot batches", "cold batches", "mixed batches", "cold or mixed batches"),
        meaning="A hot batch holds hot inputs only, a cold one the others; a mixed batch takes inputs as they come.",
    ),
    Word(
        key="placement", name="placement",
        meaning="Where rows are while training: tiered (hot on the GPU, cold in host memory), device (all on the "
        "GPU), spread (hot on every GPU, each cold one on one of them), paper (as tiered, but cold batches are "
        "computed in host memory), hybrid or cpu (all in host memory).",
    ),
    Word(
        key="order", name="order", forms=("orders",),
        meaning="In which order batches train: interleaved (hot and cold ones in proportion), shuffled (mixed "
        "batches), adaptive (the shuffle scheduler).",
    ),
    Word(
        key="scheduler", name="shuffle scheduler",
        meaning="The order of the paper: phases of hot and of cold batches, which get shorter where the validation "
        "loss rises.",
    ),
    Word(
        key="selection", name="selection",
        meaning="How hot rows are chosen: by threshold (the most used of each table) or by peeling (rows that make "
        "whole inputs hot).",
    ),
    Word(
        key="unknown", name="unknown ids", forms=("unknown id", "unseen values", "test values unseen"),
        meaning="Values that the training split never had (or too rarely, see min_frequency). They share one reserved "
        "row a table.",
    ),
    Word(
        key="seen-once", name="seen once",
        meaning="Values that occur in a single input of the training split: a row each, trained by one step an epoch.",
    ),
    Word(
        key="padding", name="padding",
        meaning="Empty places in batches that are not full.",
    ),
    Word(
        key="validation", name="validation", forms=("validation split",),
        meaning="Inputs kept out of training to watch it; the test inputs are looked at once, at the end.",
    ),
    Word(
        key="skew", name="skew",
        meaning="How unevenly rows are used. The more skewed a log, the fewer rows have to be hot.",
    ),
)  # fmt: skip
"""In the order of the list at the end of the page."""

_FORMS = {form.lower(): word for word in GLOSSARY for form in (word.name, *word.forms)}
_ANY_FORM = re.compile(
    r"(?<![\w/-])(" + "|".join(re.escape(form) for form in sorted(_FORMS, key=len, reverse=True)) + r")(?![\w/-])",
    re.IGNORECASE,
)


@lru_cache(1024)
def explain(text: str) -> Markup:
    """The text, escaped, with each word of the glossary at its first place as a button that shows its meaning."""
    parts, done, seen = [], 0, set[str]()
    for match in _ANY_FORM.finditer(text):
        word = _FORMS[match[0].lower()]
        if word.key in seen:
            continue
        seen.add(word.key)
        parts += [escape(text[done : match.start()]), _button(word, match[0])]
        done = match.end()
    return Markup("".join([*parts, escape(text[done:])]))


def _button(word: Word, text: str) -> str:
    return (
        f'<button type="button" class="term" popovertarget="word-{word.key}" title="{escape(word.meaning)}">'
        f"{escape(text)}</button>"
    )
