"""Verdict: whether the model is worth having, in a sentence, and what to try where it is not."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from retrieval.intervals import Bootstrap, Interval

Outcome = Literal["wins", "level", "loses", "alone"]


class Verdict(NamedTuple):
    """The outcome against the best baseline.

    wins and loses: the interval of the difference in NDCG leaves no doubt, or (loses) the model is behind at all.
    level: ahead, but the interval holds zero. alone: there was no baseline.
    advice: what to try, where it does not win.
    """

    outcome: Outcome
    rival: str | None
    sentence: str
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
    more = drawn.lift(f"model {recall}", f"{best} {recall}")
    theirs = f"recall@{k} {rivals[best][recall]:.4f}, NDCG@{k} {rivals[best][ndcg]:.4f}"
    if difference.low > 0:
        found = f"Finds {_percent(more)} than the best baseline, {best}" if more else f"Finds more than {best}"
        ranks = f", and ranks {_better(lift)}" if lift else ""
        return Verdict("wins", best, f"{found}{ranks}: {own} against {theirs}.")
    if difference.value >= 0:
        span = f" (NDCG@{k} {_signed(lift)})" if lift else ""
        return Verdict(
            "level", best, f"No clear difference from the best baseline, {best}{span}: {own} against {theirs}."
        )
    sure = "" if difference.high < 0 else "; with these few users it may be chance"
    span = f" by {_signed(lift)} in NDCG@{k}" if lift else ""
    return Verdict("loses", best, f"LOSES to {best}{span}: {own} against {theirs}{sure}.")


def _percent(lift: Interval) -> str:
    word = "more" if lift.value >= 0 else "less"
    low, high = sorted((abs(lift.low), abs(lift.high))) if lift.low * lift.high > 0 else (lift.low, lift.high)
    return f"{abs(lift.value):.0%} {word} (95% interval {low:.0%} to {high:.0%})"


def _better(lift: Interval) -> str:
    return f"{lift.value:.0%} better by NDCG ({lift.low:.0%} to {lift.high:.0%})"


def _signed(lift: Interval) -> str:
    return f"{lift.value:+.0%}, 95% interval {lift.low:+.0%} to {lift.high:+.0%}"


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
    if not any(feature.get("name") not in (None, "item_id") for feature in features["item"]):
        advice.append("give the item tower attributes: whatever the items table tells of an item")
    dim = model.get("dim")
    if isinstance(dim, int) and dim < 256:
        advice.append(f"a wider tower with more dropout: model.dim = {dim * 2}, model.dropout = 0.5")
    return tuple(advice)
