"""Right parts to hand to a task that needs others: simple modules whose every number is known.

They answer as the promised parts would, in shape, but are none of them: the host can say what
they compute, reads which latents were decoded, and replays their training. The host builds the
same modules to know what is right.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.hooks import RemovableHandle

PIXELS = 28 * 28
MARKS, SAMPLE = 5, 256  # numbers that are noted at a backward pass: of the loop, and weights
ANCHOR = 100.0  # the one weight of a stand-in network: what is added for large weights shows
FAINT = 1e-5  # by which a shift counts in train mode
NOTES = 40  # of an optimiser's options, or of images, that are kept
MISMATCH = "Expected all tensors to be on the same device"
Q_RANGE = 32.0  # the stand-in encoder's codes lie in (-32, 32), and at 0 without rounding


def image_of(code: Tensor) -> Tensor:
    """Images whose first pixels hold a code; code: (B, n) in (-32, 32), images (B, 1, 28, 28)."""
    images = torch.full((code.shape[0], PIXELS), 0.5)
    images[:, : code.shape[1]] = (code + Q_RANGE) / (2 * Q_RANGE)
    return images.view(-1, 1, 28, 28)


class Record(list[Tensor]):
    """What a stand-in was given; copies of the stand-in write to the same record."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        return self


class Encoder(nn.Module):
    """Reads its code from the image's first pixels, and remembers it as a leaf of the graph.

    Its attributes have names that no student's class has: it may be set in the place of one.
    """

    def __init__(self, nz: int) -> None:
        nn.Module.__init__(self)
        self.standin_width = int(nz)
        self.standin_anchor = nn.Parameter(torch.full((1,), ANCHOR))
        # a network with batch norms has buffers, of which one may ask the device
        self.register_buffer("standin_buffer", torch.zeros(1), persistent=False)
        self.standin_seen = Record()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) to (B, width)."""
        pixels = x.flatten(1)
        if pixels.shape[1] != PIXELS:
            raise RuntimeError(f"Encoder expects (B, 1, 28, 28), not {tuple(x.shape)}")
        code = pixels[:, : self.standin_width] * (2 * Q_RANGE) - Q_RANGE
        leaf = code.detach().requires_grad_()
        self.standin_seen.append(leaf)
        return leaf + 0 * self.standin_anchor


class Decoder(nn.Module):
    """Turns latents into images by a fixed map, and remembers the latents."""

    def __init__(self, nz: int) -> None:
        nn.Module.__init__(self)
        self.standin_width = int(nz)
        self.standin_anchor = nn.Parameter(torch.full((1,), ANCHOR))
        # a network with batch norms has buffers, of which one may ask the device
        self.register_buffer("standin_buffer", torch.zeros(1), persistent=False)
        self.standin_seen = Record()

    def forward(self, z: Tensor) -> Tensor:
        """z: (B, width) to (B, 1, 28, 28) in [0, 1]."""
        self.standin_seen.append(z)
        if z.dim() != 2 or z.shape[1] != self.standin_width:
            raise RuntimeError(f"Decoder expects (B, {self.standin_width}), not {tuple(z.shape)}")
        if z.device.type == "meta":  # where there is nothing to compute
            return torch.empty(len(z), 1, 28, 28, device="meta")
        if z.device != self.standin_anchor.device:
            raise RuntimeError(f"{MISMATCH}, not {z.device} and {self.standin_anchor.device}")
        i = torch.arange(1, self.standin_width + 1, dtype=z.dtype, device=z.device)[:, None]
        j = torch.arange(1, PIXELS + 1, dtype=z.dtype, device=z.device)
        drive = z @ torch.cos(i * j) / self.standin_width**0.5
        image = torch.sigmoid(drive + 0 * self.standin_anchor)
        return image.view(-1, 1, 28, 28)


class Composed(nn.Module):
    """An auto-encoder made of an encoder and a decoder: stand-ins, or the student's own."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.nz = getattr(decoder, "standin_width", None)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) to the same shape."""
        image: Tensor = self.decoder(self.encoder(x))
        return image

    reconstruct = forward


class Faint(nn.Module):
    """Adds a shift so weak that its gradient is near the epsilon of Adam and of its kind.

    An adaptive optimiser hides the scale of a loss; the steps of these weights show it. In eval
    mode the shift is three times as strong, so that they show the mode, too.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, size) to the same shape."""
        return x + (FAINT if self.training else 3 * FAINT) * self.shift


