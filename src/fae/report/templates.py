"""The Jinja2 environment of the page: every value is escaped, and a name that is not there is an error."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fae.report.sentences.glossary import GLOSSARY, explain
from fae.report.shown_values import Absent

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, terminal escapes among them, and halves of characters, which UTF-8 cannot hold."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fae.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.tests["absent"] = lambda value: isinstance(value, Absent)
    environment.filters["explain"] = explain
    environment.globals["NOT_RECORDED"] = Absent.NOT_RECORDED
    environment.globals["GLOSSARY"] = GLOSSARY
    return environment


def render_template(name: str, **values: Any) -> str:
    """Text of the template ``templates/<name>`` with these values; unprintable characters become U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", _environment().get_template(name).render(values))
