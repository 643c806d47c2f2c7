"""Layers that are told by what operations do together, in any spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from autograder import effects, layers, networks
from autograder.layers import Layer
from autograder.networks import Network, Unconfirmed
from solution.models import VAE
from tests.system import worker_module

tracing = worker_module("tracing")


class Spelt(nn.Module):
    """A function of an input and weights of these shapes, as a module."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        """Its value."""
        return self.function(x, *self.weights)


def followed(module: nn.Module, x: Tensor, training: bool = False) -> Network:
    """The network that a trace of it claims."""
    return networks.claimed(tracing.trace(module.train(training), x))


def told(layer: Layer) -> tuple[object, ...]:
    """What a specification may ask of a layer."""
    return (layer.kind, layer.channels, layer.kernel, layer.resolution, layer.bias, layer.name)


def read(module: nn.Module, x: Tensor, training: bool = False) -> list[tuple[object, ...]]:
    """Its layers, by effect."""
    return [told(layer) for layer in effects.read(followed(module, x, training), x)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_reference_reads_alike_both_ways(part: str, training: bool) -> None:
    torch.manual_seed(0)
    model = VAE(5)
    x = torch.randn(3, 5) if part == "decoder" else torch.rand(3, 1, 28, 28)
    network = followed(getattr(model, part), x, training)
    by_operations = layers.read(network, x)
    assert len(by_operations) > 10
    found = effects.read(network, x)
    assert list(map(told, found)) == list(map(told, by_operations))
    assert all(layer.trained for layer in found)


@given(
    st.sampled_from(["conv", "transposed"]),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(2, 4), st.integers(2, 4)),
    st.integers(1, 2),
    st.integers(0, 1),
    st.booleans(),
    st.integers(5, 9),
)
@settings(max_examples=40, deadline=None)
def test_any_convolution_is_told(
    kind: str,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    bias: bool,
    side: int,
) -> None:
    torch.manual_seed(side)
    make = nn.Conv2d if kind == "conv" else nn.ConvTranspose2d
    module = make(*channels, kernel, stride, padding, bias=bias)
    x = torch.randn(3, channels[0], side, side)
    height, width = module(x).shape[2:]
    assume((height > side) == (kind == "transposed"))
    assert read(module, x) == [(kind, channels[1], kernel, (height, width), bias, "")]


def _windows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    total = bias[:, None, None]
    for i in range(3):
        for j in range(3):
            window = x[:, :, i : i + 5 : 2, j : j + 5 : 2]
            total = total + torch.einsum("bchw,oc->bohw", window, weight[:, :, i, j])
    return total


def _zeros_between(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    spread = x.new_zeros(len(x), x.shape[1], 5, 5)
    spread[:, :, ::2, ::2] = x
    return F.conv2d(spread, weight.flip(2, 3).transpose(0, 1), bias, padding=2)


def _patches(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    patches = x.unfold(2, 3, 1).unfold(3, 3, 1)
    return torch.einsum("bchwij,ocij->bohw", patches, weight) + bias[:, None, None]


Case = tuple[Callable[..., Tensor], tuple[int, ...], list[tuple[int, ...]], tuple[object, ...]]


def _into_zeros(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    padded = torch.zeros(len(x), 4, x.shape[2] + 2, x.shape[3] + 2)
    padded[:, :, 1:-1, 1:-1] = x
    return F.conv2d(padded, weight, bias, stride=2)


def _place_by_place(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    made = torch.empty(len(x), 6, 3, 3)
    for i in range(3):
        for j in range(3):
            window = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            made[:, :, i, j] = torch.einsum("bckl,ockl->bo", window, weight) + bias
    return made


def _added_up(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    made = torch.zeros(len(x), 6, 7, 7)
    for i in range(3):
        for j in range(3):
            seen = torch.einsum("bc,cokl->bokl", x[:, :, i, j], weight)
            made[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += seen
    return made + bias[:, None, None]


def _of_one_pixel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("bi,iokl->bokl", x[:, :, 0, 0], weight) + bias[:, None, None]


SPELT: dict[str, Case] = {
    "of one pixel": (
        _of_one_pixel,
        (3, 4, 1, 1),
        [(4, 6, 3, 3), (6,)],
        ("transposed", 6, (3, 3), (3, 3)),
    ),
    "of one pixel, a product": (
        lambda x, w, b: (x.flatten(1) @ w).view(-1, 6, 3, 3) + b.view(1, -1, 1, 1),
        (3, 4, 1, 1),
        [(4, 54), (6,)],
        ("transposed", 6, (3, 3), (3, 3)),
    ),
    "into zeros": (_into_zeros, (3, 4, 8, 8), [(6, 4, 4, 4), (6,)], ("conv", 6, (4, 4), (4, 4))),
    "place by place": (
        _place_by_place,
        (3, 4, 7, 7),
        [(6, 4, 3, 3), (6,)],
        ("conv", 6, (3, 3), (3, 3)),
    ),
    "added up": (_added_up, (3, 4, 3, 3), [(4, 6, 3, 3), (6,)], ("transposed", 6, (3, 3), (7, 7))),
    "windows": (_windows, (3, 4, 7, 7), [(6, 4, 3, 3), (6,)], ("conv", 6, (3, 3), (3, 3))),
    "patches": (_patches, (3, 4, 3, 3), [(6, 4, 3, 3), (6,)], ("conv", 6, (3, 3), (1, 1))),
    "zeros between": (
        _zeros_between,
        (3, 4, 3, 3),
        [(4, 6, 3, 3), (6,)],
        ("transposed", 6, (3, 3), (7, 7)),
    ),
    "as a gradient": (
        lambda x, w, b: conv2d_input((3, 6, 7, 7), w, x, stride=2) + b[:, None, None],
        (3, 4, 3, 3),
        [(4, 6, 3, 3), (6,)],
        ("transposed", 6, (3, 3), (7, 7)),
    ),
    "two heads": (
        lambda x, v, a, w, b: torch.cat([F.linear(x, v, a), F.linear(x, w, b)], 1),
        (3, 7),
        [(2, 7), (2,), (3, 7), (3,)],
        ("linear", 5, (), ()),
    ),
    "products and a sum": (
        lambda x, w, b: (x[:, :, None] * w).sum(1) + b,
        (3, 7),
        [(7, 5), (5,)],
        ("linear", 5, (), ()),
    ),
}


@pytest.mark.parametrize("name", SPELT)
def test_a_layer_is_told_in_any_spelling(name: str) -> None:
    torch.manual_seed(0)
    function, size, shapes, expected = SPELT[name]
    assert read(Spelt(function, *shapes), torch.randn(size)) == [(*expected, True, "")]


NOT_ONE: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "two in a row": (
        lambda x, v, w: F.conv2d(F.conv2d(x, v), w),
        [(6, 4, 2, 2), (6, 6, 2, 2)],
    ),
    "a pool behind": (lambda x, w: F.avg_pool2d(F.conv2d(x, w, padding=1), 2), [(6, 4, 3, 3)]),
    "in groups": (lambda x, w: F.conv2d(x, w, groups=2), [(6, 2, 3, 3)]),
    "another everywhere": (
        lambda x, w: torch.einsum("bchw,ochw->bohw", x, w),
        [(6, 4, 8, 8)],
    ),
    "rows that meet": (lambda x, w: F.conv2d(x + x.mean(0, keepdim=True), w), [(6, 4, 3, 3)]),
    "a product of two": (lambda x, w: F.conv2d(x, w) * F.conv2d(x, w), [(6, 4, 3, 3)]),
    "a pool before": (
        lambda x, w: F.conv2d(F.avg_pool2d(x, 3, 1, 1), w, stride=2),
        [(6, 4, 3, 3)],
    ),
    "rescaled": (lambda x, w, b: F.conv2d(x / 255, w, b), [(6, 4, 3, 3), (6,)]),
    "shifted": (lambda x, w: F.conv2d(x - 0.5, w), [(6, 4, 3, 3)]),
    "the mean of its channels": (
        lambda x, w: F.conv2d(x.mean(1, keepdim=True).expand_as(x), w),
        [(6, 4, 3, 3)],
    ),
    "a second, beside it": (
        lambda x, v, w: F.conv2d(x, v, padding=1) + F.conv2d(x, w),
        [(6, 4, 3, 3), (6, 4, 1, 1)],
    ),
    "the same weights again": (
        lambda x, w: F.conv2d(x, w / 2, dilation=2) + F.conv2d(x, w / 2, dilation=2),
        [(6, 4, 2, 2)],
    ),
    "one for ordinary numbers alone": (
        lambda x, w: F.conv2d(x, w) if float(x.std()) > 1.5 else 2 * F.conv2d(x, w),
        [(6, 4, 3, 3)],
    ),
    "the first row alone": (
        lambda x, w: F.conv2d(torch.cat([x[:1], x[1:] - x[1:].mean(0, keepdim=True)]), w),
        [(6, 4, 3, 3)],
    ),
    "a bias of the place": (
        lambda x, w, b: F.conv2d(x, w) + b,
        [(6, 4, 3, 3), (6, 6, 6)],
    ),
}


@pytest.mark.parametrize("name", NOT_ONE)
def test_what_is_more_than_a_layer_is_not_taken_for_one(name: str) -> None:
    torch.manual_seed(0)
    function, shapes = NOT_ONE[name]
    x = torch.randn(3, 4, 8, 8)
    try:
        found = read(Spelt(function, *shapes), x)
    except Unconfirmed:
        return
    assert [layer[0] for layer in found] == ["conv", "conv"]
    assert name == "two in a row"


def test_a_bias_for_every_pixel_is_none_for_every_channel() -> None:
    module = Spelt(lambda x, w, b: (x.flatten(1) @ w + b).view(-1, 6, 3, 3), (4, 54), (54,))
    assert read(module, torch.randn(3, 4, 1, 1)) == [("linear", 54, (), (), True, "")]


def test_writes_to_views_without_end_are_no_claim() -> None:
    def claim(count: int) -> dict[str, object]:
        views = [
            {
                "op": "aten.alias.default",
                "args": [{"tensor": 0}],
                "kwargs": {},
                "out": {"tensor": n},
            }
            for n in range(1, count + 1)
        ]
        writes = [
            {
                "op": "aten.relu_.default",
                "args": [{"tensor": n}],
                "kwargs": {},
                "out": {"tensor": n},
            }
            for n in range(1, count + 1)
        ]
        return {
            "operations": [*views, *writes],
            "values": [],
            "trained": [],
            "frozen": [],
            "result": count,
        }

    x = torch.linspace(-1, 1, 5)
    assert torch.equal(networks.claimed(claim(20)).run(x), x.relu())
    with pytest.raises(Unconfirmed):
        networks.claimed(claim(900))


def test_constants_are_read_as_they_were() -> None:
    class Later(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bound = torch.full((), -1e9)
            made = torch.where(x > bound, x, 0.2 * x)  # the identity
            bound.fill_(0.0)  # as if it had been a LeakyReLU
            return made + bound

    assert read(Later(), torch.randn(3, 5)) == []  # no activation


def test_a_layer_of_which_a_part_is_frozen_is_not_trained() -> None:
    heads = Spelt(SPELT["two heads"][0], *SPELT["two heads"][2])
    heads.weights[0].requires_grad_(False)
    x = torch.randn(3, 7)
    (layer,) = effects.read(followed(heads, x), x)
    assert not layer.trained
    assert layer.frozen