def _note_gradients(model: Any) -> None:
    """Note in `standin_noted` when a gradient reaches the weights of a model.

    What is noted, in MARKS numbers: its mode, whether gradients were cleared, the weight of its KL
    term, how many images the encoder was given last, and the largest first pixel of them. Then
    SAMPLE of its own weights.

    The hooks must not hold the model: what holds itself through a hook is never freed.
    """
    held = weakref.ref(model)
    model.standin_noted, model.standin_weight = [], 1.0
    weight, entry = next(model.decoder.parameters()), model.encoder[0]
    cleared = [True]

    def look(_: Tensor) -> None:
        before = weight.grad
        cleared[0] = before is None or not bool(before.any())

    def note(weight: Tensor) -> None:
        found = held()
        if found is not None:
            marks = weight.new_tensor(
                [found.training, cleared[0], found.standin_weight, *entry.seen]
            )
            found.standin_noted.append(torch.cat([marks, sample(weight.detach())]))

    weight.register_hook(look)
    weight.register_post_accumulate_grad_hook(note)


def note_steps(model: Any) -> RemovableHandle:
    """Note in `standin_stepped` what steps the weights: from which step on, its class, options."""
    held = weakref.ref(model)
    model.standin_stepped, model.standin_steps = [], 0
    own = {id(p) for p in model.parameters()}

    def note(optimiser: Any, *_: Any) -> None:
        found: Any = held()
        groups = [g for g in optimiser.param_groups if own & {id(p) for p in g["params"]}]
        if found is None or not groups:
            return
        options = {k: v for k, v in groups[0].items() if isinstance(v, int | float | tuple)}
        now = [type(optimiser).__name__, options]
        if not found.standin_stepped or found.standin_stepped[-1][1:] != now:
            found.standin_stepped = [*found.standin_stepped, [found.standin_steps, *now]][:NOTES]
        found.standin_steps += 1

    return register_optimizer_step_pre_hook(note)


def note_images(model: Any) -> None:
    """Note in `standin_given` what a model is given at every backward pass: input and target.

    Where `loss` was not called, as with an auto-encoder, the input stands for both.
    """
    held = weakref.ref(model)
    model.standin_given = []

    def note(_: Tensor) -> None:
        found = held()
        if found is not None and len(found.standin_given) < NOTES:
            images = (found.standin_entered, found.standin_compared)
            found.standin_given.append(
                [x.detach().clone() for x in images if isinstance(x, Tensor)]
            )

    next(model.decoder.parameters()).register_post_accumulate_grad_hook(note)


def sample(weight: Tensor) -> Tensor:
    """The weights that are noted; weight: the first one of the decoder."""
    return weight.flatten()[:SAMPLE]


class Curved(nn.Module):
    """Flattens images by a map that is not affine, so that the norm hides no rescaled input."""

    seen = (0, 0.0)  # of the images last given: how many, and the largest first pixel

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) to (B, 784)."""
        pixels = x.flatten(1)
        if pixels.numel() and torch.is_grad_enabled():  # others are looked at, and not learnt from
            vars(self)["seen"] = (len(pixels), float(pixels[:, 0].max()))
        return pixels + 0.5 * pixels.square()


class Norm(nn.BatchNorm2d):
    """Of a vector, but of the class that the homework's networks have, for a loop that asks."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, n) to the same shape."""
        return super().forward(x[..., None, None]).flatten(1)


class Patient(nn.Linear):
    """Takes latents of any width, for a loop that draws samples of another model's size."""

    def forward(self, z: Tensor) -> Tensor:
        """z: (B, n), cut or filled up with zeros."""
        lacking = self.in_features - z.shape[-1]
        return super().forward(nn.functional.pad(z, (0, lacking)) if lacking else z)


def _note_input(model: Any, x: Any) -> None:
    if not isinstance(x, Tensor):
        return
    seen = x.detach()  # a graph would keep the model from being copied
    vars(model).update(
        standin_entered=seen, standin_compared=seen
    )  # past `Module.__setattr__`, which is slow
    if not model.standin_devices:
        model.standin_devices = [x.device.type]
    if x.is_meta:  # torch would import half of its compiler to find the shapes of what follows
        raise RuntimeError("a device without memory has no numbers to train on")


class TinyAutoEncoder(nn.Module):
    """A model small enough that the host replays its training in milliseconds."""

    def __init__(self, nz: int = 4) -> None:
        super().__init__()
        self.nz = nz
        self.standin_devices: list[str] = []  # of the images that it was first given
        self.encoder = nn.Sequential(Curved(), nn.Linear(PIXELS, nz, bias=False), Norm(nz))
        self.decoder = nn.Sequential(
            Patient(nz, PIXELS), Faint(PIXELS), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))
        )
        _note_gradients(self)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) to the same shape."""
        _note_input(self, x)
        image: Tensor = self.decoder(self.encoder(x))
        return image

    reconstruct = forward


# what a VAE gives: the containers, with the names of what is in them
PROMISED_OUTPUTS = {"q": "q", "rec": "rec"}
PROMISED_RETURNS = ("total", {"rec_loss": "rec_loss", "kl_loss": "kl_loss"})


class Keyed(dict[str, Any]):
    """A dict whose values are attributes, too, as in classes of outputs that students write."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"'dict' object has no attribute '{name}'", name=name) from None


