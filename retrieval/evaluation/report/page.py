"""report.html: an evaluation on one self-contained page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.evaluation.cold_items import K
from retrieval.evaluation.cold_users import measured_at
from retrieval.evaluation.metric_table import CLASSES, MODEL, popularity_class, shown_share
from retrieval.evaluation.report import charts
from retrieval.evaluation.report.charts import Spec
from retrieval.evaluation.report.example_users import Example, Line, examples
from retrieval.evaluation.report.item_map import item_map
from retrieval.evaluation.report.template import Html, fill, join
from retrieval.evaluation.result import Evaluation
from retrieval.evaluation.table import STAGES

BADGES = {
    "wins": "Better than every baseline",
    "level": "No clear winner",
    "loses": "A baseline is better",
    "alone": "No baselines to compare with",
}


def html(evaluation: Evaluation, result: Mapping[str, Any]) -> str:
    """Render the page.

    Args:
        evaluation: What was measured.
        result: The same as `metrics.json` has it.
    """
    page = _Page()
    parts = [
        _head(evaluation, result),
        _advice(evaluation),
        _metrics(evaluation, result),
        _ratings(result),
        _pair(_cold_items(result), _cold_users(result)),
        _pair(_gains(evaluation, page), _popularity(evaluation, result, page)),
        _pair(*_slices(evaluation, result, page)),
        _pair(_recall(evaluation, page), _training(evaluation, page)),
        _map(evaluation, page),
        _users(evaluation),
        _footer(evaluation, result),
    ]
    specs = json.dumps(page.specs, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return fill(
        "page",
        title=evaluation.path.resolve().name,
        body=Html("\n".join(part for part in parts if part)),
        specs=Html(specs),
        vega=Html(_vega().replace("</script", "<\\/script")),
    )


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    return str(vl_convert.javascript_bundle())


class _Page:
    """Collects the specifications of the charts."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}

    def chart(self, name: str, spec: Spec, *, description: str) -> Html:
        """A placeholder for a chart. description: for screen readers."""
        self.specs[name] = spec
        return fill("chart", name=name, description=description)


def _pair(*cards: Html) -> Html:
    """Cards side by side where there is room."""
    shown = [card for card in cards if card]
    return fill("pair", cards=join(shown)) if shown else Html()


def _card(title: str, note: str, content: Html) -> Html:
    return fill("card", title=title, note=note, content=content)


def _table(head: Sequence[str], rows: Mapping[str, Sequence[tuple[str, str]]]) -> Html:
    """A table with a row for each model. rows: name -> texts and classes of its cells."""
    body = [
        fill(
            "tr",
            kind="own" if name == MODEL else "",
            cells=join([fill("td", text=name, kind=""), *(fill("td", text=text, kind=kind) for text, kind in cells)]),
        )
        for name, cells in rows.items()
    ]
    return fill("table", head=join([fill("th", text=title) for title in ("", *head)]), rows=join(body))


def _head(evaluation: Evaluation, result: Mapping[str, Any]) -> Html:
    outcome = evaluation.verdict.outcome
    verdict, colon, numbers = evaluation.verdict.sentence.rpartition(": ")
    facts = {
        f"{_stage(evaluation)} users": f"{result['users']:,}",
        "items": f"{result['items']:,}",
        "training interactions": f"{result['split']['interactions'].get('train', 0):,}",
        "split": result["split"]["kind"],
        "index": result["index"]["kind"],
        "model": evaluation.pair_id,
    }
    return fill(
        "head",
        name=evaluation.path.resolve().name,
        date=str(result["created"])[:10],
        outcome=outcome,
        badge=BADGES[outcome],
        verdict=verdict if colon else numbers,
        numbers=numbers if colon else "",
        facts=join([fill("fact", name=name, value=value) for name, value in facts.items()]),
    )


def _advice(evaluation: Evaluation) -> Html:
    if not evaluation.verdict.advice:
        return Html()
    entries = join([fill("entry", text=entry) for entry in evaluation.verdict.advice])
    return _card("What to try", "The most promising first.", fill("bullets", entries=entries))


