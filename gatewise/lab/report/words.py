"""Numbers as people read them."""

from __future__ import annotations

import re

from gatewise.lab.experiment import Published, Spent
from gatewise.lab.statistics import Interval


def plain(value: float) -> str:
    """A finite measurement of any size.

    >>> plain(1234.5), plain(3.0), plain(0.25)
    ('1,234', '3', '0.25')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"


def share(i: Interval) -> str:
    """A rate in per cent."""
    return f"{i.value:.0%} [{i.low:.0%}, {i.high:.0%}]"


def counted(i: Interval) -> str:
    """A mean number of sequences."""
    return f"{i.value:,.0f} [{max(0.0, i.low):,.0f}, {i.high:,.0f}]"


def stated(p: Published) -> str:
    """A published figure, where its kind is known."""
    if p.figure != "successes":
        return f"{p.value:,.0f}"
    return f"{p.value:g} of {p.trials}" if p.trials else "fails"


def printed(p: Published) -> str:
    """A published figure with its kind and note."""
    kind = "" if p.figure == "successes" else f" {p.figure}"
    return f"{stated(p)}{kind}{f' ({p.note})' if p.note else ''}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(0.42), duration(38.4), duration(1800), duration(20_000)
    ('0.42 s', '38 s', '30 min', '5.6 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def time(spent: Spent) -> str:
    """Processor time; that by the clock where no other was recorded.

    >>> time(Spent(40.0, 12.0)), time(Spent(40.0, None))
    ('12 s', '40 s by the clock')
    """
    return f"{duration(spent.clock)} by the clock" if spent.cpu is None else duration(spent.cpu)


def listed(words: list[str]) -> str:
    """Some words as part of a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "none"


def rounded(text: str) -> str:
    """The numbers in a text to three digits.

    >>> rounded("Target [0.2343714].")
    'Target [0.234].'
    """
    return re.sub(r"\d+\.\d{4,}", lambda m: f"{float(m[0]):.3g}", text)
