"""A network run layer by layer: the last layers answer for what the first was given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autograder.worker import stages

ROWS = 4


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(inplace=True))
        self.mean, self.log_sigma = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return torch.cat([self.mean(h), self.log_sigma(h)], 1)


class Logits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = nn.Linear(6, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.rest(self.first(x.flatten(1)))).view(-1, 2, 4)


@pytest.fixture
def asked() -> list[Tensor]:
    return []


def two_heads(asked: list[Tensor]) -> TwoHeads:
    def whole(x: Tensor) -> Tensor:
        asked.append(x)
        return 100 + x.flatten(1)

    network = TwoHeads()
    stages.connect(network, whole, torch.rand(3, 2, 3))
    return network


def test_the_heads_answer_for_what_the_body_was_given(asked: list[Tensor]) -> None:
    network = two_heads(asked)
    a, b = torch.rand(ROWS, 2, 3), torch.rand(ROWS, 2, 3)
    ha, hb = network.body(a), network.body(b)
    means = [network.mean(h) for h in (ha, hb)]
    log_sigmas = [network.log_sigma(h) for h in (ha, hb)]
    assert torch.equal(torch.stack(asked), torch.stack([a, b]))  # once each
    for x, mean, log_sigma in zip((a, b), means, log_sigmas, strict=True):
        assert torch.equal(torch.cat([mean, log_sigma], 1), 100 + x.flatten(1))


def test_layers_may_be_taken_one_by_one(asked: list[Tensor]) -> None:
    network = two_heads(asked)
    h = x = torch.rand(ROWS, 2, 3)
    for layer in network.body.children():
        h = layer(h)
    assert torch.equal(network.mean(h), 100 + x.flatten(1)[:, :3])


def test_gradients_reach_the_input_through_the_answer(asked: list[Tensor]) -> None:
    network = two_heads(asked)
    x = torch.rand(ROWS, 2, 3, requires_grad=True)
    network.mean(network.body(x)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad.flatten(1), torch.tensor([[1.0, 1, 1, 0, 0, 0]] * ROWS))


@pytest.mark.parametrize("change", ["twice", "other order", "part"])
def test_another_use_of_a_layer_keeps_its_own_answer(change: str, asked: list[Tensor]) -> None:
    network = two_heads(asked)
    h = network.body(torch.rand(ROWS, 2, 3))
    h = {"twice": 2 * h, "other order": h.flip(0), "part": h[:2]}[change]
    made = network.mean(h)
    assert not asked
    assert torch.equal(made, nn.functional.linear(h, network.mean.weight, network.mean.bias))


def test_a_layer_before_the_sigmoid_answers_with_logits() -> None:
    network = Logits()

    def whole(x: Tensor) -> Tensor:
        return (0.5 + x[:, :1] / 4).expand(-1, 8).view(-1, 2, 4)

    stages.connect(network, whole, torch.rand(3, 6))
    x = torch.rand(ROWS, 6)
    made = network.rest(network.first(x)).sigmoid()
    torch.testing.assert_close(made.view(-1, 2, 4), whole(x))


def test_batch_norm_of_the_batch_that_was_given() -> None:
    """In train mode an answer is known by the whole batch."""
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 6))
    stages.connect(network, lambda x: -x, torch.rand(3, 6))
    x = torch.rand(ROWS, 6)
    assert torch.equal(network[2](network[:2](x)), -x)