def _metrics(evaluation: Evaluation, result: Mapping[str, Any]) -> Html:
    k = evaluation.k
    columns = [f"ndcg@{k}", f"recall@{k}"]
    columns += [f"{name}@{length}" for name in ("ndcg", "recall") for length in evaluation.ks if length != k]
    columns += [f"mrr@{k}", f"coverage@{k}", f"novelty@{k}", f"gini@{k}"]
    rows = {MODEL: result["metrics"], **result["baselines"]}
    # No end of novelty and Gini is better.
    ranked = {column for column in columns if not column.startswith(("novelty", "gini"))}
    best = {column: max(values[column] for values in rows.values()) for column in ranked}
    cells = {
        name: [
            (f"{values[column]:.4f}", "best" if column in ranked and values[column] == best[column] else "")
            for column in columns
        ]
        for name, values in rows.items()
    }
    skipped = [f"{name}: {reason}" for name, reason in result["baselines_left_out"].items()]
    note = (
        "All items are ranked, excluding the user's history; ties count against the model. Baselines are fitted on the "
        "same interactions, tuned on validation, and see the same histories. The best of each column is marked. "
        "Novelty is higher for less popular items. Gini is 0 if all items are recommended equally often, 1 if only one "
        "is."
    )
    note += f" Skipped: {'; '.join(skipped)}." if skipped else ""
    return _card("Compared with baselines", note, _table(columns, cells))


def _ratings(result: Mapping[str, Any]) -> Html:
    if "rating" not in result:
        return Html()
    rating = result["rating"]
    rows = {
        name: [(f"{errors[metric]:.4f}", "") for metric in ("rmse", "mae")]
        for name, errors in {MODEL: rating, **rating["baselines"]}.items()
    }
    return _card(
        "Rating prediction",
        f"Errors on {rating['ratings']:,} held-out ratings; lower is better.",
        _table(["RMSE", "MAE"], rows),
    )


def _cold_items(result: Mapping[str, Any]) -> Html:
    if "cold_items" not in result:
        return Html()
    cold = result["cold_items"]
    return _card(
        "Cold-start items",
        f"The {cold['items']:,} items without training interactions, ranked among themselves for the {cold['users']:,} "
        "users who chose one of them. content-kNN uses the same item features.",
        _intervals(f"recall@{K}", cold),
    )


def _cold_users(result: Mapping[str, Any]) -> Html:
    if "features_only" not in result:
        return Html()
    cold = result["features_only"]
    known = f"only {', '.join(cold['features'])}" if cold["features"] else "no features"
    return _card(
        "Cold-start users",
        f"The same {cold['users']:,} users without their histories: the model knows {known}. The gap between rows 1 "
        "and 2 is the value of user features; popularity needs no model.",
        _intervals(measured_at(cold), cold),
    )


def _intervals(metric: str, result: Mapping[str, Any]) -> Html:
    """A table of one metric with its intervals. result: metric -> model -> interval."""
    rows = {
        name: [(f"{interval['value']:.4f}", ""), (f"{interval['low']:.4f} – {interval['high']:.4f}", "")]
        for name, interval in result[metric].items()
    }
    return _table([metric, "95% interval"], rows)


def _gains(evaluation: Evaluation, page: _Page) -> Html:
    if not evaluation.rivals:
        return Html()
    return _card(
        "Gain over each baseline",
        "Difference in NDCG with 95% bootstrap intervals over users. Green: the model is better; red: the baseline is "
        "better; amber: not significant.",
        page.chart("differences", charts.differences(evaluation), description=evaluation.verdict.sentence),
    )


def _recall(evaluation: Evaluation, page: _Page) -> Html:
    return _card(
        "Recall by list length",
        "A ranking stage usually takes tens or hundreds of candidates: read the recall at that length.",
        page.chart("recall", charts.recall_against_k(evaluation), description="Recall at 1 to 100 of every model"),
    )


def _slices(evaluation: Evaluation, result: Mapping[str, Any], page: _Page) -> tuple[Html, Html]:
    parts = result["slices"]
    by_history = charts.slices(evaluation, parts["history"], axis="items in the user's history")
    by_popularity = charts.slices(evaluation, parts["popularity"], axis="popularity of the item")
    return (
        _card(
            "By length of the history",
            f"Recall@{evaluation.k} by the number of items in the history. Below each group: held-out interactions.",
            page.chart("by-history", by_history, description="Recall by length of the history"),
        ),
        _card(
            "By popularity of the item",
            f"Recall@{evaluation.k} by popularity in training: head, middle and tail have a third of all interactions "
            "each; cold items have none.",
            page.chart("by-popularity", by_popularity, description="Recall by popularity of the item"),
        ),
    )


