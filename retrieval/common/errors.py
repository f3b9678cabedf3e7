"""Failures that a user can mend.

The command line prints one line and exits 1 (2 for usage); a server answers 4xx. Any other exception is a bug of
ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class TwoTowerError(Exception):
    """An expected failure: names the thing, what was found, what was expected, and the next step."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))  # one line, whatever an id or a file put into it


class ConfigError(TwoTowerError):
    """The config file: an unknown key, a wrong type, a value out of range."""


class DataError(TwoTowerError):
    """The tables: a missing file or column, an id that cannot be used, a value of the wrong type."""


class TrainError(TwoTowerError):
    """Training cannot start, go on, or be resumed."""


class ExportError(TwoTowerError):
    """The exported graph is not what was trained; nothing was written."""


class BundleError(TwoTowerError):
    """The artifact folder: damaged, foreign, of another model, of a future format."""


class QueryError(TwoTowerError):
    """A query: an unknown feature, a value of the wrong type, a filter that does not parse."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint to append to an error: the valid name closest to what was written, or all of a few, or nothing."""
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
