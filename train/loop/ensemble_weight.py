"""How much of the score a closed form beside the towers has: chosen on validation, where training ends."""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from retrieval.metrics import ranking
from train.config.defaults import FULL_SOFTMAX
from train.config.load import Config
from train.data.datamodule import DataModule
from train.ease import concat, ease
from train.ease.fit_ease import EaseTowers
from train.loop import checkpoint
from train.loop.lightning_module import K, Module, Vectors
from train.model.feature_embedding import unit
from train.model.towers import rows_of

SHARES: Final = (0.0, 0.15, 0.3, 0.45, 0.6)
START: Final = 0.45  # did well on many kinds of data: where validation is of few users it tells more than they do
ASKED: Final = 10_000  # validated users by whom it is chosen
WIDTH: Final = 128  # of the closed form's vectors, and twice that above `FULL_SOFTMAX` items: an index takes longer for
# wider ones, which find little more
RECENT: Final = 0.9  # its decay, where nothing else is said; like its other settings it matters little beside towers


class Beside(NamedTuple):
    """A closed form with its settings, and its share of the score; None for one that is to be chosen.

    usual: the share that it has unless validation says otherwise; 1 is the closed form alone.
    """

    form: EaseTowers
    settings: ease.Settings
    share: float | None
    usual: float = START

    def tuned(self, settings: ease.Settings, config: Config) -> "Beside":
        """The same with settings that were chosen for a closed form alone; what the config names stays."""
        narrow = settings._replace(dim=min(settings.dim, self.settings.dim))
        return self._replace(settings=narrow._replace(**concat.named(config)))


def wanted(data: DataModule) -> Beside:
    """What a resolved config wants beside its towers; the settings that it leaves open are those that did well."""
    named = concat.named(data.config)
    form = EaseTowers(data, {"decay": RECENT} | named)
    settings = form.first()
    if "dim" not in named:
        settings = settings._replace(dim=min(settings.dim, WIDTH * (1 + (rows_of(data.items) > FULL_SOFTMAX))))
    return Beside(form, settings, data.config.model.linear.share)


@torch.no_grad()
def finish(path: Path, module: Module, config: Config, wanted: Beside) -> Config | None:
    """Put a closed form beside the towers of a stripped checkpoint; where its share is open, with what `choose` finds.

    Without validation an open share is 0.

    config: resolved but for [model.linear]. Returns the config with what was put there; None, and nothing put, where
    the closed form had better be alone.
    """
    form, settings, share, usual = wanted
    data, pair = module.data, module.average.cpu()
    pair.load_state_dict(checkpoint.read(path)["state_dict"])
    validated = len(data.truth.users) > 0
    alone = module.embedded(pair) if validated else None
    if share is None:
        cut = form.factors(settings)
        share = 0.0 if alone is None else choose(*alone, data, cut, decay=settings.decay, usual=usual)
    if share == 1:
        return None
    config = concat.put(config, settings, share=share)
    if not share:
        return config
    torch.manual_seed(config.train.seed)
    other = concat.pair(config, data.preprocess).eval()
    form.begin(other, settings)
    other.freeze_items(data.items)
    measured: dict[str, float] = {}
    if alone is not None:
        both = zip(alone, module.embedded(other), strict=True)
        measured = module.ranked(*(side_by_side(first, second, share=share) for first, second in both))
    parameters = sum(weight.numel() for weight in other.parameters())
    checkpoint.add(path, beside={"state_dict": other.state_dict(), "parameters": parameters, "measured": measured})
    return config


def choose(
    users: Vectors, items: Vectors, data: DataModule, cut: ease.Factors, *, decay: float, usual: float = START
) -> float:
    """The share that ranks best for the validated users, if by more than chance; else the one that is usual.

    users: (n, dim) in the order of `Truth.users`, items: (catalogue, dim), of the towers. cut: the closed form, which
    counts older items by the decay.
    """
    truth, history = data.truth, data.config.history
    assert history is not None
    assert history.max_length is not None
    asked = np.sort(np.random.default_rng(data.config.train.seed).permutation(len(users))[:ASKED])
    users, past = users[asked], truth.history.take(asked).newest(history.max_length)
    wanted, seen = truth.wanted.take(asked), truth.seen.take(asked)
    told = unit(torch.from_numpy(ease.users(cut, past, decay=decay))).numpy()

    def measured(share: float) -> npt.NDArray[np.float64]:
        both = side_by_side(users, told, share=share), side_by_side(items, cut.target, share=share)
        return ranking.ndcg(ranking.ranks(*both, wanted, seen), wanted, k=K)

    found = {share: measured(share) for share in {*SHARES, usual}}
    best = max(sorted(found), key=lambda share: found[share].mean())
    return best if ranking.exceeds_chance(found[best] - found[usual]) else usual


def side_by_side(first: Vectors, second: Vectors, *, share: float) -> Vectors:
    """Unit vectors as `beside.SideBySide` puts them. share: of the second."""
    return np.hstack([first * np.float32((1 - share) ** 0.5), second * np.float32(share**0.5)])
