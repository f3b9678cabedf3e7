"""Records and table blocks from outside -> batches: named arrays, exactly as the towers take them.

Missing is NaN for a number, a vector of NaN for a vector, "" for text, an empty list for a list. Lists are padded with
"" at their end. Values are checked here, once; past this line a batch is trusted.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from retrieval.common.errors import QueryError, nearest
from retrieval.features.schema import Feature

if TYPE_CHECKING:
    import pyarrow as pa

Record: TypeAlias = Mapping[str, Any]
Batch: TypeAlias = dict[str, npt.NDArray[Any]]


def batch_of(features: Sequence[Feature], records: Sequence[Record]) -> Batch:
    """One batch from records; a feature that a record leaves out is missing.

    Returns:
        name -> array as `Feature.dtype` and `Feature.shape` say; L is the longest list of the batch.

    Raises:
        QueryError: that names the record and the feature: an unknown name, a value of the wrong type.

    """
    known = {feature.name for feature in features}
    for position, record in enumerate(records):
        for name in record:
            if name not in known:
                raise QueryError(f'{_place(position, records)}there is no feature "{name}"{nearest(name, known)}')
    return {feature.name: _stacked(feature, records) for feature in features}


def _place(position: int, records: Sequence[Record]) -> str:
    """Which record an error speaks of; of a single one nothing need be said."""
    return f"record {position + 1}: " if len(records) > 1 else ""


def _stacked(feature: Feature, records: Sequence[Record]) -> npt.NDArray[Any]:
    kind = feature.type
    values: list[Any] = []
    for position, record in enumerate(records):
        value = record.get(feature.name)
        try:
            values.append(kind.parse(feature, value))
        except (TypeError, ValueError, OverflowError) as error:
            shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
            raise QueryError(f'{_place(position, records)}feature "{feature.name}": {error} in {shown}') from error
    return kind.stack(feature, values)


def batch_of_table(features: Sequence[Feature], table: "pa.Table") -> Batch:
    """One batch from a block of a table; a column that the table does not have is missing in every row.

    table: n rows. Returns and raises as batch_of; an error names the column.
    """
    return {
        feature.name: feature.type.parse_column(feature, table.column(feature.name).combine_chunks())
        if feature.name in table.column_names
        else feature.type.missing(feature, table.num_rows)
        for feature in features
    }
