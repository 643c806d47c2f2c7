"""`VAE(nz, beta=1.0)` and its forward: `{'q': (B, 2 nz), 'rec': (B, 1, 28, 28)}`."""

import contextlib
import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from autograder import noise
from autograder.checks import check
from autograder.compare import close, described, number
from autograder.draws import Draws
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.sizes import Sizes, try_sizes
from autograder.submission import Session
from autograder.vae import (
    LARGE,
    LAYOUTS,
    SCALES,
    Forward,
    Habits,
    Model,
    Reading,
    draw_code,
    evidence,
    follows,
    read_latents,
    reads_model,
)
from autograder.worker import standins
from autograder.worker.wire import Graph, Handle, Ref

DRAWN = st.tuples(
    st.integers(1, 120).filter(lambda nz: nz != 64),
    st.integers(1, 9),
    st.floats(0, 20, width=32),
    st.booleans(),
)


@check("vae-forward", "structure", 1)
def test_structure(session: Session, draws: Draws) -> None:
    """Has encoder, decoder and beta as promised; returns q and rec for any nz and batch."""
    always = [(40, 7, 0.5, True), (7, draws.integer(*LARGE), 2.0, True)]
    for nz, batch, beta, training in [*always, *draws.examples(DRAWN, 5)]:
        try:
            _check_constructor(session, nz, beta)
            _check_call(session, draws, nz, batch, beta, training)
        except (NotAttempted, Stopped):
            raise
        except Wrong as error:
            raise _explain_sizes(session, draws, beta, error) from error


def _check_constructor(session: Session, nz: int, beta: float) -> None:
    session.ask("take_over")
    kind = session.read("VAE")
    for made, expected in ((session.call(kind, nz, beta), beta), (session.call(kind, nz), 1.0)):
        if not isinstance(made, Handle):
            raise Wrong("`VAE(nz, beta)` should give an `nn.Module`.", "wrong-return")
        _check_beta(session, made, expected)
        for name, width in (("encoder", 2 * nz), ("decoder", nz)):
            _check_part(session, made, name, width)


def _check_beta(session: Session, made: Handle, expected: float, when: str = "") -> None:
    beta_seen = session.attribute(made, "beta")
    seen = number(beta_seen)
    if seen is None or not abs(seen - expected) <= 1e-6 * max(1.0, expected):
        text = f"`VAE` made with beta = {expected:g} has `.beta` = {seen}{when}."
        raise Wrong(text, "beta-ignored")
    if isinstance(beta_seen, Graph):
        text = "`.beta` is trained with the weights; it should stay as asked."
        raise Wrong(text, "beta-ignored")


def _check_part(session: Session, made: Handle, name: str, width: int) -> None:
    part = session.attribute(made, name)
    seen = None
    if isinstance(part, Handle):
        try:
            seen = session.attribute(part, "standin_width")
        except Raised:
            seen = None
    seen = number(seen)
    if seen is None and reads_model(session):
        text = f"`.{name}` should be a new `{name.capitalize()}`, not one of the notebook's models."
        raise Wrong(text, "uses-global-model")
    if seen != width:
        text = f"`.{name}` should be `{name.capitalize()}` made for {width} numbers"
        raise Wrong(
            f"{text}; yours was made for {f'{seen:g}' if seen else 'something else'}.",
            "q-structure" if name == "encoder" else "wrong-latent",
        )


def _check_call(
    session: Session, draws: Draws, nz: int, batch: int, beta: float, training: bool
) -> None:
    model = Model(session, nz, beta)
    model.mode(training)
    call = model.forward(draw_code(draws, batch, nz))
    _check_output(call, nz, batch)
    _check_mode(session, model, training)
    _check_beta(session, model.handle, beta, " after a call")


def _check_mode(session: Session, model: Model, training: bool) -> None:
    """No part of the model is in another mode than before the call."""
    names = {"the model": model.handle, "its encoder": model.encoder, "its decoder": model.decoder}
    for name, part in names.items():
        try:
            mode = session.attribute(part, "training")
        except Raised:
            continue
        if mode is (not training):
            now = "eval" if training else "train"
            text = f"`forward` puts {name} into {now} mode; the mode is for others to choose."
            raise Wrong(text, "mode-dependent")


