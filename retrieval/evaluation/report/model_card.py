"""MODEL_CARD.md: what the model is, what it was trained on and judged by, and where its limits are.

After Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrieval.evaluation.cold_items import cold_line
from retrieval.evaluation.cold_users import features_line
from retrieval.evaluation.held_out import HeldOut
from retrieval.evaluation.metric_table import MODEL
from retrieval.evaluation.result import Evaluation
from retrieval.features.columns import date_of

LIMITS = (
    "Measured offline, on interactions that were recorded: an item that nobody was shown could not be right. Expect "
    "the order of models to carry over to live use, not the numbers.",
    "It repeats what it was trained on, popularity and gaps in who is represented included; the slices show how far.",
    "Scores are cosines: they order the items of one user, and are no probabilities.",
)


def markdown(judged: Evaluation, result: Mapping[str, Any]) -> str:
    """The model card.

    result: what `metrics.json` says of the evaluation.
    """
    index = result["index"]
    found = f"{index['kind']}, recall@10 against exact {index['recall@10_vs_exact']}"
    measured = [
        "Users go through `user_tower.onnx` and the index, as in use. The whole catalogue is ranked, less what a user",
        "is known to have; ties count against the model. Baselines are fitted on the same training rows, tuned on",
        "validation, and fed the same histories. Intervals: 95%, users drawn anew, of the difference in",
        f"NDCG@{judged.k}.",
        "",
        *_measured(judged, result),
        "",
        *_further(result),
        *_slices(judged, result),
    ]
    split = f"{judged.held.split_kind}; judged on {judged.stage.name}, {result['users']:,} users"
    about = {"name": judged.path.resolve().name, "pair_id": judged.pair_id}
    model = [("Index", found)]
    sentence = result["verdict"]["sentence"]
    return _card(judged.held, judged.summary, **about, lead=sentence, model=model, split=split, measured=measured)


def refitted(held: HeldOut, summary: Mapping[str, Any], *, name: str, pair_id: str) -> str:
    """The model card of a training on everything, which nothing is held out to judge.

    summary: what the training says of itself; `refitted_from` in it, what was measured before.
    """
    lead = (
        "Trained on everything (`twotower train --refit`), what was held out before included, for as long as "
        "validation chose. It was not judged itself: nothing is left to judge it by."
    )
    before = summary.get("refitted_from")
    if before is None:
        measured = ["Nothing: the training that it was refitted from had not been evaluated."]
    else:
        measured = [
            f"Model `{before['pair_id']}`, of the same data and recipe without what was held out from it:",
            before["verdict"],
            "",
            *_table(("", "of the model before"), [(key, f"{value:.4f}") for key, value in before["metrics"].items()]),
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
    """What all cards say, with what is particular to one in its place."""
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
        "## What was measured",
        "",
        *measured,
        "",
        "## Intended use",
        "",
        "Retrieval: picking some tens or hundreds of candidates from a catalogue of this kind, for users whose history",
        "and features look like those above. A ranking stage that knows price, stock or context belongs behind it.",
        "Not for decisions about people.",
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """A table in Markdown; a bar within a cell is escaped."""
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
    rows = [("Encoders", encoders), ("Recipe", _told(named))]
    return [*rows, ("EASE", _told(ease))] if ease.get("weight") else rows


def _told(settings: Mapping[str, Any]) -> str:
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
        yield "Seconds", f"{summary['seconds']:.0f} in all, {summary.get('seconds_to_best', 0):.0f} to the best epoch"
    if "interactions_per_second" in summary:
        yield "Throughput", f"{summary['interactions_per_second']:,.0f} interactions a second"
    if "peak_memory_bytes" in summary:
        yield "Peak memory", f"{summary['peak_memory_bytes'] / 1e6:,.0f} MB"


def _measured(judged: Evaluation, result: Mapping[str, Any]) -> list[str]:
    columns = [f"{name}@{k}" for name in ("recall", "ndcg") for k in judged.ks]
    columns += [f"{name}@{judged.k}" for name in ("mrr", "coverage", "novelty", "gini")]
    rows = [(f"**{MODEL}**", *(f"{result['metrics'][column]:.4f}" for column in columns), "")]
    for name, values in result["baselines"].items():
        gap = result["differences"][name][f"ndcg@{judged.k}"]
        interval = f"{gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
        rows.append((name, *(f"{values[column]:.4f}" for column in columns), interval))
    lines = _table(("", *columns, f"{MODEL} less this"), rows)
    left_out = [f"{name}: {reason}" for name, reason in result["baselines_left_out"].items()]
    return lines + (["", "Left out: " + "; ".join(left_out) + "."] if left_out else [])


def _further(result: Mapping[str, Any]) -> list[str]:
    """Predicted values, new items and users without history, where there is something to tell."""
    lines: list[str] = []
    if "rating" in result:
        rating = result["rating"]
        rows = [(name, errors["rmse"], errors["mae"]) for name, errors in rating["baselines"].items()]
        own = (f"**{MODEL}**", rating["rmse"], rating["mae"])
        lines += [*_table((f"error on {rating['ratings']:,} values", "RMSE", "MAE"), [own, *rows]), ""]
    if "cold_items" in result:
        lines += [cold_line(result["cold_items"]) + ".", ""]
    if "features_only" in result:
        lines += [features_line(result["features_only"]) + ".", ""]
    return lines


def _slices(judged: Evaluation, result: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    rival = judged.verdict.rival
    for kind, title in (("history", "items in the history"), ("popularity", "popularity of the item")):
        rows = []
        for part in result["slices"][kind]:
            other = (f"{part[rival]:.4f}",) if rival else ()
            rows.append((part["slice"], f"{part['truths']:,}", f"{part['found']:.4f}", *other))
        head = (title, "truths", f"found in {judged.k}", *((rival,) if rival else ()))
        lines += [*_table(head, rows), ""]
    return lines[:-1]
