"""Verdict: whether the model is worth having, in a sentence, and what to try where it is not."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from retrieval.evaluation.intervals import Bootstrap, Interval

Outcome = Literal["wins", "level", "loses", "alone"]


class Verdict(NamedTuple):
    """The outcome against the best baseline.

    outcome: wins or loses where the interval of the difference in NDCG leaves no doubt, level where it holds zero,
        alone where there was no baseline. behind: whether the model is below it, sure or not.
    advice: what to try, where it does not win.
    """

    outcome: Outcome
    rival: str | None
    sentence: str
    behind: bool = False
    advice: tuple[str, ...] = ()


def judge(
    drawn: Bootstrap, values: Mapping[str, float], rivals: Mapping[str, Mapping[str, float]], *, k: int
) -> Verdict:
    """Judge by NDCG@k against the baseline that is best by it.

    drawn: holds "NAME ndcg@k" and "NAME recall@k" of the model ("model") and every rival.
    """
    ndcg, recall = f"ndcg@{k}", f"recall@{k}"
    own = f"recall@{k} {values[recall]:.4f}, NDCG@{k} {values[ndcg]:.4f}"
    if not rivals:
        return Verdict("alone", None, f"Reaches {own}; no baseline was asked for.")
    best = max(rivals, key=lambda name: rivals[name][ndcg])
    difference = drawn.difference(f"model {ndcg}", f"{best} {ndcg}")
    lift = drawn.lift(f"model {ndcg}", f"{best} {ndcg}")
    numbers = f"{own} against {rivals[best][recall]:.4f}, {rivals[best][ndcg]:.4f}"
    behind = difference.value < 0
    if difference.low > 0:
        more = drawn.lift(f"model {recall}", f"{best} {recall}")
        found = "Beats" if more is None or more.value <= 0 else f"Finds {more.value:.0%} more than"
        gain = f" ranks {_span(lift)} better by NDCG@{k}" if lift else " ranks better"
        return Verdict("wins", best, f"{found} the best baseline, {best}, and{gain}: {numbers}.")
    if difference.high < 0:
        return Verdict("loses", best, f"LOSES to {best}{_by(lift, k)}: {numbers}.", behind)
    side = "behind" if behind else "ahead of"
    return Verdict(
        "level",
        best,
        f"No clear difference from the best baseline: {side} {best}{_by(lift, k)}, which may be chance: {numbers}.",
        behind,
    )


def _by(lift: Interval | None, k: int) -> str:
    """By how much, the sign being said already: the interval is turned to the side of the value."""
    if lift is None:
        return ""
    turned = Interval(-lift.value, -lift.high, -lift.low) if lift.value < 0 else lift
    return f" by {_span(turned)} in NDCG@{k}"


def _span(lift: Interval) -> str:
    return f"{lift.value:.0%} (95% interval {lift.low:.0%} to {lift.high:.0%})"


def advise(config: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]], *, has_times: bool) -> tuple[str, ...]:
    """What to try where the model does not win, from what the training was."""
    model, train = config.get("model", {}), config.get("train", {})
    features = {side: config.get(side, {}).get("features", []) for side in ("user", "item")}
    advice = []
    scored = [epoch for epoch in epochs if "ndcg@10" in epoch]
    if scored and max(scored, key=lambda epoch: float(epoch["ndcg@10"]))["epoch"] == scored[-1]["epoch"]:
        advice.append(
            f"the last epoch was the best: train longer (train.epochs, now {train.get('epochs')}, or train.patience)"
        )
    if not any(feature.get("kind") == "history" for feature in features["user"]):
        advice.append('give the user tower a history: history = { kind = "history" } in [user.features]')
    encoder = (model.get("user") or {}).get("encoder")
    if has_times and encoder not in (None, "attention"):
        advice.append(f'there are times, so order may tell: model.encoder = "attention" instead of "{encoder}"')
    if train.get("objective") == "rating":
        advice.append('predicting ratings finds little: train.objective = "softmax"')
    if not any(feature.get("kind") != "history" for feature in features["item"][1:]):
        advice.append("give the item tower attributes: whatever the items table tells of an item")
    dim = model.get("dim")
    if isinstance(dim, int) and dim < 256:
        advice.append(f"a wider tower with more dropout: model.dim = {dim * 2}, model.dropout = 0.5")
    return tuple(advice)