def _check_output(call: Forward, nz: int, batch: int) -> None:
    output = call.output
    if not isinstance(output, dict) or not {"q", "rec"} <= set(output):
        text = "`forward` should return a dict with 'q' and 'rec'"
        told = output if isinstance(output, dict) else {}
        keys = [repr(key) for key in told if isinstance(key, str)][:6]
        what = f"one with {', '.join(keys)}" if keys else described(output)
        raise Wrong(f"{text}, not {what}.", "wrong-return")
    q = output["q"]
    if not isinstance(q, Tensor):
        raise Wrong(f"'q' should be one tensor (B, 2 nz), not {described(q)}.", "q-structure")
    if tuple(q.shape) != (batch, 2 * nz):
        text = f"'q' should be {(batch, 2 * nz)}, not {tuple(q.shape)}."
        raise Wrong(text, "q-structure")
    if call.line is not None:
        text = "The encoder should be given the images x as they are; yours gets others."
        raise Wrong(text, "q-structure")
    if not close(q, call.q):
        raise Wrong("'q' should be what the encoder gave: mean, then log sigma.", "q-structure")
    if not isinstance(call.rec, Tensor) or tuple(call.rec.shape) != (batch, 1, 28, 28):
        text = f"'rec' should be {(batch, 1, 28, 28)}, not {described(call.rec)}."
        raise Wrong(text, "wrong-shape")
    if not call.keeps_image:
        raise Wrong("'rec' should be what the decoder makes of the latent.", "wrong-return")


def _explain_sizes(session: Session, draws: Draws, beta: float, error: Wrong) -> Wrong:
    """Whether it would work at other sizes, or with a variable of the notebook set."""
    if session.misreads_arguments("VAE"):
        return Wrong("`VAE` should take nz, then beta.", "wrong-signature")

    def works(nz: int, batch: int) -> bool:
        try:
            _check_constructor(session, nz, beta)
            _check_call(session, draws, nz, batch, beta, True)
        except Wrong:
            return False
        return True

    if error.misconception in ("beta-ignored", "out-of-memory"):
        return error
    sizes = try_sizes(session, draws, works)
    variable = None if sizes is None else sizes.variable
    unnamed = isinstance(error, Raised) and error.misconception is None
    if unnamed and variable is None and reads_model(session):
        text = f"{error.message} The class uses a model of the notebook, not its own parts."
        return Unchecked(text, "uses-global-model")
    fault = None if sizes is None else sizes.fault("The class")
    return fault or error


@check("vae-forward", "sample", 1)
def test_sample(session: Session, draws: Draws, habits: Habits) -> None:
    """Decodes mean + exp(log_sigma) * eps, in both modes."""
    for training in (True, False):
        _, reading = _read(session, draws, habits, training)
        if not reading.right:
            raise _wrong_sample(reading)
    usual = habits.sizes is not None and not habits.heads
    if usual and reading.noise == "normal" and reading.shared is None and habits.line is None:
        _check_tails(session, draws, habits.sizes or Sizes())


def _check_tails(session: Session, draws: Draws, sizes: Sizes) -> None:
    """Far out, in eval mode, sigma is still exp(log_sigma); what is not finite is not hidden."""
    nz, batch = sizes.draw_nz(draws, 24, 40), sizes.draw_batch(draws, 48, 60)
    model = Model(session, nz, 1.0)
    model.mode(False)
    text = "sigma should be exp(log_sigma) for large values, too: do not clamp or replace them."
    keeps_image = False
    # to sigma, 1e-6 may be added against zeros
    for log_sigma in (0.0, -11.5, 14.0, math.inf):
        q = torch.zeros(batch, 2 * nz)
        q[:, nz:] = log_sigma
        try:
            call = model.forward(q)
            z = [z for z in call.latents if z.dim() == 2 and z.shape[1] == nz][-1]
        except Raised:
            continue  # refusing such numbers hides nothing
        except IndexError as error:
            if log_sigma == 0:
                return  # nothing is decoded at all, which is charged elsewhere
            raise Wrong(text, "masks-nan") from error
        if not math.isfinite(log_sigma):
            if bool(torch.isfinite(z).all()):
                raise Wrong(text, "masks-nan")
        elif not 0.5 < float((z.double() / math.exp(log_sigma)).square().mean().sqrt()) < 2:
            raise Wrong(text, "masks-nan")
        elif log_sigma == 0:
            keeps_image = call.keeps_image
        elif keeps_image and not _is_image_of(z, call.rec):
            raise Wrong(text, "masks-nan")


def _is_image_of(z: Tensor, image: Any) -> bool:
    """Whether images are what the decoder makes of latents, but for some pixels that rounding took.

    Where latents are far out, a pixel of a sum next to zero may be black or white.
    """
    made = standins.Decoder(z.shape[1])(z.float()).detach()
    if not isinstance(image, Tensor) or image.shape != made.shape:
        return False
    return float(((image - made).abs() > 0.01).double().mean()) < 0.01


def _read(
    session: Session, draws: Draws, habits: Habits, training: bool, exchanged: bool = False
) -> tuple[list[Forward], Reading]:
    if habits.sizes is None:
        Model(session, 40, 1.0).forward(draw_code(draws, 8, 40))
        raise _no_latent(session)
    calls = evidence(session, draws, habits, training, exchanged)
    reading = read_latents(calls)
    if reading.layout is None:
        raise _unexplained(calls)
    return calls, reading


