"""The oracles against torch's own: KL, noise, Adam, and the recipes of a replay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from autograder import (
    derivatives,
    explaining,
    first_step,
    interface,
    losses,
    noise,
    recipes,
    replay,
)
from autograder.draws import Draws
from autograder.interface import Interface
from autograder.loss_series import check_series
from autograder.losses import Case
from autograder.outcomes import Unchecked, Wrong
from autograder.recipes import Recipe
from autograder.replay import Note, State, Told
from autograder.trial import Trial, not_by_rounding, notes_of, promised
from autograder.worker import standins
from autograder.worker.wire import Handle
from solution import train_autoencoder, train_vae

SEEDS = st.integers(0, 2**32)


def case(draws: Draws, batch: int = 5, nz: int = 4) -> Case:
    mu, s = draws.normal(batch, nz), draws.normal(batch, nz)
    return Case(mu, s, draws.images(batch), draws.images(batch), draws.real(0.5, 2), (0, 0, 0))


@given(SEEDS)
def test_kl_is_that_of_torch(seed: int) -> None:
    drawn = case(Draws(seed, "kl"))
    q = Normal(drawn.mu.double(), drawn.s.double().exp())
    p = Normal(torch.zeros_like(q.loc), torch.ones_like(q.loc))
    assert torch.allclose(losses.kl(drawn), kl_divergence(q, p).sum(1).mean())
    assert torch.allclose(losses.kl(drawn, "reversed"), kl_divergence(p, q).sum(1).mean())


PARTS = st.sampled_from(["q", "first second", "second first"])


@given(SEEDS, PARTS, st.booleans(), st.permutations(range(3)), st.booleans())
@settings(max_examples=20)
def test_a_stand_in_reads_outputs_as_it_gives_them(
    seed: int, parts: str, nested: bool, order: list[int], keyed: bool
) -> None:
    names: list[Any] = ["rec", *parts.split()]
    if nested:
        names = [names[0], tuple(names[1:])]
    names = [names[i] for i in order if i < len(names)]
    outputs = {f"key {n}": name for n, name in enumerate(names)} if keyed else names
    x = Draws(seed, "outputs").images(5)
    promised = standins.TinyVariational()
    model = standins.TinyVariational(outputs=outputs, returns=["kl_loss", {"all": "total"}])
    model.load_state_dict(promised.state_dict())
    total, terms = promised.loss(x, promised(x))
    kl, rest = model.loss(x, model(x))
    assert torch.allclose(kl, terms["kl_loss"])
    assert torch.allclose(rest["all"], total)


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (lambda q: q, "q"),
        (lambda q: q.clamp(-0.1, 0.1), "q"),
        (lambda q: None, "q"),
        (lambda q: q[:, :3], "q"),
        (lambda q: q.chunk(2, 1), ("first", "second")),
        (lambda q: {"mu": q[:, :3], "more": [q[:, 3:]]}, {"mu": "first", "more": ["second"]}),
    ],
    ids=["whole", "clamped", "none", "mean", "halves", "named halves"],
)
def test_what_stands_for_q_is_given_as_the_student_gives_it(
    q: Callable[[torch.Tensor], Any], expected: Any
) -> None:
    draws = Draws(1, "q")
    x, code = draws.images(5), draws.normal(5, 6)

    def loss(*_: Any) -> Any:
        raise Unchecked("it fails")

    call = interface.Call(x, Handle(1, ""), {"rec": x, "q": q(code)}, code, None, ("rec",))
    assert interface.learn(call, loss).outputs == {"q": expected, "rec": "rec"}


def test_each_number_of_a_loss_is_given_as_the_student_gives_it() -> None:
    x, code = torch.rand(5, 1, 28, 28), torch.rand(5, 6)
    told: dict[str, Any] = {"beta_kl": 3.4, "loss": 5.0, "elbo": -5.0, "recon": 1.6, "kl": 1.7}
    told |= {"objective": 0.7, "mean": [0.1] * 50, "again": 5.0}
    names = dict(
        zip(told, "weighted total minus+total rec_loss kl_loss other".split(), strict=False)
    )
    expected: dict[str, Any] = {key: name.replace("+", " ") for key, name in names.items()}
    expected |= {"mean": ["other"] * 50, "again": "total again"}
    call = interface.Call(x, Handle(1, ""), {"rec": x, "q": code}, code, None, ("rec",), 2.0)
    assert interface.learn(call, lambda *_: told).returns == expected


@given(SEEDS)
@settings(max_examples=20)
def test_every_wrong_kl_is_told_from_the_right_one(seed: int) -> None:
    draws = Draws(seed, "mistakes")
    drawn = [case(draws, batch, nz) for batch, nz in ((5, 4), (3, 7), (8, 3))]
    for formula, (slug, _) in losses.FORMULAS.items():
        seen = [_with_kl(c, float(losses.kl(c, formula))) for c in drawn]
        cause = losses.explain_kl(seen)
        assert cause.right == (formula == "kl")
        assert (cause.misconception or "") == slug


def _with_kl(c: Case, value: float) -> Case:
    return Case(c.mu, c.s, c.x, c.rec, c.beta, (0.0, 0.0, value))


@given(SEEDS, st.floats(0.3, 3))
@settings(max_examples=20)
def test_normal_noise_is_normal_and_nothing_else_is(seed: int, scale: float) -> None:
    draws = Draws(seed, "noise")
    calls = [draws.normal(50, 30) for _ in range(6)]
    assert noise.kind(calls) == ("normal", None)
    assert noise.kind([calls[0]] * 6) == ("normal", "frozen")
    assert noise.kind([c[:1].expand(50, 30) for c in calls]) == ("normal", "batch")
    assert noise.kind([c[:, :1].expand(50, 30) for c in calls]) == ("normal", "vector")
    near = [torch.full((50, 30), v) for v in (0.3, 0.3001, -1.0, 0.9, -0.2, 1.4)]
    assert noise.sharing(near) == "call"
    assert noise.kind([torch.cat([c, -c]) for c in calls]) == ("normal", "some")
    assert noise.kind([torch.cat([c[:, :9], c[:1, 9:].expand(50, 21)], 1) for c in calls]) == (
        "normal",
        "some",
    )
    ball = [30**0.5 * torch.nn.functional.normalize(c, dim=1) for c in calls]
    assert noise.kind(ball) == (None, None)
    assert noise.kind([c[:, :15].repeat(1, 2) for c in calls]) == ("normal", "some")
    assert noise.kind([draws.uniform(50, 30) for _ in range(6)]) == ("uniform", None)
    assert noise.kind([0 * c for c in calls]) == ("none", None)
    assert noise.kind([0 * c + 1 for c in calls]) == ("constant", None)
    if abs(scale - 1) > 0.1:
        assert noise.kind([scale * c for c in calls]) == ("scaled", None)


def course(seed: int, kind: str) -> replay.Course:
    draws = Draws(seed, "course")
    return replay.draw_course(draws, kind, Interface(), 13, 5, 3, 10 ** draws.real(-3.7, -2.3))


def test_what_is_told_of_a_course_leaves_its_promised_training() -> None:
    drawn = replay.draw_course(Draws(1, "test"), "TinyAutoEncoder", Interface(), 7, 7, 1, 2e-3)
    assert "promised" not in vars(drawn.told_of(notes=()))
    trained = drawn.promised
    assert drawn.told_of(notes=()).promised is trained


@pytest.mark.parametrize("kind", ["TinyAutoEncoder", "TinyVariational"])
def test_a_training_without_memory_ends_at_its_first_batch(kind: str) -> None:
    model: Any = standins.MAKERS[kind](*(() if kind == "TinyAutoEncoder" else (3, 0.5)))
    loop: Any = train_autoencoder if kind == "TinyAutoEncoder" else train_vae
    batches = [(torch.rand(7, 1, 28, 28), None)] * 2
    with pytest.raises(RuntimeError, match="no numbers"):
        loop(model.to("meta"), batches, 1, 1e-3, "meta")
    assert model.standin_devices == ["meta"]


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_replay_is_that_of_torchs_adam(seed: int) -> None:
    drawn = course(seed, "TinyAutoEncoder")
    model = drawn.model().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=drawn.rate)
    for _ in range(drawn.epochs):
        for x in drawn.batches:
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(model(x), x).backward()
            optimiser.step()
    assert explaining.same(drawn, model.state_dict(), replay.train(drawn, Recipe()).state)


@pytest.mark.parametrize("kind", ["TinyAutoEncoder", "TinyVariational"])
@pytest.mark.parametrize(
    "draw", [replay.draw_long, replay.draw_dull, replay.draw_dark, replay.draw_steep]
)
@given(SEEDS)
@settings(max_examples=3, deadline=None)
def test_derivatives_that_are_written_out_give_what_the_replay_gives(
    draw: Callable[..., replay.Course], kind: str, seed: int
) -> None:
    drawn = in_double_precision(draw(Draws(seed, "derivatives"), kind, Interface()))
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # where rounding decides on nothing
    try:
        expected, found = replay.train(drawn, Recipe()), derivatives.train(drawn)
    finally:
        torch.set_default_dtype(default)
    assert explaining.same(drawn, found.state, expected.state, 1e-6)
    for name, series in found.losses.items():
        assert series == pytest.approx(expected.losses[name], rel=1e-6)


def in_double_precision(drawn: replay.Course) -> replay.Course:
    state = {n: v.double() if v.is_floating_point() else v for n, v in drawn.state.items()}
    return replace(drawn, state=state, images=drawn.images.double())


def _trained_in_order(drawn: replay.Course, orders: list[list[int]]) -> tuple[Any, replay.Course]:
    """What a training leaves that takes the batches in such orders, and what was noted of it."""
    model = drawn.model()
    optimiser = torch.optim.Adam(model.parameters(), lr=drawn.rate)
    for x in [drawn.batches[i] for order in orders for i in order]:
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(model(x), x).backward()
        optimiser.step()
    end = standins.sample(model.decoder[0].weight.detach()).double()
    notes = (*notes_of(model.standin_noted), Note(True, True, end))
    return model.state_dict(), drawn.told_of(notes=notes)


def test_batches_may_come_in_any_order_but_each_once_a_pass() -> None:
    drawn = course(3, "TinyAutoEncoder")  # three passes over three batches, the last a smaller one
    shuffled = [[2, 0, 1], [0, 1, 2], [1, 2, 0]]
    for orders, free in ((shuffled, True), ([[0, 1, 2], [0, 0, 2], [2, 1, 0]], False)):
        state, seen = _trained_in_order(drawn, orders)
        assert not explaining.same(drawn, state, drawn.promised.state)
        assert explaining.same(seen, state, seen.promised.state) is free
        assert [list(places) for places in seen.places] == (orders if free else [[0, 1, 2]] * 3)
    plain, seen = _trained_in_order(drawn, [[0, 1, 2]] * 3)
    assert seen.order == ()
    assert explaining.same(seen, plain, seen.promised.state)


def test_what_rounding_may_do_has_to_come_on_several_courses() -> None:
    drawn = course(1, "TinyAutoEncoder")  # a steady one
    way = {n: v - drawn.state[n] for n, v in drawn.promised.state.items()}
    for share, differs in ((0.02, [False, False, True]), (0.5, [True] * 3)):
        left = {n: v + share * way[n] for n, v in drawn.promised.state.items()}
        trial = Trial(drawn, left, None, True)
        assert not promised(trial)
        assert [not_by_rounding(trial, times) for times in range(3)] == differs


def test_losses_may_be_rounded_but_not_so_far_that_they_are_none() -> None:
    right = [0.0912345, 0.0812345, 0.0762345]
    for decimals in (4, 5, 6):
        check_series([round(v, decimals) for v in right], [right], "Losses")
    late = [*right[1:], 0.0701]
    for wrong in (
        [round(v, 3) for v in right],
        [round(v, 4) for v in late],
        [math.inf] * 3,
        [math.nan] * 3,
    ):
        with pytest.raises(Wrong):
            check_series(wrong, [right], "Losses")
    small = [v / 1000 for v in right]
    with pytest.raises(Wrong):
        check_series([round(v, 4) for v in small], [small], "Losses")


def recipe_id(recipe: Recipe) -> str:
    return "+".join(f"{n}-{getattr(recipe, n)}" for n in recipe.deviations()) or "promise"


RECIPES = [
    Recipe(),
    Recipe(optimiser="SGD"),
    Recipe(optimiser="AdamW"),
    Recipe(optimiser="Adam with weight_decay=1e-5"),
    Recipe(optimiser="RMSprop"),
    Recipe(rate=0.5),
    Recipe(rate=1.1),
    Recipe(criterion="sum of squares"),
    Recipe(criterion="absolute error"),
    Recipe(criterion="binary cross-entropy"),
    Recipe(target="zeros"),
    Recipe(frozen="encoder"),
    Recipe(renewed="epoch"),
    Recipe(mode="eval"),
    Recipe(clears="never"),
    Recipe(clears="epoch"),
    Recipe(steps="epoch"),
    Recipe(steps="delayed"),
    Recipe(batches="first"),
    Recipe(batches="all but the last"),
    Recipe(epochs="one more"),
    Recipe(epochs="10"),
    Recipe(target="mean image"),
    Recipe(rows="the first half"),
    Recipe(rows="all but the first row"),
    Recipe(optimiser="SGD", clears="never"),
    Recipe(mode="eval", epochs="one more"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: recipe_id(r))
def test_a_recipe_is_told_by_the_weights_that_it_leaves(recipe: Recipe) -> None:
    draws = Draws(3, "recipes")
    courses = [
        replay.draw_course(draws, "TinyAutoEncoder", Interface(), *shape, 2e-3)
        for shape in ((7, 7, 1), (30, 8, 1), (13, 7, 3))
    ]
    found = explaining.explain(courses, [replay.train(c, recipe).state for c in courses])
    assert found is not None
    assert found.deviations() == recipe.deviations()
    if recipe.deviations() != ["rate"]:
        assert found == recipe


def test_passes_that_end_early_are_told_by_the_weights_that_they_leave() -> None:
    drawn = course(6, "TinyAutoEncoder")
    ended = (3, 1, 2)
    weights = replay.train(drawn, Recipe(), cuts=ended).state
    noted = replace(drawn, notes=(Note(True, True, torch.zeros(1)),) * (1 + sum(ended)))
    assert explaining.cuts(noted, weights) == ended
    assert explaining.cuts(noted, drawn.promised.state) is None


def test_weights_that_nothing_explains_stay_unexplained() -> None:
    draws = Draws(4, "recipes")
    drawn = replay.draw_course(draws, "TinyAutoEncoder", Interface(), 7, 7, 1, 2e-3)
    state = {k: v + 0.1 if v.is_floating_point() else v for k, v in drawn.state.items()}
    assert explaining.explain([drawn], [state]) is None


def test_changing_rates_and_modes_are_told_by_what_is_noted_and_end_as_seen() -> None:
    drawn = course(5, "TinyAutoEncoder")
    for rates, modes, told in (([1.0, 0.5, 0.1], [True], "decay"), ([1.0], [True, False], "mode")):
        model = drawn.model()
        optimiser = torch.optim.Adam(model.parameters(), lr=drawn.rate)
        for step, x in enumerate(drawn.batches * drawn.epochs):
            model.train(modes[step % len(modes)])
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(model(x), x).backward()
            optimiser.param_groups[0]["lr"] = drawn.rate * rates[step % len(rates)]
            optimiser.step()
        state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        end = standins.sample(state["decoder.0.weight"]).double()
        notes = [*notes_of(model.standin_noted), Note(True, True, end)]
        seen = replace(drawn, notes=tuple(notes))
        assert explaining.same(seen, state, replay.train(seen, _noted(told)).state)
        others = {k: v + 0.1 if k == "encoder.1.weight" else v for k, v in state.items()}
        assert not explaining.same(seen, others, replay.train(seen, _noted(told)).state)
        assert not explaining.same(seen, state, seen.promised.state)


CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "drawn from its pixels": torch.bernoulli,
    "with noise": lambda x: x + torch.randn_like(x),
    "with dark pixels left out": lambda x: x * (x > 0.3),
}


@pytest.mark.parametrize("kind", ["TinyAutoEncoder", "TinyVariational"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_told_by_what_is_noted_of_them(change: str, kind: str) -> None:
    torch.manual_seed(7)
    drawn, unlike = course(7, kind), course(8, kind)
    model = drawn.model()
    standins.note_images(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=drawn.rate)
    for x in drawn.batches * drawn.epochs:
        x = CHANGES[change](x)
        found = model(x)
        by_itself = kind == "TinyAutoEncoder"
        loss = torch.nn.functional.mse_loss(found, x) if by_itself else model.loss(x, found)[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    seen = replace(drawn, given=tuple((x, target) for x, target in model.standin_given))
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    told = Recipe(inputs=recipes.NOTED, target=recipes.NOTED)
    assert explaining.explain([drawn], [state]) is None
    assert explaining.explain_by_images([seen], [state]) == told
    # of other images, of one batch for all, or without the weights that follow, it says nothing
    for others in (
        seen.given[::-1],
        seen.given[:1] * len(seen.given),
        tuple((x, x) for x in unlike.batches * unlike.epochs),
    ):
        assert explaining.explain_by_images([replace(seen, given=others)], [state]) is None
    assert explaining.explain_by_images([seen], [unlike.state]) is None


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_steps_down_the_gradient_are_told_from_another_loss(seed: int) -> None:
    draws = Draws(seed, "first step")
    first = replay.draw_course(draws, "TinyAutoEncoder", Interface(), 7, 7, 1, 2e-3)

    def left(optimiser: torch.optim.Optimizer, model: torch.nn.Module, power: float) -> State:
        x = first.batches[0]
        (model(x) - x).abs().pow(power).mean().backward()
        optimiser.step()
        return {k: v.detach().clone() for k, v in model.state_dict().items()}

    model = first.model()
    state = left(torch.optim.SGD(model.parameters(), 0.01), model, 2.0)
    assert first_step.goes_down_unlike_adam(first, state)
    assert not first_step.has_rates_of_its_own(first, state)
    model = first.model()
    groups = [{"params": [p], "lr": first.rate * (1 + p.dim())} for p in model.parameters()]
    state = left(torch.optim.Adam(groups), model, 2.0)
    assert first_step.has_rates_of_its_own(first, state)
    model = first.model()
    state = left(torch.optim.Adam(model.parameters(), first.rate), model, 1.0)
    assert not first_step.has_rates_of_its_own(first, state)
    assert not first_step.goes_down_unlike_adam(first, state)
    assert not first_step.goes_down_unlike_adam(first, first.promised.state)
    model = first.model()
    (model(first.batches[0]) - 1 + first.batches[0]).square().mean().backward()
    torch.optim.SGD(model.parameters(), 0.01).step()
    assert not first_step.goes_down_unlike_adam(first, model.state_dict())


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_first_step_tells_by_what_gradients_were_scaled(seed: int) -> None:
    draws = Draws(seed, "first step")
    first = replay.draw_course(draws, "TinyVariational", Interface(), 7, 7, 1, 2e-3)
    x = first.batches[0]
    for cut in (True, False):
        model = first.model()
        optimiser = torch.optim.Adam(model.parameters(), lr=first.rate)
        total, _ = model.loss(x, model(x))
        (total if cut else total.log()).backward()
        if cut:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimiser.step()
        factor = first_step.scale_factor(first, model.state_dict())
        expected = 1e-3 / first_step.gradient_norm(first) if cut else 1 / total.item()
        assert factor == pytest.approx(expected, rel=5e-3)


@given(SEEDS)
@settings(max_examples=20)
def test_noise_does_not_go_with_what_the_host_drew(seed: int) -> None:
    draws = Draws(seed, "code")
    drawn, measured = draws.uniform(9000, low=-2, high=1.2), draws.normal(9000).square()
    assert not noise.goes_with(measured, drawn)
    assert noise.goes_with((1 + 0.1 / drawn.exp()).square() * measured, drawn)
    assert not noise.goes_with(torch.ones(9000), drawn)


ACCUMULATED = {"sum": ("after a step", 1.0), "mean": ("after a step of means", 0.5)}


@pytest.mark.parametrize("share", ACCUMULATED)
def test_an_optimiser_and_its_steps_are_told_by_claims_that_give_the_weights(share: str) -> None:
    clears, factor = ACCUMULATED[share]
    draws, seen = Draws(6, "recipes"), []
    for shape in ((7, 7, 1), (22, 6, 1), (9, 5, 3)):
        drawn = replay.draw_course(draws, "TinyAutoEncoder", Interface(), *shape, 2e-3)
        model = drawn.model()
        ends = standins.note_steps(model)
        optimiser = torch.optim.SGD(model.parameters(), drawn.rate, 0.7, nesterov=True)
        for step, x in enumerate(drawn.batches * drawn.epochs):
            (factor * torch.nn.functional.mse_loss(model(x), x)).backward()
            if step % 2:
                optimiser.step()
                optimiser.zero_grad()
        ends.remove()
        end = standins.sample(model.decoder[0].weight.detach()).double()
        notes = [*notes_of(model.standin_noted), Note(True, True, end)]
        told = tuple(_as_claimed(*row) for row in model.standin_stepped)
        state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        seen.append((replace(drawn, notes=tuple(notes), told=told), state))
    recipe = Recipe(optimiser=recipes.TOLD, clears=clears)
    for course, state in seen[1:]:
        assert explaining.same(course, state, replay.train(course, recipe).state)
        assert not explaining.same(course, state, replay.train(course, Recipe(clears=clears)).state)
        other = replace(course, told=tuple(replace(t, kind="Adam") for t in course.told))
        with pytest.raises((TypeError, ValueError)):
            replay.train(other, recipe)


def _as_claimed(step: int, kind: str, options: dict[str, float]) -> Told:
    return Told(step, kind, {k: options[k] for k in recipes.OPTIONS if k in options})


def _noted(aspect: str) -> Recipe:
    return Recipe(decay=recipes.NOTED) if aspect == "decay" else Recipe(mode=recipes.NOTED)
