"""The reference solution keeps the promises that the homework makes."""

import copy
import gzip
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl
from torch.utils.data import TensorDataset

from solution import (
    TUNED_BETA,
    VAE,
    AutoEncoder,
    Decoder,
    Encoder,
    __main__,
    data,
    interpolate,
    kl_divergence,
    load_digits,
    make_data_loader,
    sample,
    sample_images,
    train_autoencoder,
    train_vae,
)
from solution.together import train_together

sizes = st.integers(1, 9)
few = settings(max_examples=10, deadline=None, derandomize=True)


def digits(count: int, train: bool = True) -> TensorDataset:
    """The first `count` of the bundled digits."""
    return TensorDataset(*load_digits(data.SAMPLE, train)[:count])


def fixed_batches(count: int, size: int = 64) -> list[tuple[Tensor, Tensor]]:
    images, labels = digits(count * size).tensors
    return list(zip(images.split(size), labels.split(size), strict=True))


def outputs_of_layers(
    network: nn.Module, x: Tensor, kind: type[nn.Module]
) -> list[tuple[int, ...]]:
    """Channels and sides after every layer of a kind."""
    shapes: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda _m, _i, y: shapes.append(tuple(y.shape[1:])))
    network(x)
    return shapes


def test_encoder_has_the_resolutions_of_the_table() -> None:
    shapes = outputs_of_layers(Encoder(64), torch.rand(2, 1, 28, 28), nn.Conv2d)
    assert shapes == [(32, 14, 14), (64, 7, 7), (128, 3, 3), (256, 1, 1)]


def test_decoder_has_the_resolutions_of_the_table() -> None:
    shapes = outputs_of_layers(Decoder(64), torch.rand(2, 64), nn.ConvTranspose2d)
    assert shapes == [(128, 3, 3), (64, 7, 7), (32, 14, 14), (1, 28, 28)]


@pytest.mark.parametrize(("network", "norms"), [(Encoder(3), 3), (Decoder(3), 4)])
def test_normalisation_follows_the_table_and_convolutions_have_a_bias(
    network: nn.Module, norms: int
) -> None:
    layers = list(network.modules())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == norms
    assert sum(isinstance(layer, nn.LeakyReLU) for layer in layers) == 4
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(layer.bias is not None for layer in convolutions)


@few
@given(nz=sizes, batch=st.integers(2, 9))
def test_networks_take_every_latent_size_and_batch(nz: int, batch: int) -> None:
    x = torch.rand(batch, 1, 28, 28)
    assert Encoder(nz)(x).shape == (batch, nz)
    image = Decoder(nz)(torch.randn(batch, nz))
    assert image.shape == x.shape
    assert 0 <= image.min() <= image.max() <= 1


moderate = st.floats(-6, 6)


@settings(deadline=None, derandomize=True)
@given(mu1=moderate, log_sigma1=moderate, mu2=moderate, log_sigma2=moderate)
def test_divergence_agrees_with_torch(
    mu1: float, log_sigma1: float, mu2: float, log_sigma2: float
) -> None:
    values = torch.tensor([mu1, log_sigma1, mu2, log_sigma2], dtype=torch.float64)
    expected = torch_kl(Normal(values[0], values[1].exp()), Normal(values[2], values[3].exp()))
    torch.testing.assert_close(kl_divergence(*values), expected, rtol=1e-9, atol=1e-9)


def test_divergence_keeps_its_digits_where_the_gaussians_nearly_agree() -> None:
    log_sigma, zero = torch.tensor(1e-4), torch.tensor(0.0)
    torch.testing.assert_close(
        kl_divergence(zero, log_sigma, zero, zero), log_sigma**2, rtol=1e-2, atol=0
    )


