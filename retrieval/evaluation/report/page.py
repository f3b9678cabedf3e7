"""report.html: what was measured, on one page without network that a person reads with pleasure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from retrieval.evaluation.cold_items import K
from retrieval.evaluation.cold_users import measured_at
from retrieval.evaluation.metric_table import CLASSES, MODEL, popularity_class, shown_share
from retrieval.evaluation.report import charts
from retrieval.evaluation.report.charts import Spec
from retrieval.evaluation.report.example_users import Example, Line, examples
from retrieval.evaluation.report.item_map import item_map
from retrieval.evaluation.report.style import SCRIPT, STYLE
from retrieval.evaluation.result import Evaluation

BADGES = {
    "wins": "Better than every baseline",
    "level": "No clear winner",
    "loses": "Behind a simple model",
    "alone": "Nothing to compare with",
}


def html(judged: Evaluation, result: Mapping[str, Any]) -> str:
    """The page. result: what `metrics.json` says of the evaluation."""
    page = _Page()
    parts = [
        _head(judged, result),
        _scores(judged, result),
        _ratings(result),
        page.pair(_cold(result), _features_only(result)),
        page.pair(_against(judged, page), _popularity(judged, result, page)),
        page.pair(*_slices(judged, result, page)),
        page.pair(_recall(judged, page), _training(judged, page)),
        _map(judged, page),
        _users(judged),
        _how(judged, result),
    ]
    body = "\n".join(part for part in parts if part)
    specs = json.dumps(page.specs, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(judged.path.resolve().name)}: evaluation</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n"
        f'</main>\n<script type="application/json" id="specs">{specs}</script>\n'
        f"<script>{_drawing_code()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _drawing_code() -> str:
    """Vega, Vega-Lite and their embedding, to stand inside the page."""
    import vl_convert

    return str(vl_convert.javascript_bundle()).replace("</script", "<\\/script")


class _Page:
    """Collects the charts and gives each its place."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}

    def chart(self, name: str, spec: Spec, *, says: str) -> str:
        """A place for a chart. says: for whoever does not see it."""
        self.specs[name] = spec
        return f'<div class="chart" id="{name}" role="img" aria-label="{escape(says)}"></div>'

    @staticmethod
    def pair(*cards: str) -> str:
        """Cards beside each other where there is room."""
        shown = [card for card in cards if card]
        return f'<div class="pair">{"".join(shown)}</div>' if shown else ""


