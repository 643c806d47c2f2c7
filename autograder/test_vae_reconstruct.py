"""`VAE.reconstruct(x)`: decodes the posterior mean."""

import contextlib
from dataclasses import replace

from torch import Tensor

from autograder.checks import check
from autograder.compare import close, described
from autograder.draws import Draws
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import USUAL_NZ, images_followed
from autograder.sizes import Sizes, try_sizes
from autograder.submission import Session
from autograder.vae import (
    LARGE,
    LAYOUTS,
    Forward,
    Habits,
    Model,
    Reading,
    code_of,
    decoded,
    draw_code,
    read_latents,
    reads_model,
)
from autograder.worker import standins
from autograder.worker.wire import Handle


@check("vae-reconstruct", "mean", 1)
def test_mean(session: Session, draws: Draws, habits: Habits) -> None:
    """Decodes the posterior mean, drawing nothing, for any nz and batch, in both modes."""
    try:
        for most in (9, 1):
            _check(session, draws, Habits(Sizes()), most)
    except (NotAttempted, Stopped):
        raise
    except Wrong as error:
        if not _agrees_with_forward(session, draws, habits):
            raise _explain(session, draws, error) from error
    if _ends_noise(session, draws, habits):
        text = "After a call of `reconstruct` the model's `forward` draws no noise any more."
        raise Wrong(f"{text} Leave the model as it was.", "no-noise")


def _ends_noise(session: Session, draws: Draws, habits: Habits) -> bool:
    """Whether a model's forward draws noise until its `reconstruct` was called."""
    sizes = habits.sizes or Sizes()
    nz, batch = sizes.draw_nz(draws), sizes.draw_batch(draws)
    model, q = Model(session, nz, 1.0, habits.heads), draw_code(draws, batch, nz)

    def draws_noise() -> bool:
        first, second = (model.forward(q).z for _ in range(2))
        return first is not None and second is not None and not close(first, second)

    try:
        if not draws_noise():
            return False  # that is charged in vae-forward
        model.call("reconstruct", standins.image_of(q))
        return not draws_noise()
    except Unchecked:  # a forward that fails or does not end is charged in vae-forward
        return False


def _agrees_with_forward(session: Session, draws: Draws, habits: Habits) -> bool:
    """Whether the fault is the one that forward was charged for."""
    sizes = habits.sizes or Sizes()
    layout = habits.reading.layout or "mean-first"
    if sizes.any and layout == "mean-first" and not habits.heads:
        return False
    try:
        _check(session, draws, replace(habits, sizes=sizes))
    except Stopped:
        raise
    except Wrong:
        return False
    return True


def _check(session: Session, draws: Draws, habits: Habits, most: int = 9) -> None:
    sizes, layout = habits.sizes or Sizes(), habits.reading.layout or "mean-first"
    drawn = [(True, (2, 40, 1, most)), (False, (2, 40, 1, most))]
    large = [(False, (USUAL_NZ, USUAL_NZ, *LARGE))]
    for training, (fewest, widest, least, largest) in drawn + (large if most > 1 else []):
        nz = sizes.draw_nz(draws, fewest, widest)
        batch = sizes.draw_batch(draws, least, largest)
        model = Model(session, nz, draws.real(0.2, 3.0), habits.heads)
        model.mode(training)
        q = draw_code(draws, batch, nz)
        x = standins.image_of(q)
        mean, _ = LAYOUTS[layout](model.forward(q).q if habits.heads else code_of(x, q))
        for quiet in (False, True):
            with session.without_gradients() if quiet else contextlib.nullcontext():
                image = model.call("reconstruct", x)
            if not isinstance(image, Tensor) or tuple(image.shape) != (batch, 1, 28, 28):
                raise _wrong_shape(image, batch, nz)
            expected = standins.Decoder(nz)(mean).detach()
            if not close(image, expected):
                raise Wrong("`reconstruct` should decode the posterior mean; yours does not.")


def _wrong_shape(image: object, batch: int, nz: int) -> Wrong:
    text = f"`reconstruct` should give images of {(batch, 1, 28, 28)}"
    if not isinstance(image, Tensor):
        return Wrong(f"{text}, not {described(image)}.", "wrong-return")
    slug = "wrong-return" if tuple(image.shape) in ((batch, nz), (batch, 2 * nz)) else "wrong-shape"
    return Wrong(f"{text}, not {tuple(image.shape)}.", slug)