@few
@given(nz=sizes, batch=st.integers(2, 9), beta=st.floats(0, 20), seed=st.integers(0, 2**31))
def test_loss_is_the_mean_error_plus_beta_times_the_summed_divergence(
    nz: int, batch: int, beta: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x, rec, q = (
        torch.rand(batch, 1, 28, 28),
        torch.rand(batch, 1, 28, 28),
        torch.randn(batch, 2 * nz),
    )
    total, parts = VAE(nz, beta).loss(x, {"q": q, "rec": rec})
    posterior = Normal(q[:, :nz], q[:, nz:].exp())
    divergence = torch_kl(posterior, Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(parts["kl_loss"], divergence)
    torch.testing.assert_close(parts["rec_loss"], ((x - rec) ** 2).mean())
    torch.testing.assert_close(total, parts["rec_loss"] + beta * divergence)


class Echo(nn.Module):
    """Answers with a fixed tensor, or with what it was given."""

    def __init__(self, answer: Tensor | None = None) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return x if self.answer is None else self.answer


def vae_that_shows_its_latents(mean: Tensor, log_sigma: Tensor) -> VAE:
    model = VAE(mean.shape[1])
    model.encoder, model.decoder = Echo(torch.cat([mean, log_sigma], dim=1)), Echo()  # type: ignore[assignment]
    return model


def test_forward_draws_from_the_gaussian_that_the_encoder_names() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([[1.0, -2.0]]).repeat(40_000, 1)
    log_sigma = torch.tensor([[0.5, -1.0]]).repeat(40_000, 1)
    outputs = vae_that_shows_its_latents(mean, log_sigma)(torch.rand(40_000, 1, 1, 1))
    assert outputs["q"].shape == (40_000, 4)
    torch.testing.assert_close(outputs["rec"].mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(outputs["rec"].std(0), log_sigma[0].exp(), atol=0.05, rtol=0)


def test_gradients_pass_through_the_draw() -> None:
    mean = torch.zeros(3, 2, requires_grad=True)
    log_sigma = torch.zeros(3, 2, requires_grad=True)
    z = vae_that_shows_its_latents(mean, log_sigma)(torch.rand(3, 1, 28, 28))["rec"]
    to_mean, to_log_sigma = torch.autograd.grad(z.sum(), [mean, log_sigma])
    torch.testing.assert_close(to_mean, torch.ones(3, 2))
    torch.testing.assert_close(to_log_sigma, z)  # dz / dlog_sigma = sigma eps, and the mean is 0


def test_reconstruction_decodes_the_mean() -> None:
    mean = torch.randn(3, 2)
    model = vae_that_shows_its_latents(mean, torch.zeros(3, 2))
    torch.testing.assert_close(model.reconstruct(torch.rand(3, 1, 28, 28)), mean)


def test_auto_encoder_reconstructs_as_it_passes_forward() -> None:
    model, x = AutoEncoder(5).eval(), torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(model.reconstruct(x), model(x))


def test_samples_are_fresh_at_every_call() -> None:
    model = AutoEncoder(5).eval()
    first, second = sample_images(model, 4, 5), sample_images(model, 4, 5)
    assert first.shape == (4, 1, 28, 28)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("model", [AutoEncoder(5).eval(), VAE(5).eval()])
def test_interpolation_runs_from_reconstruction_to_reconstruction(model: AutoEncoder | VAE) -> None:
    ends = torch.rand(2, 1, 28, 28)
    path = interpolate(model, ends[0], ends[1], 6)
    assert path.shape == (6, 1, 28, 28)
    torch.testing.assert_close(path[[0, -1]], model.reconstruct(ends), atol=1e-5, rtol=1e-4)


@few
@given(count=st.integers(1, 40), batch_size=sizes, seed=st.integers(0, 2**31))
def test_loader_hands_out_everything_once_an_epoch_in_batches(
    count: int, batch_size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    loader = make_data_loader(TensorDataset(torch.arange(count)), batch_size)
    batches = [batch for (batch,) in loader]
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_loader_shuffles_anew_every_epoch() -> None:
    loader = make_data_loader(TensorDataset(torch.arange(100)), 100)
    orders = [next(iter(loader))[0].tolist() for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3


def test_auto_encoder_learns_real_digits() -> None:
    torch.manual_seed(0)
    losses = train_autoencoder(AutoEncoder(16), fixed_batches(20), 3, 1e-3, "cpu")
    assert len(losses) == 60
    assert all(type(loss) is float for loss in losses)
    assert np.mean(losses[-5:]) < 0.05  # the mean digit alone scores 0.067


def test_vae_learns_real_digits() -> None:
    torch.manual_seed(0)
    history = train_vae(VAE(16, 1e-4), fixed_batches(20), 3, 1e-3, torch.device("cpu"))
    assert {name: len(values) for name, values in history.items()} == {
        "rec_loss": 60,
        "kl_loss": 60,
    }
    assert all(type(value) is float for values in history.values() for value in values)
    assert np.mean(history["rec_loss"][-5:]) < 0.06


def test_vae_minimises_the_total() -> None:
    torch.manual_seed(0)
    history = train_vae(VAE(4, 10.0), fixed_batches(10), 3, 1e-3, "cpu")
    assert np.mean(history["kl_loss"][-5:]) < 0.3 * np.mean(history["kl_loss"][:5])


def test_training_leaves_the_model_in_train_mode() -> None:
    model = AutoEncoder(4).eval()
    train_autoencoder(model, fixed_batches(1, 8), 1, 1e-3, "cpu")
    assert model.training


class Reshuffled:
    """Batches of images, in another order every epoch."""

    def __init__(self, images: Tensor, batch_size: int) -> None:
        self.images, self.batch_size = images, batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.images)).split(self.batch_size):
            yield self.images[rows], rows


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_models_trained_together_take_the_steps_of_the_loops(kind: str) -> None:
    images = digits(70).tensors[0]
    loop: Any = train_autoencoder if kind == "ae" else train_vae
    torch.manual_seed(0)
    model: AutoEncoder | VAE = AutoEncoder(8) if kind == "ae" else VAE(8, 0.5)
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    (losses,) = train_together([model], [2], images, 32, 1e-3)
    torch.manual_seed(1)
    expected = loop(other, Reshuffled(images, 32), 2, 1e-3, "cpu")
    assert losses == ({"rec_loss": expected} if kind == "ae" else expected)
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_models_trained_together_stop_after_their_own_epochs() -> None:
    torch.manual_seed(0)
    models: list[AutoEncoder | VAE] = [VAE(4, 0.0), AutoEncoder(4)]
    before = copy.deepcopy(models)
    losses = train_together(models, [3, 1], digits(20).tensors[0], 8, 1e-3)
    assert [{n: len(v) for n, v in history.items()} for history in losses] == [
        {"rec_loss": 9, "kl_loss": 9},
        {"rec_loss": 3},
    ]
    counts = {n: v for n, v in models[1].state_dict().items() if n.endswith("batches_tracked")}
    assert counts
    assert set(map(int, counts.values())) == {3}
    assert all(
        not torch.equal(next(a.parameters()), next(b.parameters()))
        for a, b in zip(models, before, strict=True)
    )


def test_tuned_beta_is_a_float_between_the_two_that_fail() -> None:
    assert 0 < float(TUNED_BETA) < 10


def test_sample_holds_real_digits_of_every_class() -> None:
    for train, per_class in [(True, 400), (False, 100)]:
        images, labels = load_digits(data.SAMPLE, train).tensors
        assert images.shape == (10 * per_class, 1, 28, 28)
        assert images.dtype == torch.float32
        assert images.min() == 0
        assert images.max() == 1
        assert labels.bincount().tolist() == [per_class] * 10
        assert 0.11 < images.mean() < 0.15  # the whole of MNIST: 0.131


def test_sample_is_small_and_names_its_licence() -> None:
    assert all(path.stat().st_size < 1_500_000 for path in data.SAMPLE.glob("*.gz"))
    assert "Attribution-ShareAlike 3.0" in (data.SAMPLE / "README.md").read_text()


def test_sample_is_drawn_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "PER_CLASS", {"train": 3, "t10k": 2})
    for out in ("a", "b"):
        sample.make_sample(data.SAMPLE, tmp_path / out, seed=7)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    images, labels = load_digits(tmp_path / "a", train=False).tensors
    assert labels.bincount().tolist() == [2] * 10
    whole = {image.numpy().tobytes() for image in load_digits(data.SAMPLE, train=False).tensors[0]}
    assert all(image.numpy().tobytes() in whole for image in images)


def test_torchvision_reads_the_unpacked_sample(tmp_path: Path) -> None:
    data.unpack_digits(data.SAMPLE, tmp_path)
    mnist = data.import_datasets().MNIST(tmp_path, train=False, download=False)
    images, labels = load_digits(tmp_path, train=False).tensors
    torch.testing.assert_close(mnist.data.unsqueeze(1) / 255, images)
    assert mnist.targets.tolist() == labels.tolist()


def test_digits_are_read_alike_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_digits(data.SAMPLE, train=False).tensors

    def refuse() -> ModuleType:
        raise ImportError("no torchvision")

    monkeypatch.setattr(data, "import_datasets", refuse)
    for value, wanted in zip(load_digits(data.SAMPLE, train=False).tensors, expected, strict=True):
        assert torch.equal(value, wanted)
    with pytest.raises(FileNotFoundError, match="torchvision"):
        load_digits("nowhere", train=True)


def test_torchvision_is_imported_after_defining_what_a_cpu_torch_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[str] = []
    real = importlib.import_module

    def import_module(name: str) -> ModuleType:
        attempts.append(name)
        if len(attempts) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return real("math")

    class Library:
        defined: list[str] = []  # noqa: RUF012

        def __init__(self, namespace: str, kind: str) -> None:
            assert (namespace, kind) == ("torchvision", "FRAGMENT")

        def define(self, schema: str) -> None:
            self.defined.append(schema.partition("(")[0])

    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(importlib, "import_module", import_module)
    data.import_datasets()
    assert attempts == ["torchvision.datasets"] * 2
    assert Library.defined == ["nms", "qnms"]


def test_torchvision_is_imported_here() -> None:
    assert hasattr(data.import_datasets(), "MNIST")


def test_files_that_are_not_digits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "letters").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ValueError, match="not an idx file"):
        data.read_idx(tmp_path / "letters")
    (tmp_path / "one-ubyte.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(FileNotFoundError, match="four files"):
        load_digits(tmp_path, train=True)


def test_the_whole_homework_writes_its_figures_and_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "load_digits", lambda _folder, train: digits(128, train))
    arguments = ["--sample", "--epochs-scale", "0", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["solution", *arguments])
    __main__.main()
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        "training-samples",
        "ae-loss",
        "ae-reconstructions",
        "ae-samples",
        "vae-losses",
        "vae-reconstructions",
        "vae-samples",
        "interpolations",
    }
    assert all(2_000 < path.stat().st_size < 300_000 for path in tmp_path.glob("*.png"))
    report: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    models = ["auto-encoder", "VAE, beta = 0", "VAE, beta = 10", f"VAE, beta = {TUNED_BETA:g}"]
    assert [result["model"] for result in report["results"]] == models
    assert all(f"| {model} |" in (tmp_path / "results.md").read_text() for model in models)