def _popularity(evaluation: Evaluation, result: Mapping[str, Any], page: _Page) -> Html:
    popularity, k = evaluation.held.popularity, evaluation.k
    classes = popularity_class(popularity)[evaluation.stage.truth.indices]
    total = max(len(classes), 1)
    shares: dict[str, Mapping[str, float]] = {
        "held-out choices": {label: float((classes == code).sum() / total) for code, label in enumerate(CLASSES)},
        MODEL: shown_share(evaluation.model.lists[:, :k], popularity),
    }
    shares |= {
        name: shown_share(baseline.measured.lists[:, :k], popularity) for name, baseline in evaluation.rivals.items()
    }
    coverage, gini = result["metrics"][f"coverage@{k}"], result["metrics"][f"gini@{k}"]
    return _card(
        "Popularity bias",
        f"Share of popular (head), less popular (middle) and rare (tail) items in the top {k}. The model recommends "
        f"{coverage:.0%} of the catalogue to at least one user; Gini {gini:.2f}.",
        page.chart("popularity", charts.popularity_bias(shares), description="Recommendations by popularity"),
    )


def _training(evaluation: Evaluation, page: _Page) -> Html:
    epochs = [epoch for epoch in evaluation.epochs if "train_loss" in epoch and "epoch" in epoch]
    if len(epochs) < 2:
        return Html()
    validated = [epoch for epoch in epochs if "ndcg@10" in epoch]
    drawn = [page.chart("loss", charts.training_loss(epochs), description="Training loss by epoch")]
    if len(validated) > 1:
        chart = page.chart("validation", charts.validation(validated), description="Validation metrics by epoch")
        drawn.insert(0, chart)
    seconds = evaluation.summary.get("seconds")
    took = f" Training took {seconds:,.0f} s." if isinstance(seconds, int | float) else ""
    return _card("Training", f"{len(epochs)} epochs; the dashed line marks the one that was kept.{took}", join(drawn))


def _map(evaluation: Evaluation, page: _Page) -> Html:
    drawn = item_map(evaluation.held, evaluation.answers.items)
    if len(drawn.rows) < 3:
        return Html()
    note = (
        f"Principal components of the item embeddings ({drawn.explained:.0%} of the variance). Larger dots have more "
        "users. Point at a dot to see its item; drag to pan, scroll to zoom."
    )
    if drawn.attribute is not None:
        note += f" Colour: {drawn.attribute}, the attribute best explained by the embeddings."
    count, total = len(drawn.rows), evaluation.held.item_count
    return _card(
        "Item map" + (f": the {count:,} most popular items" if count < total else ""),
        note,
        page.chart("map", charts.items(evaluation, drawn), description="Item embeddings in two dimensions"),
    )


def _users(evaluation: Evaluation) -> Html:
    shown = [_user(example, evaluation.verdict.baseline) for example in examples(evaluation)]
    if not shown:
        return Html()
    note = "Their history, newest first, and the top recommendations; held-out items are marked where they are found."
    return _card("Three users", note, fill("users", users=join(shown)))


def _user(example: Example, baseline: str | None) -> Html:
    lists = [
        fill("heading", text="Held-out items"),
        _list("bullets", example.truth),
        fill("heading", text="History"),
        _list("bullets", example.history),
    ]
    if example.longer_by:
        lists.append(fill("soft", text=f"and {example.longer_by:,} earlier items"))
    lists += [fill("heading", text="Two towers"), _list("ordered", example.model)]
    if baseline is not None:
        lists += [fill("heading", text=f"Baseline {baseline}"), _list("ordered", example.baseline_hits)]
    return fill("user", heading=example.heading, user=example.user, lists=join(lists))


def _list(kind: str, lines: Sequence[Line]) -> Html:
    if not lines:
        return fill("soft", text="none")
    return fill(kind, entries=join([fill("hit" if line.right else "entry", text=line.name) for line in lines]))


def _footer(evaluation: Evaluation, result: Mapping[str, Any]) -> Html:
    index = result["index"]
    settings = [
        fill("entry", text=f"{name}: {_settings(facts)}") for name, facts in result["baseline_settings"].items()
    ]
    line = f"Index {index['kind']}: {index['recall@10_vs_exact']:.1%} of the exact top 10."
    return fill("footer", index=line, stage=_stage(evaluation), settings=join(settings))


def _settings(facts: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} {value:g}" for name, value in facts["settings"].items()) or "no settings"
    tried = f" (best of {facts['tried']})" if facts.get("tried", 0) > 1 else ""
    late = ", stopped at the time limit" if facts.get("out_of_time") else ""
    return f"{settings}{tried}{late}"


def _stage(evaluation: Evaluation) -> str:
    return STAGES.get(evaluation.stage.name, evaluation.stage.name)
