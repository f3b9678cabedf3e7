"""Add, replace and remove items, by the code of `index add` and `index remove`; published before the answer."""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from retrieval.bundle.writer import publishing
from retrieval.common.errors import DataError, QueryError
from retrieval.index.updates import add_items, remove_items
from retrieval.server.errors import RequestError
from retrieval.server.messages import DeleteItemAnswer, PutItemsAnswer, PutItemsRequest
from retrieval.server.routes.route import Context, route

WAIT_S: Final = 10.0  # for another writer of the bundle
ID: Final = "id"  # the name of the item id in answers; accepted for the id column


@route(
    "PUT",
    "/v1/items",
    errors=(403, 413),
    writes=True,
    example={"items": [{"id": "9001", "title": "A new one"}]},
)
def put_items(context: Context, body: PutItemsRequest) -> PutItemsAnswer:
    """Add items, or replace those with the same id. The change is on disk before the answer."""
    if not body.items:
        raise RequestError(400, '"items" is empty; expected at least one item')
    names = context.snapshot.item_schema.names
    records = [_with_id(record, names, position) for position, record in enumerate(body.items)]
    unknown = sorted({name for record in records for name in record} - set(names))
    # `add_items` reads a file; errors must not show its path.
    with tempfile.TemporaryDirectory(prefix="twotower-") as folder:
        source = Path(folder) / "items.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for record in records:
                known = {name: record[name] for name in names if name in record}
                file.write(json.dumps(known, ensure_ascii=False) + "\n")
        try:
            with publishing(context.snapshot.bundle.path, wait_s=WAIT_S) as draft:
                change = add_items(draft, source)
        except (DataError, QueryError) as error:
            raise RequestError(400, str(error).replace(str(source), "items")) from error
    answer: PutItemsAnswer = {
        "pair_id": context.snapshot.bundle.pair_id,
        "generation": context.snapshot.bundle.generation,
        "added": change.added,
        "replaced": change.replaced,
    }
    if unknown:
        answer["notes"] = [f"ignored, since the catalogue has no such column: {', '.join(unknown)[:500]}"]
    return answer


@route("DELETE", "/v1/items/{item:id}", errors=(403, 404), writes=True)
def delete_item(context: Context) -> DeleteItemAnswer:
    """Remove an item, so that it is no longer recommended. The change is on disk before the answer."""
    item = context.path["item"]
    with publishing(context.snapshot.bundle.path, wait_s=WAIT_S) as draft:
        change = remove_items(draft, [item])
    if not change.removed:
        raise RequestError(404, f'there is no item "{item[:100]}" in the catalogue')
    return {**context.snapshot.stamp, "removed": change.removed}


def _with_id(record: dict[str, Any], names: list[str], position: int) -> dict[str, Any]:
    """A record whose id is in the id column. Raises RequestError without an id."""
    name = names[0]
    if name not in record and ID in record and ID not in names:
        record = {name: record[ID], **{key: value for key, value in record.items() if key != ID}}
    if record.get(name) is None or isinstance(record[name], dict | list):
        raise RequestError(400, f'"items[{position}].{name}" is missing; an item needs an id as text or a number')
    return record
