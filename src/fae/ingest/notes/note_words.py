"""Values and shares as notes show them."""

from __future__ import annotations

_MOST_CHARACTERS = 60


def shown_value(text: str | None) -> str:
    """A value as notes show it.

    >>> shown_value("a b"), shown_value(""), shown_value("x" * 99)[-7:]
    ("'a b'", 'no value', "xxx'...")
    """
    if not text:
        return "no value"
    return repr(text[:_MOST_CHARACTERS]) + ("..." if len(text) > _MOST_CHARACTERS else "")


def shown_share(share: float) -> str:
    """A share for people; 100 % and 0 % are exact.

    >>> shown_share(1.0), shown_share(0.9999), shown_share(0.4872), shown_share(0.0)
    ('100 %', '99.9 %', '48.7 %', '0 %')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %"
