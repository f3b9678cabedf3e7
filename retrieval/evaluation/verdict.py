"""Verdict: compare the model with the best baseline, and suggest what to try where it does not win."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from retrieval.evaluation.intervals import Bootstrap

SEQUENTIAL: Final = ("transitions", "itemknn")  # baselines that use the order or the recency of the history
UNPERSONALIZED: Final = ("popularity", "recent-popularity")
MAX_INDEX_LOSS: Final = 0.01  # share of NDCG that approximate search may cost before a suggestion mentions it
MAX_DIM: Final = 256  # wider towers have not been seen to help

Outcome = Literal["wins", "level", "loses", "alone"]


class Verdict(NamedTuple):
    """The outcome against the best baseline.

    Attributes:
        outcome: "wins" or "loses" if the 95% interval of the difference in NDCG excludes zero, "level" if it contains
            zero, "alone" if there is no baseline.
        baseline: The baseline with the highest NDCG.
        sentence: The outcome in words, with its numbers.
        behind: Whether NDCG is below the baseline's, significantly or not.
        advice: What to try.
    """

    outcome: Outcome
    baseline: str | None
    sentence: str
    behind: bool = False
    advice: tuple[str, ...] = ()


def compare(
    sample: Bootstrap, values: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], *, k: int, users: int
) -> Verdict:
    """Compare the model with the baseline that has the highest NDCG@k, by NDCG@k.

    Args:
        sample: Holds "NAME ndcg@k" of the model ("model") and of every baseline.
        values: Metrics of the model.
        baselines: Metrics of each baseline.
        k: Length of the lists.
        users: Number of users evaluated.
    """
    ndcg, recall = f"ndcg@{k}", f"recall@{k}"
    if not baselines:
        numbers = f"NDCG@{k} {values[ndcg]:.4f}, recall@{k} {values[recall]:.4f}"
        return Verdict("alone", None, f"Not compared with any baseline: {numbers}.")
    best = max(baselines, key=lambda name: baselines[name][ndcg])
    difference = sample.difference(f"model {ndcg}", f"{best} {ndcg}")
    gain = sample.lift(f"model {ndcg}", f"{best} {ndcg}")
    if gain is None:  # the baseline finds nothing in some samples
        change = f"{difference.value:+.4f} (95% interval {difference.low:+.4f} to {difference.high:+.4f}"
    else:
        change = f"{_percent(gain.value)} (95% interval {_percent(gain.low)} to {_percent(gain.high)}"
    outcome: Outcome = "wins" if difference.low > 0 else "loses" if difference.high < 0 else "level"
    lead = {
        "wins": f"Better than the best baseline, {best}",
        "loses": f"LOSES to the best baseline, {best}",
        "level": f"No significant difference from the best baseline, {best}",
    }[outcome]
    numbers = (
        f"NDCG@{k} {values[ndcg]:.4f} against {baselines[best][ndcg]:.4f}, "
        f"recall@{k} {values[recall]:.4f} against {baselines[best][recall]:.4f}"
    )
    sentence = f"{lead}; NDCG@{k} {change}, {users:,} users): {numbers}."
    return Verdict(outcome, best, sentence, behind=difference.value < 0)


def _percent(share: float) -> str:
    """A signed percentage; below 10% with one decimal, so that a small lead does not read as zero."""
    return f"{share:+.1%}" if abs(share) < 0.0995 else f"{share:+.0%}"


def suggest(
    config: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    *,
    in_order: bool,
    verdict: Verdict,
    spare_users: int = 0,
    missed: float = 0.0,
) -> tuple[str, ...]:
    """Suggest what to try where the model does not win, the most promising first.

    Args:
        config: The config of the training.
        epochs: Metrics of each epoch.
        in_order: Whether histories are ordered by time.
        verdict: The outcome.
        spare_users: Held-out users that were not evaluated.
        missed: Share of NDCG lost to approximate search.
    """
    model, train = config.get("model", {}), config.get("train", {})
    features = {side: config.get(side, {}).get("features", []) for side in ("user", "item")}
    advice = []
    if train.get("objective") == "rating":
        advice.append('train for ranking rather than for rating prediction: train.objective = "softmax"')
    if not any(feature.get("kind") == "history" for feature in features["user"]):
        advice.append('give the user tower a history: history = { kind = "history" } in [user.features]')
    if missed >= MAX_INDEX_LOSS:
        advice.append(
            f"approximate search costs {missed:.0%} of NDCG: use exact search with twotower index build DIR --recall 1"
        )
    advice += _about_epochs(epochs, train)
    encoder = (model.get("user") or {}).get("encoder")
    if verdict.baseline in SEQUENTIAL and in_order and encoder not in (None, "attention"):
        advice.append(
            f'{verdict.baseline} uses the order of the history: try model.encoder = "attention" (now "{encoder}")'
        )
    if verdict.baseline in UNPERSONALIZED and verdict.behind:
        advice.append(
            f"{verdict.baseline} recommends the same items to everyone and still wins: check with twotower inspect "
            "that user and item ids match between the tables, and that the split leaves enough interactions to train on"
        )
    if not any(feature.get("kind") != "history" for feature in features["item"][1:]):
        advice.append("add item features to [item.features], from the columns of the items table")
    dim = model.get("dim")
    weight = (model.get("ease") or {}).get("weight")
    if isinstance(dim, int) and dim < MAX_DIM and verdict.behind and weight != 1:
        ensemble = f", model.ease.weight = {weight:g}" if weight else ""  # model.dim alone turns it off
        advice.append(f"try a wider tower with more dropout: model.dim = {dim * 2}, model.dropout = 0.5{ensemble}")
    if verdict.outcome == "level":
        if spare_users:
            advice.append(f"evaluate the other {spare_users:,} held-out users too: twotower evaluate --users 0")
        else:
            advice.append(
                "the test is too small to decide: train with train.seed = 1, 2, ... and another split.kind, and "
                "compare the runs"
            )
    if verdict.outcome == "loses":
        advice.append(
            f"confirm with another seed (train.seed = 1); if the model still loses, use {verdict.baseline} here"
        )
    return tuple(advice)


def _about_epochs(epochs: Sequence[Mapping[str, Any]], train: Mapping[str, Any]) -> list[str]:
    """Suggestions about the number of epochs, from validation."""
    scored = [epoch for epoch in epochs if "ndcg@10" in epoch]
    if not scored:
        return []
    best = max(scored, key=lambda epoch: float(epoch["ndcg@10"]))["epoch"]
    if best == scored[-1]["epoch"]:
        more = 2 * int(train.get("epochs") or best)
        return [f"validation was still improving at the last epoch: train longer with train.epochs = {more}"]
    if best == scored[0]["epoch"] and len(scored) > 1 and isinstance(train.get("lr"), int | float):
        return [f"the first epoch was the best: try a smaller train.lr than {train['lr']:g}, or a smaller model"]
    return []
