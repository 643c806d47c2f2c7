"""The homework's models trained together: the same steps, in a fraction of the time on a GPU.

A step of these small networks is some hundred kernels of a few microseconds, so a GPU waits for
Python and for the loader. Here the digits lie on the device, and one step of all models is
recorded as a CUDA graph, each model on a stream of its own. On a CPU the same steps run one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from solution.models import VAE, AutoEncoder

WARM = 3  # steps before the first graph: libraries and optimisers allocate in them


def lay_out(model: AutoEncoder | VAE, form: torch.memory_format) -> None:
    """Order the numbers of its weights so in memory; their values stay."""
    # torch documents this argument of Module.to, but its overloads leave it out
    model.to(memory_format=form)  # type: ignore[call-overload]


class Learner:
    """A model on its way through so many epochs, with the losses of its steps on the device."""

    def __init__(
        self, model: AutoEncoder | VAE, epochs: int, epoch_steps: int, learning_rate: float
    ) -> None:
        weights = list(model.parameters())
        device = weights[0].device
        on_gpu = device.type == "cuda"
        self.model, self.epochs = model.train(), epochs
        if on_gpu:  # its convolutions want channels last
            lay_out(model, torch.channels_last)
        self.optimizer = torch.optim.Adam(weights, learning_rate, fused=on_gpu, capturable=on_gpu)
        self.stream = torch.cuda.Stream(device) if on_gpu else None
        names = ("rec_loss", "kl_loss") if isinstance(model, VAE) else ("rec_loss",)
        self.losses = {name: torch.zeros(epochs * epoch_steps, device=device) for name in names}

    def step(self, x: Tensor, number: Tensor) -> None:
        """One step on images (B, 1, 28, 28); number: (1,), how many came before."""
        if isinstance(self.model, VAE):
            total, parts = self.model.loss(x, self.model(x))
        else:
            total = F.mse_loss(self.model(x), x)
            parts = {"rec_loss": total}
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        for name, losses in self.losses.items():
            losses.index_copy_(0, number, parts[name].detach().view(1))


class Batches:
    """Batches of images (N, 1, 28, 28), on their device, from where it counts itself."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.order = torch.arange(len(images), device=images.device)
        self.first = self.order.new_zeros(1)
        self.number = self.order.new_zeros(1)

    def shuffle(self) -> None:
        """Begin an epoch."""
        self.order.copy_(torch.randperm(len(self.images)))
        self.first.zero_()

    def step(self, learners: Iterable[Learner], size: int) -> None:
        """Hand the next images, so many, to each learner."""
        rows = self.first + torch.arange(size, device=self.images.device)
        x = self.images[self.order[rows]]
        running = []
        for learner in learners:
            if learner.stream is not None:
                learner.stream.wait_stream(torch.cuda.current_stream())
                running.append(learner.stream)
            with torch.cuda.stream(learner.stream):  # None: as it comes
                learner.step(x, self.number)
        for stream in running:
            torch.cuda.current_stream().wait_stream(stream)
        self.first += size
        self.number += 1


def recorded(batches: Batches, learners: Sequence[Learner], size: int) -> torch.cuda.CUDAGraph:
    """A step of all learners as one graph, which does it at every replay; not done yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batches.step(learners, size)
    return graph


def train_together(
    models: Sequence[AutoEncoder | VAE],
    epochs: Sequence[int],
    images: Tensor,
    batch_size: int,
    learning_rate: float,
) -> list[dict[str, list[float]]]:
    """Trains each model for its epochs, as `train_autoencoder` and `train_vae` do.

    images: (N, 1, 28, 28) on the device of the models, reshuffled every epoch; all models see the
    same batches. Returns the losses of every step, by name, for each model.
    """
    full, left = divmod(len(images), batch_size)
    steps = full + bool(left)
    learners = [
        Learner(model, count, steps, learning_rate)
        for model, count in zip(models, epochs, strict=True)
    ]
    batches, running = Batches(images), list(learners)
    graph: torch.cuda.CUDAGraph | None = None
    for epoch in tqdm(range(max(epochs)), desc="all models", unit="epoch"):
        batches.shuffle()
        if running != (running := [it for it in learners if epoch < it.epochs]):
            graph = None  # it holds those that are done
        for number in range(full):
            if graph is None and images.is_cuda and (epoch or number >= WARM):
                graph = recorded(batches, running, batch_size)
            if graph is None:
                batches.step(running, batch_size)
            else:
                graph.replay()
        if left:
            batches.step(running, left)
    for learner in learners:
        lay_out(learner.model, torch.contiguous_format)
    return [{name: it.tolist() for name, it in one.losses.items()} for one in learners]
