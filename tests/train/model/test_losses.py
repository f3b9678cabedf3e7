import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from train.config.components import LOSSES, loss_class
from train.model import losses
from train.model.losses import Bpr, Examples, Rating, SampledSoftmax, Softmax, log_inclusion


def examples(n: int = 7, c: int = 30, dim: int = 5, *, seed: int = 0, **more: Any) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    users = functional.normalize(torch.randn(n, dim, generator=generator), dim=-1).requires_grad_()
    items = functional.normalize(torch.randn(c, dim, generator=generator), dim=-1).requires_grad_()
    target = torch.randint(c, (n,), generator=generator)
    weight = torch.rand(n, generator=generator)
    return Examples(
        users=users,
        items=items,
        target=target,
        scale=torch.tensor(9.0).requires_grad_(),
        weight=weight / weight.sum(),
        **more,
    )


def gradients(loss: Tensor, of: Examples) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [of.users, of.items, of.scale], retain_graph=True))


def logits_of(of: Examples) -> Tensor:
    return of.users @ of.items.T * of.scale


@pytest.fixture(params=["one chunk", "many chunks", "checkpoints"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways in which the scores are computed."""
    if request.param != "one chunk":
        monkeypatch.setattr(losses, "CHUNK_SCORES", 1)
    if request.param == "checkpoints":
        monkeypatch.setattr(losses, "MANY_CANDIDATES", 1)


@pytest.mark.usefixtures("chunks")
def test_softmax_is_cross_entropy() -> None:
    given = examples(n=50)
    expected = (functional.cross_entropy(logits_of(given), given.target, reduction="none") * given.weight).sum()
    loss = Softmax()(given)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(gradients(loss, given), gradients(expected, given), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_softmax_by_hand() -> None:
    # Two items at right angles, the user on the first: -log(e^1 / (e^1 + e^0)).
    axes = torch.eye(2)
    given = Examples(
        users=axes[:1], items=axes, target=torch.tensor([0]), scale=torch.tensor(1.0), weight=torch.ones(1)
    )
    assert Softmax()(given).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_softmax_is_finite_at_the_largest_scale() -> None:
    axes = torch.eye(2)
    given = Examples(
        users=-axes[:1].repeat(3, 1), items=axes[:1].repeat(1000, 1), target=torch.zeros(3, dtype=torch.int64),
        scale=torch.tensor(losses.MAX_SCALE), weight=torch.full((3,), 1 / 3),
        log_inclusion=torch.full((1000,), -30.0),
    )  # fmt: skip
    # 999 candidates that stand for e^30 items each, and the target.
    assert SampledSoftmax()(given).item() == pytest.approx(30 + math.log(999), rel=1e-4)
    other = dataclasses.replace(given, users=axes[:1].repeat(3, 1))
    assert SampledSoftmax()(other).item() == pytest.approx(30 + math.log(999), rel=1e-4)


@pytest.mark.usefixtures("chunks")
def test_sampled_softmax_has_the_gradient_of_the_full_one_in_expectation() -> None:
    """Over many draws of a batch's candidates, as training makes them, on a catalogue of 30 items."""
    torch.manual_seed(0)
    catalogue, batch, uniform, dim = 30, 12, 10, 4
    frequency = torch.rand(catalogue) ** 3
    frequency /= frequency.sum()
    items = functional.normalize(torch.randn(catalogue, dim), dim=-1)
    users = functional.normalize(torch.randn(catalogue, dim), dim=-1)  # a user for each target
    scale = torch.tensor(2.0)
    inclusion = log_inclusion(frequency, targets=batch - 1, uniform=uniform)
    total = torch.zeros(catalogue, dim)
    naive = torch.zeros(catalogue, dim)
    draws = 3_000
    for _ in range(draws):
        drawn = torch.multinomial(frequency, batch, replacement=True)
        chosen, column = torch.unique(torch.cat([drawn, torch.randint(catalogue, (uniform,))]), return_inverse=True)
        for corrected, gradient in ((inclusion[chosen], total), (torch.zeros(len(chosen)), naive)):
            candidates = items[chosen].requires_grad_()
            loss = SampledSoftmax()(
                Examples(
                    users=users[drawn], items=candidates, target=column[:batch], scale=scale,
                    weight=torch.full((batch,), 1 / batch), log_inclusion=corrected,
                )
            )  # fmt: skip
            gradient.index_add_(0, chosen, torch.autograd.grad(loss, candidates)[0], alpha=1 / draws)
    full = items.clone().requires_grad_()
    whole = Examples(users=users, items=full, target=torch.arange(catalogue), scale=scale, weight=frequency)
    expected = torch.autograd.grad(Softmax()(whole), full)[0]
    error = (total - expected).norm() / expected.norm()
    # The logarithm of an estimate leaves a small bias; without the correction the gradient is another one.
    assert error < 0.15
    assert (naive - expected).norm() / expected.norm() > 2 * error


def test_inclusion_is_what_drawing_gives() -> None:
    torch.manual_seed(0)
    frequency = torch.tensor([0.6, 0.3, 0.1, 0.0])
    supplied = torch.tensor([0.0, 0.0, 0.5, 0.0])
    found = log_inclusion(frequency, targets=2, uniform=1, supplied=supplied).exp()
    expected = 1 - (1 - frequency) ** 2 * 0.75 * (1 - supplied)
    torch.testing.assert_close(found, expected)
    assert log_inclusion(torch.tensor([1.0]), targets=3, uniform=1).item() == pytest.approx(0)


def test_bpr_by_hand() -> None:
    axes = torch.eye(2)
    given = Examples(
        users=axes[:1], items=axes, target=torch.tensor([0]), scale=torch.tensor(3.0), weight=torch.ones(1),
        impressions=torch.tensor([[1, -2]]),
    )  # fmt: skip
    assert Bpr()(given).item() == pytest.approx(math.log(1 + math.exp(-3)))


def test_rating_by_hand() -> None:
    axes = torch.eye(2)
    given = Examples(
        users=axes, items=axes, target=torch.tensor([0, 0]), scale=torch.tensor(2.0),
        weight=torch.tensor([0.25, 0.75]), value=torch.tensor([1.0, -1.0]),
    )  # fmt: skip
    # Predicted 1 and 0, rated 1 and -1; the temperature is no part of it.
    assert Rating()(given).item() == pytest.approx(0.75)
    missing = dataclasses.replace(given, value=torch.tensor([float("nan"), -1.0]))
    assert Rating()(missing).item() == pytest.approx(1.0)
    nothing = dataclasses.replace(given, value=torch.tensor([float("nan")] * 2))
    assert Rating()(nothing).item() == 0


def test_rating_compares_each_prediction_with_its_own_value() -> None:
    """(n,) against (n, 1) would average over n x n pairs, as the notebook does: perfect predictions, a loss above 0."""
    torch.manual_seed(0)
    users = functional.normalize(torch.randn(8, 4), dim=-1)
    items = functional.normalize(torch.randn(5, 4), dim=-1)
    target = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    perfect = (users * items[target]).sum(dim=-1)
    given = Examples(
        users=users, items=items, target=target, scale=torch.tensor(1.0), weight=torch.full((8,), 1 / 8), value=perfect
    )
    assert Rating()(given).item() == 0
    assert (perfect - perfect[:, None]).square().mean() > 0.05
    with pytest.raises(AssertionError):
        Rating()(dataclasses.replace(given, value=perfect[:, None]))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_the_same_examples(name: str) -> None:
    given = examples(log_inclusion=torch.zeros(30), value=torch.zeros(7))
    loss = loss_class(name)(impression_weight=1.0)
    found = loss(given)
    assert found.shape == ()
    wanted = [given.users] if loss.fits_values else [given.users, given.scale]
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found, wanted))
