"""The wire: what goes in comes out, and whatever else comes is refused cleanly."""

from __future__ import annotations

import contextlib
import io
import json
import math
import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.worker import wire

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def there_and_back(value: Any) -> Any:
    tensors: list[torch.Tensor] = []
    encoded = wire.encode(value, tensors, lambda kept: wire.Handle(7, type(kept).__name__))
    stream = io.BytesIO()
    wire.write_frame(stream, {"value": encoded}, tensors)
    stream.seek(0)
    header, received = wire.read_frame(stream)
    return wire.Decoder(received)(header["value"])


@given(VALUES)
def test_values_come_back_as_they_went(value: Any) -> None:
    assert there_and_back(value) == value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 1)])
def test_tensors_come_back_with_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    back = there_and_back({"x": [tensor]})["x"][0]
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


@given(st.lists(st.integers(1, 3), max_size=3), st.lists(st.integers(1, 4), min_size=3, max_size=3))
def test_tensors_of_any_stride_come_back(shape: list[int], strides: list[int]) -> None:
    tensor = torch.arange(99.0).as_strided(shape, strides[: len(shape)])
    assert torch.equal(there_and_back(tensor), tensor)


def test_a_tensor_that_comes_twice_is_refused() -> None:
    """Else a frame would hold more than its bytes, and the host would run out of memory."""
    node = {"t": 0, "g": False}
    with pytest.raises(wire.WireError):
        wire.Decoder([torch.zeros(2)])({"l": [node, node]})


def test_tensors_that_are_views_or_in_a_graph_come_back_by_value() -> None:
    tensor = torch.arange(6.0).view(2, 3).t().requires_grad_()
    back = there_and_back(tensor)
    assert isinstance(back, wire.Graph)
    assert torch.equal(back.as_subclass(torch.Tensor), tensor.detach())


def test_numbers_that_json_lacks_come_back() -> None:
    back = there_and_back([math.inf, -math.inf, math.nan, 10**400])
    assert back[:2] == [math.inf, -math.inf]
    assert math.isnan(back[2])
    assert back[3] == math.inf


def test_other_objects_stay_behind_a_handle() -> None:
    assert there_and_back([object()]) == [wire.Handle(7, "object")]


def frame(header: object, body: bytes = b"") -> io.BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(struct.pack("!IQ", len(text), len(body)) + text + body)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"not json", b""),
        (b"[" * 100_000, b""),
        ([], b""),
        ({}, b""),
        ({"tensors": 3}, b""),
        ({"tensors": [3]}, b""),
        ({"tensors": [{"dtype": "object", "shape": []}]}, b""),
        ({"tensors": [{"dtype": "float32", "shape": [2]}]}, b"1234"),
        ({"tensors": [{"dtype": "float32", "shape": [-1]}]}, b""),
        ({"tensors": [{"dtype": "float32", "shape": [2**40, 2**40]}]}, b""),
        ({"tensors": [{"dtype": "float32", "shape": [1] * 99}]}, b"1234"),
        ({"tensors": []}, b"left over"),
    ],
)
def test_malformed_frames_are_refused(header: object, body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read_frame(frame(header, body))


def test_frames_that_claim_too_much_are_refused_before_memory_is_taken() -> None:
    with pytest.raises(wire.WireError):
        wire.read_frame(io.BytesIO(struct.pack("!IQ", 2**31, 2**62)))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_clean_refusal(data: bytes) -> None:
    with pytest.raises((wire.WireError, EOFError)):
        wire.read_frame(io.BytesIO(data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("thrpnfludgk"), inner, max_size=3)
    ),
    max_leaves=15,
)


@given(JSON)
@settings(max_examples=300)
def test_any_json_decodes_or_is_refused(node: Any) -> None:
    with contextlib.suppress(wire.WireError):
        wire.Decoder([torch.zeros(2)])(node)


def test_deep_values_are_refused() -> None:
    node: Any = None
    for _ in range(100):
        node = {"l": [node]}
    with pytest.raises(wire.WireError):
        wire.Decoder([])(node)