def _card(title: str, note: str, content: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{content}</section>'


def _head(judged: Evaluation, result: Mapping[str, Any]) -> str:
    outcome = judged.verdict.outcome
    said, colon, numbers = judged.verdict.sentence.rpartition(": ")
    if not colon:
        said, numbers = numbers, ""
    facts = {
        "users judged": f"{result['users']:,}",
        "items": f"{result['items']:,}",
        "training interactions": f"{result['split']['interactions'].get('train', 0):,}",
        "split": result["split"]["kind"],
        "index": result["index"]["kind"],
        "model": judged.pair_id,
    }
    shown = "".join(f"<div><b>{escape(str(value))}</b>{escape(name)}</div>" for name, value in facts.items())
    tries = ""
    if judged.verdict.advice:
        entries = "".join(f"<li>{escape(entry)}</li>" for entry in judged.verdict.advice)
        tries = f'<section class="card"><h2>What to try</h2><ul>{entries}</ul></section>'
    return (
        f"<header><h1>{escape(judged.path.resolve().name)} · {escape(str(result['created'])[:10])}</h1>"
        f'<span class="badge {outcome}">{BADGES[outcome]}</span>'
        f'<p class="verdict">{escape(said)}</p><p class="soft">{escape(numbers)}</p></header>'
        f'<div class="facts">{shown}</div>{tries}'
    )


def _scores(judged: Evaluation, result: Mapping[str, Any]) -> str:
    k = judged.k
    columns = [f"{name}@{length}" for name in ("recall", "ndcg") for length in judged.ks]
    columns += [f"mrr@{k}", f"coverage@{k}", f"novelty@{k}", f"gini@{k}"]
    rows = {MODEL: result["metrics"], **result["baselines"]}
    # Of novelty and Gini neither end is better.
    ranked = {column for column in columns if not column.startswith(("novelty", "gini"))}
    best = {column: max(values[column] for values in rows.values()) for column in ranked}
    body = []
    for name, values in rows.items():
        marks = {column: " class=best" for column in ranked if values[column] == best[column]}
        cells = "".join(f"<td{marks.get(column, '')}>{values[column]:.4f}</td>" for column in columns)
        body.append(f"<tr{' class=own' if name == MODEL else ''}><td>{escape(name)}</td>{cells}</tr>")
    left_out = [f"{name}: {reason}" for name, reason in result["baselines_left_out"].items()]
    note = (
        "Whole catalogue ranked, less what a user is known to have; ties count against the model. Baselines are fitted "
        "on the same training rows, tuned on validation and fed the same histories. The best of a column is marked."
    )
    return _card(
        "Compared with simple baselines",
        note + (f" Left out: {'; '.join(left_out)}." if left_out else ""),
        _grid(["", *columns], body),
    )


def _grid(head: Sequence[str], rows: Iterable[str]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _ratings(result: Mapping[str, Any]) -> str:
    if "rating" not in result:
        return ""
    rating = result["rating"]
    rows = {MODEL: rating, **rating["baselines"]}
    body = [
        f"<tr{' class=own' if name == MODEL else ''}><td>{escape(name)}</td><td>{errors['rmse']:.4f}</td>"
        f"<td>{errors['mae']:.4f}</td></tr>"
        for name, errors in rows.items()
    ]
    return _card(
        "Error of predicted values",
        f"On {rating['ratings']:,} held-out interactions with a value; lower is better.",
        _grid(["", "RMSE", "MAE"], body),
    )


def _cold(result: Mapping[str, Any]) -> str:
    if "cold_items" not in result:
        return ""
    cold = result["cold_items"]
    return _card(
        "New items",
        f"The {cold['items']:,} items without training interactions, ranked among themselves for the {cold['users']:,} "
        "users who went on to choose one; the content-kNN sees the same features.",
        _intervals(f"recall@{K}", cold),
    )


def _features_only(result: Mapping[str, Any]) -> str:
    if "features_only" not in result:
        return ""
    told = result["features_only"]
    known = f"with {', '.join(told['features'])} alone" if told["features"] else "with nothing known of them"
    return _card(
        "Users without a history",
        f"The same {told['users']:,} users asked {known}. What their features say of them is worth the gap to the "
        "answers for another user's; popularity is what needs no model.",
        _intervals(measured_at(told), told),
    )


def _intervals(measure: str, told: Mapping[str, Any]) -> str:
    """A table of one measure of several models with their intervals. told: measure -> model -> interval."""
    body = [
        f"<tr{' class=own' if name == MODEL else ''}><td>{escape(name)}</td><td>{interval['value']:.4f}</td>"
        f"<td>{interval['low']:.4f} – {interval['high']:.4f}</td></tr>"
        for name, interval in told[measure].items()
    ]
    return _grid(["", measure, "95% interval"], body)


def _against(judged: Evaluation, page: _Page) -> str:
    if not judged.rivals:
        return ""
    return _card(
        "Gain over each baseline",
        "Difference in NDCG, with 95% bootstrap intervals over users. Green is a gain, red a loss; amber, where the "
        "interval holds zero, may be chance.",
        page.chart("differences", charts.differences(judged), says=judged.verdict.sentence),
    )


def _recall(judged: Evaluation, page: _Page) -> str:
    return _card(
        "Recall against the length of the list",
        "A retrieval stage hands on tens or hundreds: look where your ranking stage starts.",
        page.chart("recall", charts.recall_against_k(judged), says="Recall at 1 to 100 of every model"),
    )


def _slices(judged: Evaluation, result: Mapping[str, Any], page: _Page) -> tuple[str, str]:
    parts = result["slices"]
    by_history = charts.slices(judged, parts["history"], axis="items in the user's history")
    by_popularity = charts.slices(judged, parts["popularity"], axis="popularity of the item to be found")
    return (
        _card(
            "By length of the history",
            f"Share of what users went on to choose that is among their first {judged.k}, by how many items they had "
            "before; below each group how many there were to find.",
            page.chart("by-history", by_history, says="Share found by length of history"),
        ),
        _card(
            "By popularity of the item",
            "The same share by how popular the item was in training: head, middle and tail have a third of all "
            "interactions each; cold items have none.",
            page.chart("by-popularity", by_popularity, says="Share found by popularity of the item"),
        ),
    )


def _popularity(judged: Evaluation, result: Mapping[str, Any], page: _Page) -> str:
    popularity, k = judged.held.popularity, judged.k
    classes = popularity_class(popularity)[judged.stage.truth.indices]
    total = max(len(classes), 1)
    shares: dict[str, Mapping[str, float]] = {
        "what users chose": {label: float((classes == code).sum() / total) for code, label in enumerate(CLASSES)},
        MODEL: shown_share(judged.model.lists[:, :k], popularity),
    }
    shares |= {name: shown_share(rival.measured.lists[:, :k], popularity) for name, rival in judged.rivals.items()}
    covered, gini = result["metrics"][f"coverage@{k}"], result["metrics"][f"gini@{k}"]
    return _card(
        "Popular and rare items",
        f"Shares of the first {k} that are popular (head), less so (middle) or rare (tail) items. The towers show "
        f"{covered:.0%} of the catalogue to somebody; Gini {gini:.2f} (0: every item as often, 1: one item always).",
        page.chart("popularity", charts.popularity_bias(shares), says="Shares of recommendations by popularity"),
    )


def _training(judged: Evaluation, page: _Page) -> str:
    epochs = [epoch for epoch in judged.epochs if "train_loss" in epoch and "epoch" in epoch]
    if len(epochs) < 2:
        return ""
    scored = [epoch for epoch in epochs if "ndcg@10" in epoch]
    drawn = ""
    if len(scored) > 1:
        drawn = page.chart("validation", charts.validation(scored), says="Validation by epoch")
    drawn += page.chart("loss", charts.training_loss(epochs), says="Training loss by epoch")
    seconds = judged.summary.get("seconds")
    took = f" {seconds:,.0f} s in all." if isinstance(seconds, int | float) else ""
    return _card("Training", f"{len(epochs)} epochs; the dashed line is the one that was kept.{took}", drawn)


def _map(judged: Evaluation, page: _Page) -> str:
    drawn = item_map(judged.held, judged.answers.items)
    if len(drawn.rows) < 3:
        return ""
    note = (
        f"Item vectors along their two main directions ({drawn.explained:.0%} of the variance), the larger the more "
        "users. Point at one to see what it is; drag and scroll to move."
    )
    if drawn.attribute is not None:
        note += f" Coloured by {drawn.attribute}, of all attributes the one that the vectors tell most of."
    return _card(
        "Map of the items"
        + (f": {len(drawn.rows):,} most popular" if len(drawn.rows) < judged.held.item_count else ""),
        note,
        page.chart("map", charts.items(judged, drawn), says="Item vectors in two dimensions"),
    )


def _users(judged: Evaluation) -> str:
    shown = "".join(_user(example, judged.verdict.rival) for example in examples(judged))
    if not shown:
        return ""
    note = "What they had, newest first; what they went on to choose is marked wherever it was found."
    return _card("Three users", note, f'<div class="users">{shown}</div>')


def _user(example: Example, rival: str | None) -> str:
    more = f'<p class="soft">and {example.longer_by:,} before</p>' if example.longer_by else ""
    lists = [
        ("Went on to choose", _lines("ul", example.truth)),
        ("Had", _lines("ul", example.history) + more),
        ("The towers answer", _lines("ol", example.model)),
    ]
    if rival is not None:
        lists.append((f"{rival} answers", _lines("ol", example.rival)))
    parts = "".join(f"<h4>{escape(title)}</h4>{content}" for title, content in lists)
    return (
        f'<article class="user"><h3>{escape(example.heading)}</h3><span class="soft">user <code>'
        f"{escape(example.user)}</code></span>{parts}</article>"
    )


def _lines(tag: str, lines: Sequence[Line]) -> str:
    entries = (
        f'<li><span class="right">{escape(line.name)}</span></li>' if line.right else f"<li>{escape(line.name)}</li>"
        for line in lines
    )
    return f"<{tag}>{''.join(entries)}</{tag}>" if lines else '<p class="soft">nothing</p>'


def _how(judged: Evaluation, result: Mapping[str, Any]) -> str:
    index = result["index"]
    settings = "".join(
        f"<li>{escape(name)}: {escape(_told(facts))}</li>" for name, facts in result["baseline_settings"].items()
    )
    return (
        "<footer><p>Users went through <code>user_tower.onnx</code> and the index, as a query does; the index "
        f"({escape(str(index['kind']))}) answers {index['recall@10_vs_exact']:.1%} of the exact first ten. Judged on "
        f"{escape(judged.stage.name)}. A baseline's settings were chosen on validation:</p><ul>{settings}</ul></footer>"
    )


def _told(facts: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} {value:g}" for name, value in facts["settings"].items()) or "nothing to set"
    tried = f"; {facts['tried']} tried" if facts.get("tried", 0) > 1 else ""
    late = ", not all within the time" if facts.get("out_of_time") else ""
    return f"{settings}{tried}{late}"
