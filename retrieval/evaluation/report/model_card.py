"""MODEL_CARD.md: the model, its data, its training, its evaluation and its limits.

After Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrieval.evaluation.cold_items import cold_line
from retrieval.evaluation.cold_users import features_line
from retrieval.evaluation.held_out import HeldOut
from retrieval.evaluation.metric_table import MODEL
from retrieval.evaluation.result import Evaluation
from retrieval.evaluation.table import STAGES
from retrieval.features.columns import date_of

LIMITS = (
    "The evaluation is offline: an item that was never shown to a user cannot count as relevant. Expect the ranking "
    "of models to carry over to production, not the metrics.",
    "The model reproduces the biases of its data, such as popularity bias; the slices above show how much.",
    "Scores are cosine similarities. They rank the items of one user; they are not probabilities.",
)


def markdown(evaluation: Evaluation, result: Mapping[str, Any]) -> str:
    """The model card.

    result: what `metrics.json` says of the evaluation.
    """
    index = result["index"]
    found = f"{index['kind']}, recall@10 {index['recall@10_vs_exact']} of exact search"
    measured = [
        "Users are evaluated as in production: through `user_tower.onnx` and the index. All items are ranked,",
        "excluding the user's history; ties count against the model. Baselines are fitted on the same interactions,",
        "tuned on validation, and see the same histories. Intervals: 95% bootstrap over users, of the difference in",
        f"NDCG@{evaluation.k}.",
        "",
        *_measured(evaluation, result),
        "",
        *_further(result),
        *_slices(evaluation, result),
    ]
    split = f"{evaluation.held.split_kind}; evaluated on {result['users']:,} {STAGES.get(evaluation.stage.name)} users"
    about = {"name": evaluation.path.resolve().name, "pair_id": evaluation.pair_id}
    model = [("Index", found)]
    sentence = result["verdict"]["sentence"]
    return _card(
        evaluation.held, evaluation.summary, **about, lead=sentence, model=model, split=split, measured=measured
    )


def refitted(held: HeldOut, summary: Mapping[str, Any], *, name: str, pair_id: str) -> str:
    """The model card of a refit, which has no held-out data to evaluate on.

    summary: Facts of the training; `refitted_from` holds the evaluation before the refit.
    """
    lead = (
        "Trained on all interactions, the held-out ones included (`twotower train --refit`), for the number of epochs "
        "that validation chose. It cannot be evaluated: no data is held out."
    )
    before = summary.get("refitted_from")
    if before is None:
        measured = ["Nothing: the training before the refit was not evaluated."]
    else:
        measured = [
            f"Model `{before['pair_id']}`, trained with the same settings without the held-out interactions:",
            before["verdict"],
            "",
            *_table(("", "before the refit"), [(key, f"{value:.4f}") for key, value in before["metrics"].items()]),
        ]
    return _card(
        held, summary, name=name, pair_id=pair_id, lead=lead, model=[], split="none (refit)", measured=measured
    )


def _card(
    held: HeldOut,
    summary: Mapping[str, Any],
    *,
    name: str,
    pair_id: str,
    lead: str,
    model: Sequence[tuple[str, str]],
    split: str,
    measured: Sequence[str],
) -> str:
    """The card, in the order of Mitchell et al."""
    config, span = held.config, held.span()
    lines = [
        f"# Model card: {name}",
        "",
        lead,
        "",
        "## The model",
        "",
        *_table(
            ("", ""),
            [
                ("Pair id", f"`{pair_id}`"),
                ("Kind", "two towers, unit vectors, inner product; user and item tower as ONNX files"),
                *_recipe(config),
                ("Parameters", f"{summary['parameters']:,}" if "parameters" in summary else "unknown"),
                ("User features", _features(config, "user")),
                ("Item features", _features(config, "item")),
                *model,
            ],
        ),
        "",
        "## The data",
        "",
        *_table(
            ("", ""),
            [
                ("Users, items", f"{held.user_count:,}, {held.item_count:,}"),
                ("Interactions", ", ".join(f"{part} {count:,}" for part, count in held.counts().items())),
                ("Span", "no times" if span is None else f"{date_of(span[0])} to {date_of(span[1])}"),
                ("Fingerprint", f"`{summary.get('fingerprint', 'unknown')}`"),
                ("Split", split),
            ],
        ),
        "",
        "## Training",
        "",
        *_table(("", ""), list(_training(summary))),
        "",
        "## Evaluation",
        "",
        *measured,
        "",
        "## Intended use",
        "",
        "Candidate retrieval: tens to hundreds of items from a catalogue of this kind, for users whose histories and",
        "features resemble those above. Add a ranking stage that knows price, stock or context. Not for decisions",
        "about people.",
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """A Markdown table; "|" within a cell is escaped."""
    cells = [tuple(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in (head, *rows)]
    top, *rest = ("| " + " | ".join(row) + " |" for row in cells)
    return [top, "| " + " | ".join("---" for _ in head) + " |", *rest]


def _recipe(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, train = config.get("model", {}), config.get("train", {})
    encoders = ", ".join(f"{side}: {(model.get(side) or {}).get('encoder', 'default')}" for side in ("user", "item"))
    named = {name: model.get(name) for name in ("dim", "layers", "heads", "dropout")}
    named |= {name: value for name, value in train.items() if name not in ("epochs", "patience", "accelerator")}
    if named.get("objective") != "sampled-softmax":
        named.pop("candidates", None)
    ease = model.get("ease") or {}
    rows = [("Encoders", encoders), ("Recipe", _settings(named))]
    return [*rows, ("EASE", _settings(ease))] if ease.get("weight") else rows


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
        if value is not None
    )


def _features(config: Mapping[str, Any], side: str) -> str:
    features = config.get(side, {}).get("features", [])
    return ", ".join(f"{feature['name']} ({feature['kind']})" for feature in features) or "none"


def _training(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if not summary:
        yield "Training", "unknown"
        return
    best = summary.get("best", {})
    yield "Epochs", f"{summary.get('epochs', 'unknown')}, best {best.get('epoch', 'unknown')}"
    if "seconds" in summary:
        yield "Time", f"{summary['seconds']:.0f} s, {summary.get('seconds_to_best', 0):.0f} s to the best epoch"
    if "interactions_per_second" in summary:
        yield "Throughput", f"{summary['interactions_per_second']:,.0f} interactions/s"
    if "peak_memory_bytes" in summary:
        yield "Peak memory", f"{summary['peak_memory_bytes'] / 1e6:,.0f} MB"


def _measured(evaluation: Evaluation, result: Mapping[str, Any]) -> list[str]:
    columns = [f"{name}@{k}" for name in ("recall", "ndcg") for k in evaluation.ks]
    columns += [f"{name}@{evaluation.k}" for name in ("mrr", "coverage", "novelty", "gini")]
    rows = [(f"**{MODEL}**", *(f"{result['metrics'][column]:.4f}" for column in columns), "")]
    for name, values in result["baselines"].items():
        gap = result["differences"][name][f"ndcg@{evaluation.k}"]
        interval = f"{gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
        rows.append((name, *(f"{values[column]:.4f}" for column in columns), interval))
    lines = _table(("", *columns, f"gain of {MODEL}"), rows)
    left_out = [f"{name}: {reason}" for name, reason in result["baselines_left_out"].items()]
    return lines + (["", "Skipped: " + "; ".join(left_out) + "."] if left_out else [])


def _further(result: Mapping[str, Any]) -> list[str]:
    """Rating prediction, cold items and cold users, as far as they were measured."""
    lines: list[str] = []
    if "rating" in result:
        rating = result["rating"]
        rows = [(name, errors["rmse"], errors["mae"]) for name, errors in rating["baselines"].items()]
        own = (f"**{MODEL}**", rating["rmse"], rating["mae"])
        lines += [*_table((f"error on {rating['ratings']:,} ratings", "RMSE", "MAE"), [own, *rows]), ""]
    if "cold_items" in result:
        lines += [cold_line(result["cold_items"]) + ".", ""]
    if "features_only" in result:
        lines += [features_line(result["features_only"]) + ".", ""]
    return lines


def _slices(evaluation: Evaluation, result: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    baseline = evaluation.verdict.baseline
    for kind, title in (("history", "items in the history"), ("popularity", "popularity of the item")):
        rows = []
        for part in result["slices"][kind]:
            other = (f"{part[baseline]:.4f}",) if baseline else ()
            rows.append((part["slice"], f"{part['truths']:,}", f"{part['found']:.4f}", *other))
        head = (title, "held-out", f"recall@{evaluation.k}", *((baseline,) if baseline else ()))
        lines += [*_table(head, rows), ""]
    return lines[:-1]
