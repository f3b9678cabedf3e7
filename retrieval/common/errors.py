"""Expected failures.

The command line prints one line and exits with 1 (2 for usage); the server answers with 4xx. Any other exception is a
bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class TwoTowerError(Exception):
    """An expected failure: names the thing, what was found, what was expected, and the next step."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # one line, whatever an id or a file contains


class ConfigError(TwoTowerError):
    """The config file: an unknown key, a wrong type, a value out of range."""


class DataError(TwoTowerError):
    """The tables: a missing file or column, an id that cannot be used, a value of the wrong type."""


class TrainError(TwoTowerError):
    """Training cannot start, continue or be resumed."""


class ExportError(TwoTowerError):
    """The exported graph differs from the trained model; nothing was written."""


class BundleError(TwoTowerError):
    """The artifact folder: damaged, of another model or of a newer format."""


class QueryError(TwoTowerError):
    """A query: an unknown feature, a value of the wrong type, an invalid filter."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for the end of an error: the closest valid name, or all of up to 12 names, or ""."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:
        folded = {candidate.casefold(): candidate for candidate in names}
        close = [folded[name.casefold()]] if name.casefold() in folded else []
    if close:
        return f'; did you mean "{close[0]}"?'
    if 0 < len(names) <= 12:
        return "; expected one of " + ", ".join(f'"{candidate}"' for candidate in names)
    return ""
