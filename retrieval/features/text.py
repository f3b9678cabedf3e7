"""The text of one id or category: the scalar twin of `columns.words`, without pyarrow, which a query need not load."""

import math
from typing import Any

import numpy as np


def text_of(value: Any) -> str:
    """Write one id or category as text, by the rule of `columns.words`: 1, 1.0, "1.0" and " 1 " are all "1".

    Returns:
        The text; "" if the value is missing.

    Raises:
        TypeError: if the value is not text, a number or a boolean.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.endswith("0") and "." in text:
            whole, _, fraction = text.rpartition(".")
            if not fraction.strip("0") and (whole == "-0" or _is_whole(whole)):
                return "0" if whole == "-0" else whole
        return text
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if math.isnan(number):
            return ""
        return str(int(number)) if number.is_integer() else repr(number)
    raise TypeError(f"expected text, found {type(value).__name__}")


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and (digits[0] != "0" or text == "0")
