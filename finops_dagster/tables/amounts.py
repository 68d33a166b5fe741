"""Parses exact amounts from text, and adds them up: the arithmetic of the count, in pyarrow."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext

import pyarrow as pa
import pyarrow.compute as pc

MONEY = pa.decimal128(38, 18)
"""pyarrow's type of amounts, DECIMAL(38,18)."""
_WIDE = pa.decimal256(76, 18)
LIMIT = Decimal(10) ** 20
"""The smallest positive number that MONEY cannot hold."""
_LAST_DECIMAL = Decimal("1e-18")
_MOST_DIGITS = 1_000_000
# The same grammar as in tables/casts.py.
_NUMBER = re.compile(
    r"[\t-\r ]*[+-]?(?:(?P<zero>0+\.?0*[eE][+-]?\d+)|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)"
    r"[\t-\r ]*",
    re.ASCII,
)


class NotExact(Exception):
    """A text is no number, or a number that a column of amounts cannot hold exactly."""


def exact_total(amounts: pa.Array) -> Decimal:
    """Return the exact sum of amounts of the type MONEY; 0 if there are none.

    NULLs do not count. Raises NotExact if the absolute value of an amount is LIMIT or more.
    """
    # pyarrow's CSV reader accepts such amounts, and its sums of 128 bits overflow silently.
    ends = pc.min_max(amounts).as_py()
    if ends["min"] is None:
        return Decimal(0)
    largest = max(ends["min"].copy_negate(), ends["max"])
    if largest >= LIMIT:
        raise NotExact
    if largest * len(amounts) >= LIMIT // 2:
        amounts = amounts.cast(_WIDE)
    total: Decimal = pc.sum(amounts).as_py()
    return total


def exact_amounts(texts: pa.Array, round_money: bool) -> tuple[pa.Array, pa.Array | None]:
    """Return texts as amounts, and a mask that is true where an amount was rounded.

    A NULL stays NULL. With `round_money`, numbers are rounded to 18 decimals, half to even. The
    mask may be None if nothing was rounded. Raises NotExact for a text that is no number, for one
    whose absolute value is LIMIT or more, and without `round_money` for more than 18 decimals.
    """
    # pyarrow reads more digits than a decimal has as another number, without an error.
    if (pc.max(pc.binary_length(texts)).as_py() or 0) <= MONEY.precision:
        with suppress(pa.ArrowInvalid):
            return texts.cast(MONEY), None
    pairs = [_amount(text, round_money) for text in texts.to_pylist()]
    amounts, is_rounded = zip(*pairs, strict=True)
    return pa.array(amounts, MONEY), pa.array(is_rounded)


def _amount(text: str | None, round_money: bool) -> tuple[Decimal | None, bool]:
    """Return the amount of a text, and whether it was rounded, half to even. Raises NotExact."""
    if text is None:
        return None, False
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise NotExact
    if match["zero"]:
        return Decimal(0), False
    with localcontext(prec=_MOST_DIGITS):
        try:
            number = Decimal(text.strip("\t\n\v\f\r "))
            amount = number.quantize(_LAST_DECIMAL, ROUND_HALF_EVEN)
        except InvalidOperation as error:
            raise NotExact from error
        if not -LIMIT < amount < LIMIT or (amount != number and not round_money):
            raise NotExact
        return amount, amount != number
