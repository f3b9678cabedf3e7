"""Requests and answers of the API as types: parsing, type checks and the OpenAPI document all come from them."""

from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import Meta, Struct

Id: TypeAlias = str | int | float  # 1, 1.0 and "1" are the same id
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Ids: TypeAlias = list[Id | None]
Search: TypeAlias = Annotated[str | None, Meta(description="Part of an id or of a text.")]


class Options(Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of every search; null is the default."""

    k: Annotated[Count | None, Meta(description="Number of items. Default 10.")] = None
    where: Annotated[
        str | None, Meta(description="Filter on item columns, for example: year >= 1990 AND 'Comedy' IN genres")
    ] = None
    exclude: Annotated[Ids | None, Meta(description="Item ids to leave out; comma-separated in a query string.")] = None
    diversity: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Weight of diversity in maximal marginal relevance. Default 0."),
    ] = None


class User(Struct, kw_only=True, forbid_unknown_fields=True):
    """A user: an id of the data, or features and a history. Given features and history replace those of the data."""

    user: Annotated[Id | None, Meta(description="Id of a user of the data.")] = None
    features: Annotated[dict[str, Any] | None, Meta(description="Features by name; absent ones are missing.")] = None
    history: Annotated[Ids | None, Meta(description="Item ids, oldest first.")] = None
    exclude: Annotated[Ids | None, Meta(description="Item ids to leave out for this user.")] = None


class RecommendRequest(Options):
    users: list[User]
    include_seen: Annotated[bool | None, Meta(description="Recommend items of the history too. Default false.")] = None


class SearchRequest(Options):
    vectors: Annotated[list[list[float]], Meta(description="Query vectors; scaled to unit length.")]
    pair_id: Annotated[str | None, Meta(description="Model of the vectors; another one is refused with 409.")] = None


class EmbedRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    tower: Literal["user", "item"]
    records: Annotated[list[dict[str, Any]], Meta(description="Inputs of the tower by name; absent ones are missing.")]


class PutItemsRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    items: Annotated[list[dict[str, Any]], Meta(description="An id and columns each; absent columns are missing.")]


class ListItemsParams(Struct, kw_only=True, forbid_unknown_fields=True):
    search: Search = None
    where: Annotated[str | None, Meta(description="Filter on item columns.")] = None
    limit: Annotated[Count | None, Meta(description="Number of items. Default 20.")] = None


class ListUsersParams(Struct, kw_only=True, forbid_unknown_fields=True):
    search: Annotated[str | None, Meta(description="First characters of the id.")] = None
    limit: Annotated[Count | None, Meta(description="Number of users. Default 20.")] = None


Hit: TypeAlias = Annotated[
    dict[str, Any],
    Meta(
        description="An item: its id, its score and its columns.",
        extra_json_schema={
            "required": ["id", "score"],
            "properties": {
                "id": {"type": "string"},
                "score": {"type": "number", "description": "Inner product of unit vectors; higher is better."},
                "predicted": {"type": "number", "description": "Predicted rating, of a model trained on ratings."},
            },
        },
    ),
]
Item: TypeAlias = Annotated[dict[str, Any], Meta(description="The id and the columns of an item.")]


class Answer(TypedDict):
    """What every answer begins with."""

    pair_id: Annotated[str, Meta(description="The model: an id of the pair of towers.")]
    generation: Annotated[int, Meta(description="Number of the published version of the bundle.")]


class Result(TypedDict):
    user: NotRequired[str]
    hits: list[Hit]
    notes: NotRequired[Annotated[list[str], Meta(description="Unknown users or items, for example.")]]


class RecommendAnswer(Answer):
    results: list[Result]


class SearchAnswer(Answer):
    results: list[Result]


class SimilarAnswer(Answer):
    item: str
    hits: list[Hit]


class EmbedAnswer(Answer):
    dim: int
    vectors: list[list[float]]


class ListItemsAnswer(Answer):
    items: list[Item]
    more: Annotated[bool, Meta(description="Whether there are more than `limit`.")]


class ItemAnswer(Answer):
    item: Item


class ListUsersAnswer(Answer):
    users: list[str]
    more: Annotated[bool, Meta(description="Whether there are more than `limit`.")]


class UserAnswer(Answer):
    user: Annotated[dict[str, Any], Meta(description="id, features, history (newest items) and history_length.")]


class InfoAnswer(Answer):
    items: int
    users: int
    dim: int
    index: dict[str, Any]
    user_features: list[dict[str, Any]]
    item_features: list[dict[str, Any]]
    columns: list[dict[str, str]]
    limits: dict[str, int]


class PutItemsAnswer(Answer):
    added: int
    replaced: int
    notes: NotRequired[Annotated[list[str], Meta(description="Columns that were ignored, for example.")]]


class DeleteItemAnswer(Answer):
    removed: int
