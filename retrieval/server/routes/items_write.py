"""Writes: items put in and taken out, by the code of `index add` and `index remove`; published before the answer."""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from retrieval.bundle.writer import publishing
from retrieval.common.errors import DataError, QueryError
from retrieval.index.updates import add_items, remove_items
from retrieval.server.parsing import body_of, params_of, place_of, records_of
from retrieval.server.refusal import RefusedError
from retrieval.server.routes.recommend import Call

WAIT_S: Final = 10.0  # for another writer of the bundle
ID: Final = "id"  # what answers call the first column of the items; taken for it here too


def put_items(call: Call) -> dict[str, Any]:
    """Add items, or replace those that are there. Once this returns they are on the disk."""
    params_of(call.params, ())
    records = records_of(body_of(call.body, ("items",)), "items", call.limits.items)
    if not records:
        raise RefusedError(400, '"items" is empty; expected a list of objects')
    names = call.serving.item_schema.names
    own = [_own(record, names, place_of(position, records)) for position, record in enumerate(records)]
    further = sorted({name for record in own for name in record} - set(names))
    # The file is what `index add` reads; its path is nobody's business.
    with tempfile.TemporaryDirectory(prefix="twotower-") as folder:
        source = Path(folder) / "items.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for record in own:
                kept = {name: record.get(name) for name in names if name in record}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
        try:
            with publishing(call.serving.bundle.path, wait_s=WAIT_S) as draft:
                change = add_items(draft, source)
        except (DataError, QueryError) as error:
            raise RefusedError(400, str(error).replace(str(source), "items")) from error
    answer: dict[str, Any] = {"added": change.added, "replaced": change.replaced}
    if further:
        answer["notes"] = [f"the catalogue has no column {', '.join(further)[:500]}; left out"]
    return answer


def delete_item(call: Call) -> dict[str, Any]:
    """Let an item be found no more."""
    params_of(call.params, ())
    item = call.path["item"]
    with publishing(call.serving.bundle.path, wait_s=WAIT_S) as draft:
        change = remove_items(draft, [item])
    if not change.removed:
        raise RefusedError(404, f'there is no item "{item[:100]}"; ids are those of the catalogue')
    return {"removed": change.removed}


def _own(record: dict[str, Any], names: list[str], place: str) -> dict[str, Any]:
    """A record by the names of the catalogue. Raises RefusedError without an id."""
    name = names[0]
    if name not in record and ID in record and ID not in names:
        record = {name: record[ID], **{key: value for key, value in record.items() if key != ID}}
    value = record.get(name)
    if value is None or isinstance(value, (dict, list)):
        raise RefusedError(400, f'{place}"{name}" is not there; an item needs an id as text')
    return record
