"""What smaller weights cost: the vectors of real users and items beside those of full precision."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from export.precision import Precision
from retrieval.common.errors import ExportError
from retrieval.features.schema import SIDES, Side
from retrieval.index.exact import top_k

Vectors = npt.NDArray[np.float32]

TOP: Final = 10
FLOORS: Final[Mapping[Precision, float]] = {"fp16": 0.995, "int8": 0.98}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A pair of towers beside itself in full precision, on the real users and items of the training.

    bytes: of each file, as a share of full precision. cosine_*: over users and items alike.
    recall: share of the ten best items of full precision that are among the ten best now, both towers being lighter.
    """

    users: int
    items: int
    user_bytes: float
    item_bytes: float
    cosine_mean: float
    cosine_worst: float
    recall: float

    def to_json(self) -> dict[str, float]:
        facts = asdict(self)
        facts[f"recall@{TOP}_of_fp32"] = facts.pop("recall")
        return {name: value if isinstance(value, int) else round(value, 6) for name, value in facts.items()}


def measure(full: Mapping[Side, Vectors], light: Mapping[Side, Vectors], sizes: Mapping[Side, float]) -> Loss:
    """full, light: (n, dim) unit rows of each side. sizes: of each file, as a share of full precision."""
    cosines = np.concatenate([np.einsum("nd,nd->n", full[side], light[side]) for side in SIDES])
    before, _ = top_k(full["user"], full["item"], k=TOP)
    now, _ = top_k(light["user"], light["item"], k=TOP)
    kept = [
        len(np.intersect1d(a[a >= 0], b[b >= 0])) / max(int((a >= 0).sum()), 1)
        for a, b in zip(before, now, strict=True)
    ]
    return Loss(
        users=len(full["user"]),
        items=len(full["item"]),
        user_bytes=sizes["user"],
        item_bytes=sizes["item"],
        cosine_mean=float(np.mean(cosines)),
        cosine_worst=float(np.min(cosines)),
        recall=float(np.mean(kept)),
    )


def refuse_below_floor(loss: Loss, precision: Precision) -> None:
    """Raises ExportError if the lighter towers answer too differently."""
    floor = FLOORS[precision]
    if not loss.recall >= floor:
        raise ExportError(
            f"{precision}: of the {TOP} best items of fp32 only {loss.recall:.4f} are kept ({loss.users:,} users), "
            f"the floor is {floor}; use another precision, or --allow-loss to publish all the same"
        )
