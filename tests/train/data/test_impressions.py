"""Impressions: the choice they belong to, how they are sampled, and what the model learns from them."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from torch.nn import functional

from retrieval.common import csr
from train.config import load as configs
from train.data.batches import Histories, batches
from train.data.impressions import match_to_choices
from train.data.tensors import tensors
from train.loop import checkpoint, fit
from train.model.losses import Examples, SampledSoftmax, Softmax, impression_loss, log_inclusion, sample_negatives
from train.model.two_tower import at_slots, target_slots

DECOYS = (20, 21, 22)  # as popular as any, and shown to all who did not take them


def frame(*rows: tuple[int, int, int | None]) -> pl.DataFrame:
    """User, item, time; the place is the row."""
    schema = {"user": pl.UInt32, "item": pl.UInt32, "time": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("place")


def test_an_impression_belongs_to_the_next_choice() -> None:
    interactions = frame((0, 5, 10), (0, 6, 20), (2, 5, 10))
    shown = frame((0, 1, 5), (0, 2, 10), (0, 3, 11), (0, 4, 99), (1, 1, 10), (0, 6, 15), (2, 9, None))
    found = match_to_choices(shown, interactions)
    # Before and at the time of a choice: that one; after the last: the last. User 1 chose nothing; 6 was chosen then.
    assert found.rows() == [(0, 1, 0), (0, 2, 0), (0, 3, 1), (0, 4, 1), (2, 9, 2)]


def test_without_times_the_order_of_the_file_says_what_came_next() -> None:
    rows = frame((0, 1, None), (0, 5, None), (0, 2, None), (1, 5, None), (1, 3, None), (0, 6, None))
    shown, interactions = rows[[0, 2, 4]], rows[[1, 5, 3]]
    assert match_to_choices(shown, interactions).rows() == [(0, 1, 0), (0, 2, 1), (1, 3, 2)]


@pytest.mark.parametrize("shuffle", [False, True])
def test_impressions_are_batched_with_their_item(shuffle: bool) -> None:
    """The impressions of item i are 100 i, 100 i + 1, ...: i modulo 12 of them, of which a batch has at most 8."""
    lengths = [7, 1, 30]
    items = np.arange(38, dtype=np.int64)
    beside = csr.from_lists([(100 * item + np.arange(item % 12)).tolist() for item in items])
    given = Histories.from_rows(np.repeat(np.arange(3), lengths).astype(np.int64), items, impressions=beside)
    met = set()
    for batch in batches(given, max_length=6, batch_size=9, shuffle=shuffle, generator=np.random.default_rng(0)):
        assert batch.impressions is not None
        slots = target_slots(batch)
        target, shown = at_slots(batch, batch.rows, slots) - 2, at_slots(batch, batch.impressions, slots)
        for item, row in zip(target.tolist(), shown.tolist(), strict=True):
            found = [entry - 2 for entry in row if entry]
            assert len(set(found)) == len(found) == min(item % 12, 8)
            assert all(100 * item <= entry < 100 * item + item % 12 for entry in found)
            met.add(item)
    assert len(met) >= 35  # all but some users' first


def test_impression_loss_by_hand() -> None:
    axes = torch.eye(3)
    given = Examples(
        users=axes[:2], items=axes, target=torch.tensor([0, 0]), scale=torch.tensor(1.0),
        weight=torch.tensor([0.5, 0.5]), impressions=torch.tensor([[1, 2], [-2, -2]]),
    )  # fmt: skip
    # The first chose 0 out of 0, 1, 2, at cosines 1, 0, 0; the second has no impressions.
    assert impression_loss(given).item() == pytest.approx(0.5 * math.log(1 + 2 * math.exp(-1)))


def test_a_sampled_softmax_with_impressions_has_the_gradient_of_the_full_one_in_expectation() -> None:
    """Candidates: targets, uniform items and what was shown to the rows; each row's own impressions are in for sure."""
    torch.manual_seed(1)
    catalogue, batch, uniform, dim, some = 30, 10, 6, 4, 3
    frequency = torch.rand(catalogue) ** 3
    frequency /= frequency.sum()
    items = functional.normalize(torch.randn(catalogue, dim), dim=-1)
    users = functional.normalize(torch.randn(catalogue, dim), dim=-1)  # a user for each target
    beside = torch.randint(catalogue - 10, (catalogue, some))  # shown to that user, always; the last ten to nobody
    impressions = (
        torch.bincount(beside.flatten(), weights=frequency.repeat_interleave(some), minlength=catalogue) / some
    )
    supplied = 1 - (1 - impressions) ** ((batch - 1) * some)
    inclusion = log_inclusion(frequency, targets=batch - 1, uniform=uniform, supplied=supplied)
    unsupplied = log_inclusion(frequency, targets=batch - 1, uniform=uniform)
    scale, draws = torch.tensor(2.0), 3_000
    joint, naive = torch.zeros(catalogue, dim), torch.zeros(catalogue, dim)
    for _ in range(draws):
        drawn = torch.multinomial(frequency, batch, replacement=True)
        asked = torch.cat([drawn, beside[drawn].flatten(), torch.randint(catalogue, (uniform,))])
        chosen, column = torch.unique(asked, return_inverse=True)
        target, own = column[:batch], column[batch : batch * (1 + some)].view(batch, some)
        for corrected, gradient in ((inclusion, joint), (unsupplied, naive)):
            candidates = items[chosen].requires_grad_()
            loss = SampledSoftmax()(
                Examples(
                    users=users[drawn], items=candidates, target=target, scale=scale,
                    weight=torch.full((batch,), 1 / batch), log_inclusion=corrected[chosen],
                    impressions=own,
                )
            )  # fmt: skip
            gradient.index_add_(0, chosen, torch.autograd.grad(loss, candidates)[0], alpha=1 / draws)
    full = items.clone().requires_grad_()
    whole = Examples(users=users, items=full, target=torch.arange(catalogue), scale=scale, weight=frequency)
    expected = torch.autograd.grad(Softmax()(whole), full)[0]
    error = (joint - expected).norm() / expected.norm()
    assert error < 0.15
    assert (naive - expected).norm() / expected.norm() > 1.5 * error


