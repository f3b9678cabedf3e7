"""Verdict: whether the model is worth having, in a sentence, and what to try where it is not."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from retrieval.evaluation.intervals import Bootstrap, Interval

FOLLOWING: Final = ("transitions", "itemknn")  # baselines that weigh the newest items most, or what follows what
TIMELESS: Final = ("popularity", "recent-popularity")
MISSED: Final = 0.01  # share of NDCG that an index may cost before it is spoken of
WIDE: Final = 256  # from here on more width has not been seen to help

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
    drawn: Bootstrap, values: Mapping[str, float], rivals: Mapping[str, Mapping[str, float]], *, k: int, users: int
) -> Verdict:
    """Judge by NDCG@k against the baseline that is best by it.

    drawn: holds "NAME ndcg@k" and "NAME recall@k" of the model ("model") and every rival. users: how many were judged.
    """
    ndcg, recall = f"ndcg@{k}", f"recall@{k}"
    if not rivals:
        own = f"recall@{k} {values[recall]:.4f}, NDCG@{k} {values[ndcg]:.4f}"
        return Verdict("alone", None, f"Reaches {own}; no baseline was asked for.")
    best = max(rivals, key=lambda name: rivals[name][ndcg])
    difference = drawn.difference(f"model {ndcg}", f"{best} {ndcg}")
    lift = drawn.lift(f"model {ndcg}", f"{best} {ndcg}")
    numbers = (
        f"recall@{k} {values[recall]:.4f} against {rivals[best][recall]:.4f}, "
        f"NDCG@{k} {values[ndcg]:.4f} against {rivals[best][ndcg]:.4f}"
    )
    behind = difference.value < 0
    if difference.low > 0:
        more = drawn.lift(f"model {recall}", f"{best} {recall}")
        gain = f"by {_span(lift)} in NDCG@{k}" if lift else f"in NDCG@{k}"
        if more is None or more.value < 0.005:
            return Verdict("wins", best, f"Beats the best baseline, {best}, {gain}: {numbers}.")
        found = f"Finds {more.value:.0%} more than the best baseline, {best}"
        return Verdict("wins", best, f"{found}, and beats it {gain}: {numbers}.")
    if difference.high < 0:
        by = f" by {_span(_turned(lift))}" if lift else ""
        return Verdict("loses", best, f"LOSES to {best}{by} in NDCG@{k}: {numbers}.", behind)
    side = "Behind" if behind else "Ahead of" if difference.value > 0 else "Level with"
    by = f" by {abs(lift.value):.0%}" if lift and difference.value else ""
    few = f"{users:,} {'user is' if users == 1 else 'users are'} too few to tell that from chance"
    sure = f" (95% interval {lift.bounds()})" if lift else ""
    said = f"{side} the best baseline, {best},{by} in NDCG@{k}, but {few}{sure}"
    return Verdict("level", best, f"{said}: {numbers}.", behind)


def _turned(lift: Interval) -> Interval:
    """By how much it is behind, of by how much it is ahead."""
    return Interval(-lift.value, -lift.high, -lift.low)


def _span(lift: Interval) -> str:
    return f"{lift.value:.0%} (95% interval {lift.low:.0%} to {lift.high:.0%})"


def advise(
    config: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    *,
    in_order: bool,
    verdict: Verdict,
    spare_users: int = 0,
    missed: float = 0.0,
) -> tuple[str, ...]:
    """What to try where the model does not win, from what the training was; what promises most comes first.

    epochs: of the training, as its history tells. in_order: whether times tell what followed what.
    spare_users: held-out users that were not judged. missed: share of NDCG that is lost since the
    index does not look at every item.
    """
    model, train = config.get("model", {}), config.get("train", {})
    features = {side: config.get(side, {}).get("features", []) for side in ("user", "item")}
    advice = []
    if train.get("objective") == "rating":
        advice.append('predicting ratings finds little: train.objective = "softmax"')
    if not any(feature.get("kind") == "history" for feature in features["user"]):
        advice.append('give the user tower a history: history = { kind = "history" } in [user.features]')
    if missed >= MISSED:
        advice.append(f"the index costs {missed:.0%} of NDCG: twotower index build DIR --recall 1 looks at every item")
    advice += _on_length(epochs, train)
    encoder = (model.get("user") or {}).get("encoder")
    if verdict.rival in FOLLOWING and in_order and encoder not in (None, "attention"):
        advice.append(
            f'{verdict.rival} reads the order of the history: so does model.encoder = "attention", now "{encoder}"'
        )
    if verdict.rival in TIMELESS and verdict.behind:
        advice.append(
            f"{verdict.rival} gives everybody the same and still finds more: look whether the ids of users and items "
            "agree between the tables (twotower inspect), and whether the split leaves enough to train on"
        )
    if not any(feature.get("kind") != "history" for feature in features["item"][1:]):
        advice.append("give the item tower attributes, in [item.features]: whatever the items table tells of an item")
    dim = model.get("dim")
    weight = (model.get("ease") or {}).get("weight")
    if isinstance(dim, int) and dim < WIDE and verdict.behind and weight != 1:
        kept = f", model.ease.weight = {weight:g}" if weight else ""
        advice.append(f"a wider tower with more dropout: model.dim = {dim * 2}, model.dropout = 0.5{kept}")
    if verdict.outcome == "level":
        if spare_users:
            advice.append(f"judge the {spare_users:,} users that were left out as well: twotower evaluate --users 0")
        else:
            advice.append(
                "to be surer, train and judge a few times more, with train.seed = 1, 2, ... and another split.kind, "
                "and see which side the runs fall on"
            )
    if verdict.outcome == "loses":
        advice.append(
            f"two trainings differ too: try train.seed = 1 before anything is concluded; if it stays behind, "
            f"{verdict.rival} is the better choice for these data"
        )
    return tuple(advice)


def _on_length(epochs: Sequence[Mapping[str, Any]], train: Mapping[str, Any]) -> list[str]:
    """What the course of validation says of how long it was trained."""
    scored = [epoch for epoch in epochs if "ndcg@10" in epoch]
    if not scored:
        return []
    best = max(scored, key=lambda epoch: float(epoch["ndcg@10"]))["epoch"]
    if best == scored[-1]["epoch"]:
        more = 2 * int(train.get("epochs") or best)
        return [f"validation was still rising at the last epoch: train.epochs = {more}"]
    if best == scored[0]["epoch"] and len(scored) > 1 and isinstance(train.get("lr"), int | float):
        return [f"the first epoch was the best: a smaller train.lr than {train['lr']:g}, or a smaller model"]
    return []
