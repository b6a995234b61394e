"""Numbers as texts have them: exact decimals."""

import re
from decimal import Decimal

NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}(?:[.,][0-9]{0,40})?|[.,][0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")


class NotANumber(Exception):
    """A text that should be a number is none."""


def decimal(text: str) -> Decimal:
    """The number that a text says, with a point or a comma. Raises `NotANumber`."""
    if not NUMBER.fullmatch(text.strip()):
        raise NotANumber(text)
    return Decimal(text.strip().replace(",", "."))


def plain_number(value: Decimal) -> str:
    """A decimal without an exponent and without zeros at its end."""
    said = format(value, "f")
    said = said.rstrip("0").rstrip(".") if "." in said else said
    return "0" if said in {"-0", ""} else said