def test_the_negative_of_bpr_is_an_impression_if_there_is_one() -> None:
    shown = torch.tensor([[-2, 7, -2], [-2, -2, -2], [4, 5, 6]])
    axes = torch.eye(3)
    given = Examples(
        users=axes, items=axes, target=torch.zeros(3, dtype=torch.int64), scale=torch.tensor(1.0),
        weight=torch.full((3,), 1 / 3), impressions=shown,
    )  # fmt: skip
    drawn = torch.stack([sample_negatives(given) for _ in range(50)])
    assert set(drawn[:, 0].tolist()) == {7}
    assert set(drawn[:, 1].tolist()) <= {0, 1, 2}
    assert set(drawn[:, 2].tolist()) == {4, 5, 6}


def write_shown(folder: Path, *, seed: int = 0) -> Path:
    """Users take any 8 of 23 items; beside each choice a decoy was shown that they did not take.

    In `interactions.parquet`; without what was shown in `chosen.parquet`, where the decoys are items like any other.
    """
    random = np.random.default_rng(seed)
    rows = []
    for user in range(120):
        taken = random.permutation(23)[:8]
        passed = [decoy for decoy in DECOYS if decoy not in taken]
        for step, item in enumerate(taken):
            rows.append((f"u{user}", f"i{item}", step, False))
            if passed:
                rows.append((f"u{user}", f"i{random.choice(passed)}", step, True))
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "when", "passed"], orient="row")
    folder.mkdir()
    table.write_parquet(folder / "interactions.parquet")
    table.filter(~pl.col("passed")).write_parquet(folder / "chosen.parquet")
    (folder / "twotower.toml").write_text('[data]\ntime = "when"\nnegative = "passed"\n[train]\nepochs = 4\n')
    return folder / "twotower.toml"


def places(out: Path) -> npt.NDArray[np.float64]:
    """The share of the catalogue that each decoy is ranked behind, by users who have nothing yet or some items."""
    trained = checkpoint.load(out)
    ids = [f"i{item}" for item in range(23)]
    batch = trained.preprocess.encode("item", {"item_id": np.array(ids, object)})
    vectors = trained.item_tower(tensors(batch))
    history = np.array([["", ""], ["i3", "i4"], ["i9", "i1"]], object)
    users = trained.user_tower(tensors(trained.preprocess.encode("user", {"history": history})))
    scores = (users @ vectors.T).numpy()
    behind = (scores[:, None, :] > scores[:, DECOYS, None]).mean(axis=-1)
    found: npt.NDArray[np.float64] = behind.mean(axis=0)
    return found


@pytest.mark.parametrize("objective", ["softmax", "sampled-softmax", "in-batch", "bpr"])
def test_what_was_passed_over_is_ranked_lower_for_it(tmp_path: Path, objective: str) -> None:
    config = write_shown(tmp_path / "data")
    # Nothing held out: which item comes next is chance, so validation would keep an epoch by chance.
    settings = ("model.dim=16", f'train.objective="{objective}"', 'split.kind="none"')
    fit.fit(configs.load(config, overrides=settings), tmp_path / "with")
    fit.fit(configs.load(config, overrides=('data.interactions="chosen.parquet"', *settings)), tmp_path / "without")
    told, untold = places(tmp_path / "with").mean(), places(tmp_path / "without").mean()
    assert told > 0.8
    assert untold < told - 0.1
