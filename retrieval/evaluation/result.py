"""What an evaluation measured, whole: what the files and the table are written from."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from retrieval.evaluation.baseline_runs import Rival
from retrieval.evaluation.bundle_answers import Answers
from retrieval.evaluation.held_out import HeldOut, Stage
from retrieval.evaluation.intervals import Bootstrap
from retrieval.evaluation.metric_table import Measured, by_history, by_popularity, curve, found, shown_share
from retrieval.evaluation.verdict import Verdict

PAIRED: Final = ("recall", "ndcg")  # measures that are compared user by user


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured, for the files and the table.

    k: the one that judges. epochs: of the training, as its history tells. summary: what the training says of itself.
    rating: errors of predicted values, where the towers predict them. cold: how items without training interactions
    are found, where users went on to choose any. strangers: the same users asked without their histories.
    """

    path: Path
    pair_id: str
    held: HeldOut
    stage: Stage
    users_held_out: int
    answers: Answers
    model: Measured
    exact: Measured
    rivals: Mapping[str, Rival]
    skipped: Mapping[str, str]
    drawn: Bootstrap
    verdict: Verdict
    ks: tuple[int, ...]
    k: int
    epochs: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    rating: Mapping[str, Any] | None
    cold: Mapping[str, Any] | None
    strangers: Mapping[str, Any] | None
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """What `metrics.json` and `evaluate --json` say."""
        stage, held = self.stage, self.held
        rival = self.verdict.baseline
        return {
            "split": {"kind": held.split_kind, "stage": stage.name, "interactions": held.counts()},
            "users": len(stage.rows),
            "users_held_out": self.users_held_out,
            "items": held.item_count,
            "pair_id": self.pair_id,
            "k": list(self.ks),
            "metrics": _rounded(self.model.values),
            "intervals": {
                f"{name}@{k}": self.drawn.mean(f"model {name}@{k}").to_json() for name in PAIRED for k in self.ks
            },
            "baselines": {name: _rounded(rival.measured.values) for name, rival in self.rivals.items()},
            "baseline_settings": {name: rival.facts() for name, rival in self.rivals.items()},
            "baselines_left_out": dict(self.skipped),
            "differences": {
                name: {
                    f"{metric}@{self.k}": self.drawn.difference(
                        f"model {metric}@{self.k}", f"{name} {metric}@{self.k}"
                    ).to_json()
                    for metric in PAIRED
                }
                for name in self.rivals
            },
            "verdict": {
                "outcome": self.verdict.outcome,
                "best_baseline": rival,
                "behind": self.verdict.behind,
                "sentence": self.verdict.sentence,
                "advice": list(self.verdict.advice),
            },
            "curve": {str(k): round(value, 6) for k, value in curve(self.exact, truth=stage.truth).items()},
            "slices": self.slices(),
            **({"cold_items": self.cold} if self.cold is not None else {}),
            **({"features_only": self.strangers} if self.strangers is not None else {}),
            **({"rating": self.rating} if self.rating is not None else {}),
            "index": {"kind": self.answers.kind, "recall@10_vs_exact": round(self.answers.agreement, 6)},
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }

    def slices(self) -> dict[str, list[dict[str, Any]]]:
        """Share of truths found at k, by the user's history and the item's popularity, beside the best rival's."""
        rival = self.verdict.baseline
        parts = {
            "history": by_history(self.stage.histories, self.stage.truth),
            "popularity": by_popularity(self.held.popularity, self.stage.truth),
        }
        shown = shown_share(self.model.lists[:, : self.k], self.held.popularity)
        result: dict[str, list[dict[str, Any]]] = {}
        for kind, slices in parts.items():
            result[kind] = []
            for part in slices:
                entry = {
                    "slice": part.label,
                    "truths": part.size,
                    "found": round(found(self.model.ranks, part, k=self.k), 6),
                }
                if rival is not None:
                    entry[rival] = round(found(self.rivals[rival].measured.ranks, part, k=self.k), 6)
                if kind == "popularity":
                    entry["share_of_recommendations"] = round(shown[part.label], 6)
                result[kind].append(entry)
        return result


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}
