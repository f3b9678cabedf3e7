"""Evaluate: the deployed path (ONNX and index) on what training held out, beside baselines; the files that say so."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from retrieval.bundle.layout import EPOCHS, METRICS, MODEL_CARD, REPORT, SUMMARY, TRAINING
from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.common.console import note
from retrieval.common.errors import BundleError, TwoTowerError
from retrieval.evaluation.baseline_runs import BUDGET_S, Rival, compete
from retrieval.evaluation.bundle_answers import answer
from retrieval.evaluation.cold_items import cold_items
from retrieval.evaluation.cold_users import features_only
from retrieval.evaluation.held_out import HeldOut
from retrieval.evaluation.intervals import Bootstrap
from retrieval.evaluation.metric_table import Measured, main_k, measure
from retrieval.evaluation.rating import rating_errors
from retrieval.evaluation.report.model_card import markdown
from retrieval.evaluation.result import PAIRED, Evaluation
from retrieval.evaluation.verdict import compare, suggest
from retrieval.metrics.ranking import Ranking

KS: Final = (5, 10, 20)
USERS: Final = 50_000  # judged; further users would narrow the intervals by little


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
        from retrieval.evaluation.report.page import html

        begin = time.perf_counter()
        page = html(judged, result).encode()
        result["seconds"]["report"] = round(time.perf_counter() - begin, 3)
    card = markdown(judged, result).encode()
    with publishing(path) as draft:
        if draft.pair_id != judged.pair_id:
            raise BundleError(
                f"{path}: holds model {draft.pair_id} by now, model {judged.pair_id} was evaluated; evaluate again"
            )
        draft.remove(REPORT)  # one of an earlier evaluation tells of other numbers
        if page is not None:
            draft.write_bytes(REPORT, page)
        draft.write_bytes(MODEL_CARD, card)
        draft.write_json(METRICS, result)
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
    verdict = compare(drawn, model.values, measures, k=main, users=len(stage.rows))
    exact = measured(Ranking(answers.exact, answers.deployed.lists))
    if verdict.outcome in ("loses", "level"):
        trained, best = summary.get("statistics", {}), exact.values[f"ndcg@{main}"]
        tries = suggest(
            held.config,
            epochs,
            in_order=held.training.times is not None and trained.get("ordered", True),
            verdict=verdict,
            spare_users=len(whole.rows) - len(stage.rows),
            missed=1 - model.values[f"ndcg@{main}"] / best if best else 0.0,
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
        exact=exact,
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
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_epochs(folder: Path) -> list[dict[str, Any]]:
    """A line an epoch of the training's history; none where it is not there."""
    try:
        lines = (folder / EPOCHS).read_text(encoding="utf-8").splitlines()
        return [entry for line in lines if line.strip() and isinstance(entry := json.loads(line), dict)]
    except (OSError, ValueError):
        return []
