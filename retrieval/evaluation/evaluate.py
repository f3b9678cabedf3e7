"""Evaluate: the deployed path (ONNX and index) on what training held out, beside baselines; the files that say so."""

import datetime as dt
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from retrieval.bundle import Bundle
from retrieval.console import note
from retrieval.errors import BundleError, TwoTowerError
from retrieval.evaluation.cold import cold_items
from retrieval.evaluation.deployed import Answers, answer
from retrieval.evaluation.features_only import features_only
from retrieval.evaluation.held_out import HeldOut, Stage
from retrieval.evaluation.intervals import Bootstrap
from retrieval.evaluation.measure import (
    Measured,
    by_history,
    by_popularity,
    curve,
    found,
    main_k,
    measure,
    shown_share,
)
from retrieval.evaluation.model_card import markdown
from retrieval.evaluation.rating import rating_errors
from retrieval.evaluation.rivals import BUDGET_S, Rival, compete
from retrieval.evaluation.verdict import Verdict, advise, judge
from retrieval.metrics import Ranking
from retrieval.publish import publishing

TRAINING: Final = "training"
KS: Final = (5, 10, 20)
USERS: Final = 50_000  # judged; further users would narrow the intervals by little
PAIRED: Final = ("recall", "ndcg")


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
        rival = self.verdict.rival
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
        rival = self.verdict.rival
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


def evaluate(
    path: str | Path,
    *,
    baselines: Sequence[str] | None = None,
    k: Sequence[int] = KS,
    users: int | None = USERS,
    budget_s: float = BUDGET_S,
    report: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge a bundle on what its training held out; print the table, publish what was measured.

    path: of the bundle, with its training folder. baselines: names, "all", "none"; None for those that take seconds.
    users: the most to be judged, drawn at random; None for all. budget_s: for tuning one baseline.
    report: whether to write report.html too.
    Writes metrics.json, MODEL_CARD.md and report.html as one generation. Returns what metrics.json says.
    Raises BundleError if there is nothing to judge or to judge by, TwoTowerError on an unknown baseline.
    """
    judged = run(path, baselines=baselines, k=k, users=users, budget_s=budget_s, seed=seed)
    result = judged.to_json()
    page: bytes | None = None
    if report:
        # Imported here: it brings a plotting library along.
        from retrieval.evaluation.report import html

        begin = time.perf_counter()
        page = html(judged, result).encode()
        result["seconds"]["report"] = round(time.perf_counter() - begin, 3)
    card = markdown(judged, result).encode()
    with publishing(path) as draft:
        if draft.pair_id != judged.pair_id:
            raise BundleError(
                f"{path}: holds model {draft.pair_id} by now, model {judged.pair_id} was evaluated; evaluate again"
            )
        draft.remove("report.html")  # one of an earlier evaluation tells of other numbers
        if page is not None:
            draft.write_bytes("report.html", page)
        draft.write_bytes("MODEL_CARD.md", card)
        draft.write_json("metrics.json", result)
    return result


def run(
    path: str | Path,
    *,
    baselines: Sequence[str] | None = None,
    k: Sequence[int] = KS,
    users: int | None = USERS,
    budget_s: float = BUDGET_S,
    seed: int = 0,
) -> Evaluation:
    """Measure, without writing anything. Arguments and errors as of `evaluate`."""
    ks = tuple(sorted(set(k)))
    if not ks or ks[0] < 1:
        raise TwoTowerError(f"k is {list(k)}; it takes one or more whole numbers from 1 on")
    begin = time.perf_counter()
    folder = Path(path) / TRAINING
    with Bundle.open(path) as bundle:
        held = HeldOut.read(folder)
        summary = _read_summary(folder)
        exported = bundle.schema.facts.get("fingerprint")
        if exported is not None and exported != summary.get("fingerprint", exported):
            raise BundleError(
                f"{path}: was trained anew on other data or another split (fingerprint {summary['fingerprint']}) since "
                f'its towers were exported ({exported}); export again with "twotower export {path}"'
            )
        if summary.get("refit"):
            raise BundleError(
                f"{path}: was trained on everything (--refit), so nothing is held out to judge it by; "
                "evaluate the training that it was refitted from"
            )
        stage = whole = held.best_stage()
        if users is not None and users < len(whole.rows):
            stage = whole.sample(users, seed=seed)
            note(f"{users:,} of {len(whole.rows):,} held-out users are judged, drawn at random (--users)")
        seconds = {"read": time.perf_counter() - begin}
        answers = answer(bundle, held, stage, k=max(ks))
        strangers = features_only(bundle, held, stage, answers.items, k=main_k(ks), seed=seed)
        pair_id, facts = bundle.pair_id, bundle.schema.facts
    seconds |= answers.seconds

    def measured(ranking: Ranking) -> Measured:
        return measure(ranking, truth=stage.truth, popularity=held.popularity, users=held.user_count, ks=ks)

    model = measured(answers.deployed)
    begin = time.perf_counter()
    rivals, skipped = compete(held, stage, names=baselines, ks=ks, budget_s=budget_s, seed=seed)
    seconds["baselines"] = time.perf_counter() - begin
    main = main_k(ks)
    drawn = _draw(model, rivals, ks, seed=seed)
    epochs = _read_epochs(folder)
    measures = {name: rival.measured.values for name, rival in rivals.items()}
    verdict = judge(drawn, model.values, measures, k=main, users=len(stage.rows))
    if verdict.outcome in ("loses", "level"):
        tries = advise(
            held.config,
            epochs,
            has_times=held.training.times is not None,
            verdict=verdict,
            spare_users=len(whole.rows) - len(stage.rows),
        )
        verdict = verdict._replace(advice=tries)
    return Evaluation(
        path=Path(path),
        pair_id=pair_id,
        held=held,
        stage=stage,
        users_held_out=len(whole.rows),
        answers=answers,
        model=model,
        exact=measured(Ranking(answers.exact, answers.deployed.lists)),
        rivals=rivals,
        skipped=skipped,
        drawn=drawn,
        verdict=verdict,
        ks=ks,
        k=main,
        epochs=epochs,
        summary=summary,
        rating=rating_errors(held, stage, answers, facts.get("rating")),
        cold=cold_items(held, stage, answers, seed=seed),
        strangers=strangers,
        seconds=seconds,
    )


def _draw(model: Measured, rivals: Mapping[str, Rival], ks: Sequence[int], *, seed: int) -> Bootstrap:
    named = {"model": model, **{name: rival.measured for name, rival in rivals.items()}}
    return Bootstrap(
        {
            f"{name} {metric}@{k}": measured.per_user[f"{metric}@{k}"]
            for name, measured in named.items()
            for metric in PAIRED
            for k in ks
        },
        seed=seed,
    )


def _read_summary(folder: Path) -> dict[str, Any]:
    """What the training says of itself; {} where it says nothing that can be read."""
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_epochs(folder: Path) -> list[dict[str, Any]]:
    """A line an epoch of the training's history; none where it is not there."""
    try:
        lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
        return [entry for line in lines if line.strip() and isinstance(entry := json.loads(line), dict)]
    except (OSError, ValueError):
        return []


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}