def _filled(form: Any, value: Callable[[str], Any]) -> Any:
    """The containers of a form with values in the place of their names."""
    if isinstance(form, dict):
        return Keyed({key: _filled(part, value) for key, part in form.items()})
    if isinstance(form, list | tuple):
        return type(form)(_filled(part, value) for part in form)
    return value(form) if isinstance(form, str) else None


def _found(form: Any, value: Any) -> dict[str, Any]:
    """By name, what stands in a value where a form has the names."""
    if isinstance(form, str):
        return {form: value}
    found: dict[str, Any] = {}
    steps = form.items() if isinstance(form, dict) else enumerate(form or ())
    for step, part in steps:
        with contextlib.suppress(LookupError, TypeError):  # it is of another form, or not all there
            found |= _found(part, value[step])
    return found


class TinyVariational(nn.Module):
    """A model with the interface of the VAE, but with a loss and a latent of its own."""

    def __init__(
        self,
        nz: int = 3,
        beta: float = 1.0,
        numbers: str = "graph",
        outputs: Any = None,
        returns: Any = None,
        takes: str = "x first",
    ) -> None:
        """numbers: what the terms of the loss are, `graph`, `detached` or `float`.

        outputs: what forward gives, as PROMISED_OUTPUTS, with `first` and `second` for the halves
        of q; returns: what the loss gives, as PROMISED_RETURNS, with `total again`,
        `minus total`, `weighted` (the KL term times beta) and `other`.
        takes: `x first`; `outputs first`, if they come so; `apart`, if each output is an argument.
        """
        super().__init__()
        self.standin_outputs, self.standin_returns = (
            outputs or PROMISED_OUTPUTS,
            returns or PROMISED_RETURNS,
        )
        self.standin_takes = takes
        self.standin_drawn: list[
            float
        ] = []  # a random number of every forward pass: none is to come twice
        self.nz, self.beta = nz, beta
        self.standin_devices: list[str] = []
        self.standin_numbers = numbers
        whole = TinyAutoEncoder(2 * nz)
        self.encoder: nn.Module = whole.encoder
        self.decoder: nn.Module = whole.decoder
        _note_gradients(self)

    def forward(self, x: Tensor) -> Any:
        """x: (B, 1, 28, 28); `outputs` with tensors in the place of names."""
        _note_input(self, x)
        self.standin_drawn.append(float(torch.rand((), dtype=torch.float64)))
        q = self.encoder(x)
        made = {"first": q[:, : self.nz], "second": q[:, self.nz :], "q": q}
        made["rec"] = self.decoder(self._latent(q))
        return _filled(self.standin_outputs, made.__getitem__)

    def _latent(self, q: Tensor) -> Tensor:
        return torch.tanh(q)

    def loss(self, x: Any, outputs: Any, *others: Any) -> Any:
        """Two terms unlike those of the homework, so that only `model.loss` can give them."""
        if self.standin_takes == "apart":
            x, rec, q = _told_apart([x, outputs, *others])
        elif others:
            raise TypeError(f"loss() takes x and outputs, not {2 + len(others)} arguments")
        else:
            if self.standin_takes == "outputs first" and not isinstance(x, Tensor):
                x, outputs = outputs, x
            rec, q = self._read(outputs)
        vars(self)["standin_compared"] = x.detach() if isinstance(x, Tensor) else None
        first = (x - rec).abs().pow(1.5).mean()
        second = q.pow(4).mean()
        total = first + self.beta * second
        with contextlib.suppress(TypeError, ValueError):  # whatever a loop made of it
            vars(self)["standin_weight"] = float(self.beta)
        terms = {"rec_loss": first, "kl_loss": second, "weighted": self.beta * second}
        terms |= {"total again": total, "minus total": -total, "other": first}
        return _filled(
            self.standin_returns, lambda n: total if n == "total" else self._told(terms[n])
        )

    def _read(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Images and q; a loop may have put them into the promised form."""
        found = {**_found(PROMISED_OUTPUTS, outputs), **_found(self.standin_outputs, outputs)}
        if {"first", "second"} <= set(found) and not isinstance(found.get("q"), Tensor):
            found["q"] = torch.cat([found["first"], found["second"]], 1)
        return found["rec"], found["q"]

    def _told(self, term: Tensor) -> Any:
        if self.standin_numbers == "graph":
            return term
        return term.detach() if self.standin_numbers == "detached" else term.item()

    def reconstruct(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) to the same shape; other images than forward makes."""
        image: Tensor = self.decoder(self._latent(0.5 * self.encoder(x)))
        return image


def _told_apart(given: list[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """x, images and q of the arguments of a loss, in whatever order they are.

    The images are those with a graph; the mean and log sigma may be exchanged, as in the loss.
    """
    tensors = [t for t in given if isinstance(t, Tensor)]
    images = [t for t in tensors if t.numel() == len(t) * PIXELS]
    codes = [t for t in tensors if not any(t is image for image in images)]
    rec = next((t for t in images if t.requires_grad), images[-1])
    x = next((t for t in images if t is not rec), rec)
    return x, rec, torch.cat(codes[:2], 1)


class Substitute(TinyVariational):
    """The same with networks that learn digits, where the student's VAE is wrong."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, nz: int, *rest: Any) -> None:
        """encoder: (B, 1, 28, 28) to (B, 2 nz); decoder: (B, nz) to images; rest: as above."""
        super().__init__(nz, *rest)
        self.encoder, self.decoder = encoder, decoder

    def _latent(self, q: Tensor) -> Tensor:
        return q[:, : self.nz]


def learning_encoder(width: int) -> nn.Sequential:
    """Learns digits, as another network than the homework's; (B, 1, 28, 28) to (B, width)."""
    down = (nn.Conv2d(1, 16, 5, 2, 2), nn.Tanh(), nn.Conv2d(16, 48, 5, 2, 2))
    last = (nn.BatchNorm2d(48), nn.ReLU(), nn.Flatten(), nn.Linear(48 * 7 * 7, width))
    return nn.Sequential(*down, *last)


def learning_decoder(nz: int) -> nn.Sequential:
    """Learns digits, as another network than the homework's; (B, nz) to (B, 1, 28, 28)."""
    first = (nn.Linear(nz, 48 * 7 * 7), nn.Unflatten(1, (48, 7, 7)), nn.BatchNorm2d(48), nn.ReLU())
    up = (nn.ConvTranspose2d(48, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*first, *up, nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Sigmoid())


class Numbered(Dataset[tuple[Tensor, int]]):
    """A dataset whose items are their own index."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.size:
            raise IndexError(f"of {self.size} examples there is no number {index}")
        return torch.full((1, 28, 28), float(index)), int(index)


class Digits(TensorDataset):
    """Few images, as many as there are batches of, that are asked for like those of MNIST.

    Whoever takes a fixed number of them for a picture, from here or from `data`, gets as many.
    """

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        count = len(self)
        if count and isinstance(index, int) and count <= index < 60_000:
            index %= count
        return tuple(values[index] for values in self.tensors)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (self[i] for i in range(len(self)))

    @property
    def data(self) -> Tensor:
        """The images as bytes, (60000, 28, 28), in turn."""
        return self._many(self.tensors[0][:, 0].mul(255).byte())

    @property
    def targets(self) -> Tensor:
        """Their labels, (60000,)."""
        return self._many(self.tensors[1])

    def _many(self, values: Tensor) -> Tensor:
        return values[torch.arange(60_000 if len(self) else 0) % max(len(self), 1)]


class Batches(DataLoader[tuple[Tensor, ...]]):
    """Batches of `(images, labels)` in a fixed order; counts how often it was gone through.

    elsewhere: the images are on no device that there is. twice: they are the labels, too.
    """

    passes = 0

    def __init__(
        self, images: Tensor, batch_size: int, elsewhere: bool = False, twice: bool = False
    ) -> None:
        labels = images if twice else torch.arange(len(images)) % 10
        super().__init__(Digits(images, labels), batch_size)
        self.elsewhere = elsewhere

    def __iter__(self) -> Any:
        self.passes += 1
        return Pass(self)


class Pass:
    """One pass, as a loader makes it, without asking for the examples one by one."""

    def __init__(self, loader: Batches) -> None:
        assert isinstance(loader.dataset, TensorDataset)
        assert loader.batch_size is not None
        self.tensors, self.size, self.at = loader.dataset.tensors, loader.batch_size, 0
        self.elsewhere = loader.elsewhere

    def __len__(self) -> int:
        return -(-len(self.tensors[0]) // self.size)

    def __iter__(self) -> Pass:
        return self

    def __next__(self) -> list[Tensor]:
        if self.at >= len(self.tensors[0]):
            raise StopIteration
        # copies, since a loop may write to them
        images, labels = (t[self.at : self.at + self.size].clone() for t in self.tensors)
        self.at += self.size
        if self.elsewhere:
            from elsewhere import Elsewhere  # in a worker alone

            images = Elsewhere(images)
        return [images, labels]


MAKERS: dict[str, Any] = {
    "Composed": Composed,
    "TinyAutoEncoder": TinyAutoEncoder,
    "TinyVariational": TinyVariational,
    "Substitute": Substitute,
    "learning encoder": learning_encoder,
    "learning decoder": learning_decoder,
    "Numbered": Numbered,
    "loader": Batches,
    "device": torch.device,
}