def _no_latent(session: Session) -> Unchecked:
    text = "`forward` decodes no latent of the promised size with its own decoder."
    return Unchecked(text, "uses-global-model" if reads_model(session) else "wrong-latent")


def _unexplained(calls: list[Forward]) -> Wrong:
    seen = {tuple(z.shape) for call in calls for z in call.latents}
    expected = (calls[0].q.shape[0], calls[0].q.shape[1] // 2)
    if seen and expected not in seen:
        return Wrong(f"Expected a latent of {expected}, decoded: {sorted(seen)}.", "wrong-latent")
    if all(call.z is not None for call in calls) and _is_location_right(calls):
        return Wrong(
            "The latent spreads around the mean, but not as exp(log_sigma) * eps does.",
            "wrong-variance",
        )
    return Wrong("The decoded latent is not mean + exp(log_sigma) * eps.", "wrong-latent")


def _is_location_right(calls: list[Forward]) -> bool:
    """Whether latents follow the promised mean, whatever their spread."""
    z = torch.cat([c.z.flatten() for c in calls if c.z is not None]).double()
    mean = torch.cat([LAYOUTS["mean-first"](c.q)[0].flatten() for c in calls]).double()
    slope = float(((z - z.mean()) * mean).mean() / (mean * mean).mean())
    return abs(slope - 1) < 0.2


def _wrong_sample(reading: Reading) -> Wrong:
    if reading.layout == "sigma-first":
        text = "The first half of q is the mean, the second the log standard deviation."
        return Wrong(f"{text} Yours takes them the other way round.", "swapped-mean-and-log-sigma")
    if reading.layout != "mean-first":
        text = "Mean and log standard deviation are the halves of q, not every other column."
        return Wrong(text, "q-structure")
    return Wrong(
        "The noise should be scaled by exp(log_sigma); yours is scaled by "
        f"{_scale_in_words(reading.scale)}.",
        "wrong-variance",
    )


def _scale_in_words(scale: str | None) -> str:
    words = {
        "exp of half": "exp(log_sigma / 2)",
        "exp of double": "exp(2 log_sigma), the variance",
        "itself": "log_sigma itself",
        "half of exp": "half of exp(log_sigma)",
        "one": "1, whatever log_sigma is",
    }
    return words.get(scale or "", f"the {scale} of log_sigma")


@check("vae-forward", "noise", 1)
def test_noise(session: Session, draws: Draws, habits: Habits) -> None:
    """Draws eps from N(0, I), afresh at every call, for every row and dimension, in both modes."""
    kinds: dict[bool, tuple[str | None, str | None]] = {}
    for training in (True, False):
        try:
            _, reading = _read(session, draws, habits, training)
        except Unchecked:
            raise
        except Wrong:
            _check_variation(session, draws, habits, training)
            continue
        kinds[training] = (reading.noise, reading.shared)
    good = [training for training, found in kinds.items() if found == ("normal", None)]
    if len(good) == 1 and len(kinds) == 2:  # is it the mode, or the sizes that it was tried with?
        _, reading = _read(session, draws, habits, good[0], exchanged=True)
        raise_noise(reading.noise, reading.shared)
    still = [training for training, (kind, _) in kinds.items() if kind in ("none", "constant")]
    if len(still) == 1 and len(kinds) == 2:
        text = f"Noise is drawn in {'eval' if still[0] else 'train'} mode only; forward should draw"
        raise Wrong(f"{text} it in both modes.", "mode-dependent")
    if len(good) == 1 and len(kinds) == 2:
        text = f"The noise is as promised in {'train' if good[0] else 'eval'} mode only."
        raise Wrong(text, "mode-dependent")
    for kind, shared in kinds.values():
        raise_noise(kind, shared)
    if kinds and habits.sizes is not None and not habits.heads:
        _check_repeats(session, draws, habits)


def _check_repeats(session: Session, draws: Draws, habits: Habits) -> None:
    """The same images get other noise in another call; a single image does, too."""
    sizes = habits.sizes or Sizes()
    for most, what, slug in ((9, "the same images", "frozen-noise"), (1, "one image", "no-noise")):
        if most == 1 and sizes.batch is not None:
            return
        nz = sizes.draw_nz(draws, 24, 40)
        model = Model(session, nz, 1.0, line=habits.line)
        q = draw_code(draws, sizes.draw_batch(draws, min(most, 2), most), nz)
        for training in (True, False):
            model.mode(training)
            for quiet in (False, True):
                with session.without_gradients() if quiet else contextlib.nullcontext():
                    first, second = (model.forward(q).z for _ in range(2))
                if first is None or second is None or first.shape != second.shape:
                    continue
                if bool((first == second).all(1).any()):
                    where = ", where no gradients are recorded" if quiet else ""
                    text = f"For {what} the latent is the same at every call{where}: draw noise"
                    raise Wrong(f"{text} afresh.", slug)


def _check_variation(session: Session, draws: Draws, habits: Habits, training: bool) -> None:
    """Of a latent that nothing explains: whether it varies as with normal noise for one q."""
    sizes = habits.sizes or Sizes()
    nz, batch = sizes.draw_nz(draws, 24, 48), sizes.draw_batch(draws, 48, 63)
    model, q = Model(session, nz, 1.0), draw_code(draws, batch, nz)
    model.mode(training)
    calls = [model.forward(q) for _ in range(24)]
    latents = [z for call in calls for z in call.latents[-1:]]
    if len(latents) < 24 or any(z.shape != latents[0].shape for z in latents):
        raise Unchecked("No latents of one shape reach the decoder.", "wrong-latent")
    if not all(follows(call.rec, call.latents[-1]) for call in calls):
        raise Unchecked("'rec' has nothing to do with the latents that were decoded.")
    if close(latents[0], latents[1]):
        raise Wrong("The latent is the same at every call; noise should vary.", "no-noise")
    if not noise.varies_normally(torch.stack(latents)):
        raise Wrong("What is added to the mean is not exp(log_sigma) times draws from N(0, I).")


def raise_noise(kind: str | None, shared: str | None) -> None:
    """Name what is wrong with noise; see `noise.kind`."""
    if kind in ("none", "constant"):
        raise Wrong("No noise is drawn: the latent follows from q alone.", "no-noise")
    if shared == "frozen":
        raise Wrong("The noise is the same at every call; draw it afresh.", "frozen-noise")
    if shared is not None:
        whom = "All dimensions of a latent" if shared == "vector" else "All rows of the batch"
        whom = "Some rows or dimensions" if shared == "some" else whom
        raise Wrong(f"{whom} share their noise; each needs its own.", "shared-noise")
    if kind is not None and kind.startswith("uniform"):
        raise Wrong("The noise comes from a uniform distribution, not N(0, I).", "uniform-noise")
    if kind == "shifted":
        raise Wrong("The noise is normal, but its mean is not 0.")
    if kind == "scaled":
        raise Wrong("The noise is normal, but its variance is not 1.", "wrong-variance")
    if kind != "normal":
        raise Wrong("The noise does not come from N(0, I).")


@check("vae-forward", "gradient", 1)
def test_gradient(session: Session, draws: Draws, habits: Habits) -> None:
    """Lets the gradient of rec reach mean and log standard deviation."""
    if habits.sizes is None:
        Model(session, 40, 1.0).forward(draw_code(draws, 8, 40))
        raise _no_latent(session)
    for training in (True, False):
        for call in evidence(session, draws, habits, training, count=2):
            known = call.keeps_image and not habits.heads
            expected = _expected_gradient(call, habits.reading) if known else None
            _compare_gradient(call.gradient, expected)
            if isinstance(call.output, dict) and isinstance(call.output.get("q"), Tensor):
                _check_q_gradient(session, call)


def _check_q_gradient(session: Session, call: Forward) -> None:
    """A loss that is made of the returned q can train the encoder."""
    leaves = [Ref(call.codes, (i,)) for i in range(*call.coded)]
    if not any(g is not None for g in session.gradients(Ref(call.handle, ("q",)), leaves)):
        text = "No gradient leads from the returned 'q' back to the encoder."
        raise Wrong(text, "detached-gradient")


def _expected_gradient(call: Forward, reading: Reading) -> Tensor | None:
    """The gradient of the sum of rec with respect to q, for the student's own reading of q."""
    z = call.z
    if z is None or reading.layout is None or reading.scale is None:
        return None
    q = call.q.clone().requires_grad_()
    mean, raw = LAYOUTS[reading.layout](q)
    scale = SCALES[reading.scale](raw)
    eps = ((z - mean) / scale).detach()
    rec = standins.Decoder(z.shape[1])(mean + scale * eps)
    (gradient,) = torch.autograd.grad(rec.sum(), q)
    return gradient


def _compare_gradient(seen: Any, expected: Tensor | None) -> None:
    if not isinstance(seen, Tensor):
        raise Wrong("No gradient leads from 'rec' back to q.", "detached-gradient")
    if expected is None:
        fine = bool((seen != 0).any())  # what the latent is was judged elsewhere
    else:
        fine = close(seen / expected.abs().max(), expected / expected.abs().max(), 1e-2)
    if not fine:
        raise Wrong(
            "The gradient of 'rec' does not reach mean and log standard deviation as it should.",
            "detached-gradient",
        )