def _explain(session: Session, draws: Draws, error: Wrong) -> Wrong:
    """What is decoded in place of the mean, or where it would be right."""

    def works(nz: int, batch: int) -> bool:
        try:
            _check(session, draws, Habits(Sizes(nz, batch)))
        except Unchecked:
            raise
        except Wrong:
            return False
        return True

    sizes = try_sizes(session, draws, works)
    fault = None if sizes is None else sizes.fault("`reconstruct`")
    if fault is not None:
        return fault
    name = _images_read(session, draws)
    if name is not None:
        text = f"`reconstruct` reads the notebook's `{name}`, not the images that it is given."
        return Wrong(text, "hidden-global")
    if error.misconception is not None:
        return error
    if isinstance(error, Raised) and reads_model(session):
        text = f"{error.message} `reconstruct` uses a model of the notebook, not its own parts."
        return Unchecked(text, "uses-global-model")
    if isinstance(error, Raised) and "Decoder expects" in error.text:  # that of a stand-in
        return Unchecked(error.message, "wrong-latent")
    found = {training: _what(session, draws, training) for training in (True, False)}
    if "mean" in found.values():
        mode = "eval" if found[False] == "mean" else "train"
        return Wrong(f"`reconstruct` is right in {mode} mode only.", "mode-dependent")
    if "sample" in found.values():
        return Wrong("`reconstruct` decodes a sample, not the mean.", "samples-in-reconstruct")
    if "sigma-first" in found.values():
        text = "`reconstruct` decodes log sigma; the mean is the first half of q."
        return Wrong(text, "wrong-latent")
    if "other" in found.values() and reads_model(session):
        text = "`reconstruct` decodes with a model of the notebook, not with its own parts."
        return Wrong(text, "uses-global-model")
    if "other" in found.values() and _decodes_mean(session, draws):
        text = "`reconstruct` decodes the mean, but what it returns is not what its decoder gives."
        return Wrong(f"{text} Return that image as it is.")
    if "other" in found.values():
        return Wrong(
            "`reconstruct` decodes something else than the posterior mean.", "wrong-latent"
        )
    return error


def _images_read(session: Session, draws: Draws) -> str | None:
    """A tensor of the notebook that the reconstruction follows."""
    nz = draws.integer(24, 40)
    try:
        model, x = Model(session, nz, 1.0), standins.image_of(draw_code(draws, 5, nz))
    except Raised:
        return None
    return images_followed(session, "VAE", lambda: model.call("reconstruct", x))


def _what(session: Session, draws: Draws, training: bool) -> str:
    """What `reconstruct` decodes: mean, sigma-first, sample, other, or nothing."""
    nz, batch = draws.integer(24, 40), draws.integer(48, 63)
    model = Model(session, nz, 1.0)
    model.mode(training)
    calls = []
    for _ in range(4):
        q = draw_code(draws, batch, nz)
        try:
            call = _call(model, q)
        except (NotAttempted, Stopped):
            raise
        except Unchecked:
            return "other" if model.latents() else "nothing"
        calls.append(call)
    for layout in ("mean-first", "sigma-first"):
        if all(z is not None and close(z, LAYOUTS[layout](q)[0]) for q, z in calls):
            return "mean" if layout == "mean-first" else layout
    if all(z is not None for _, z in calls):
        reading = _reading(calls)
        if reading.layout is not None and reading.noise in ("normal", "uniform"):
            return "sample"
    first, second = (model.call("reconstruct", standins.image_of(q)) for _ in range(2))
    if isinstance(first, Tensor) and not close(first, second):
        return "sample"
    return "other"


def _decodes_mean(session: Session, draws: Draws) -> bool:
    """Whether the decoder is handed the mean, and nothing else, whatever is returned."""
    model, q = Model(session, 6, 1.0), draw_code(draws, 5, 6)
    _, latents = model.watched("reconstruct", standins.image_of(q))
    mean, _ = LAYOUTS["mean-first"](code_of(standins.image_of(q), q))
    return bool(latents) and all(close(z, mean) for z in latents)


def _call(model: Model, q: Tensor) -> tuple[Tensor, Tensor | None]:
    x = standins.image_of(q)
    image, latents = model.watched("reconstruct", x)
    if not isinstance(image, Tensor):
        return code_of(x, q), None
    return code_of(x, q), decoded(latents, image, q.shape[1] // 2, len(q))


def _reading(calls: list[tuple[Tensor, Tensor | None]]) -> Reading:
    made = []
    for q, z in calls:
        assert z is not None
        rec = standins.Decoder(z.shape[1])(z.float()).detach()
        made.append(Forward(q, standins.image_of(q), Handle(0), {"rec": rec}, [z], Handle(0), q))
    return read_latents(made)
