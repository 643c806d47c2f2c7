"""What both training tasks share: run the student's loop on a tiny model, and explain it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from autograder import derivatives, explaining, likeness, loss_series, recipes, replay
from autograder.cells import calls_cuda, cells_behind, reads_device
from autograder.contract import ARGUMENTS
from autograder.draws import Draws
from autograder.interface import Interface
from autograder.outcomes import NotAttempted, Raised, Stopped, Unchecked, Wrong
from autograder.reads import numbers_read, numbers_written, sizes_written
from autograder.recipes import Recipe
from autograder.replay import Course, Note
from autograder.submission import DISTURBED, Session
from autograder.trial import (
    REPEATED,
    Trial,
    compares_with_itself,
    forward_passes,
    given_of,
    is_like,
    learned,
    not_by_rounding,
    notes_of,
    promised,
    told_of_steps,
    untouched,
)
from autograder.worker import standins
from autograder.worker.wire import Handle

_ARGUMENTS = ("beta", "rate", "epochs")
DROPPING = ("first of each pass", "all but the last", "all but the first", "whole ones")
MOVED = 0.1  # losses of one's own learn 0.25 and more of the promised one, weights at random 0.08
LEARNED = 0.35  # random inputs and targets learn less than the promised ones, and by chance
LONG = 300  # batches, of which a replay takes half a second
MANY_IMAGES = 480  # in batches of every size up to some hundreds, without a rest of one
REDRAWS = 8  # of courses on which rounding grows; at most one in twenty is of that kind


@dataclass
class Findings:
    """The trials of one function, and the recipe that explains them all, if one does.

    variable: of the notebook, that had to hold an argument, `rate`, `epochs` or `beta`, for that.
    cuts: after how many batches the passes of each trial ended, where some ended early.
    followed: further trials, with many steps, that go as the short ones promise; late: the one that
    does not; stop: the step after which it ended, if that is why.
    """

    trials: list[Trial]
    recipe: Recipe | None
    variable: tuple[str, str] | None = None
    cuts: list[tuple[int, ...]] = field(default_factory=list)
    followed: list[Trial] = field(default_factory=list)
    late: Trial | None = None
    stop: int | None = None
    own_size: int | None = None  # of the batches that it makes, where they are no loader's
    evaluates: bool = False
    unmoved: bool = False  # whether batches stay where they are, whatever the device
    faults: dict[str, likeness.Fault] | None = None  # of steps that nothing explains, if known

    @property
    def lent(self) -> bool:
        """Whether layers that the model has for the looks were part of a training."""
        late = [self.late] if self.late is not None else []
        return any(trial.lent for trial in [*self.trials, *self.followed, *late])

    @property
    def learned(self) -> float:
        """How far the promised loss went down, of the promised way, on average over the trials."""
        return sum(map(learned, self.trials)) / len(self.trials)

    @property
    def right(self) -> bool:
        """Whether the promised training explains the trials."""
        return self.recipe is not None and not self.recipe.deviations()

    def trained(self, trial: Trial) -> replay.Trained:
        """What the recipe gives for a trial, or the promise where none is known."""
        if self.recipe is None or self.right:
            return trial.course.promised
        for cut, one in zip(self.cuts, self.trials, strict=False):
            if one is trial:
                return replay.train(trial.course, Recipe(), cuts=cut)
        return replay.train(trial.course, self.recipe)

    def series(self, trial: Trial, *names: str) -> list[list[float]]:
        """What may be returned of a trial: its losses by these names, one a step or one a batch."""
        found = [self.trained(trial).losses[name] for name in names]
        if self.recipe is not None and self.recipe.batches == "each twice":
            found += [losses[start::2] for losses in found for start in (0, 1)]
        if self.recipe is not None and self.recipe.target == "mean image":
            apart = _apart(trial.course)  # every image with every other, by shapes that broadcast
            found += [[a + b for a, b in zip(f, apart, strict=False)] for f in found]
        return found

    def returned(self) -> Iterator[tuple[Trial, Callable[[str], list[float]], float]]:
        """What is to return its losses, with those after each step, and how exact they should be.

        Those after each step go by name, and are none where they are not known. Over many steps,
        rounding may grow.
        """
        for trial in self.trials:
            yield trial, trial.course.after if self.right else _unknown, loss_series.TOLERANCE
        for trial in self.followed:
            yield trial, _unknown, 10 * loss_series.TOLERANCE

    def follows(self, *arguments: str) -> str | None:
        """The variable of the notebook that stands where one of these arguments belongs."""
        found = self.variable
        return found[0] if found is not None and found[1] in arguments else None

    @property
    def interface(self) -> Interface:
        """What the stand-in gave."""
        return self.trials[0].course.interface


def _unknown(_: str) -> list[float]:
    return []


class Trainer:
    """A training function of the student's, by name, and the tiny model it is handed."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind

    def courses(self, draws: Draws, interface: Interface) -> list[Course]:
        """One step; one pass with a smaller last batch; three passes."""
        shapes = ((7, 7, 1), (3 * 8 + 6, 8, 1), (13, 7, 3))
        rate = 10 ** draws.real(-2.9, -2.3)  # above the usual 1e-3; long courses are below
        return [replay.draw_course(draws, self.kind, interface, *shape, rate) for shape in shapes]

    def _prepared(
        self,
        session: Session,
        course: Course,
        elsewhere: bool = False,
        twice: bool = False,
        images: bool = False,
    ) -> tuple[Handle, Handle]:
        """A model and a loader; elsewhere, twice: see `standins.Batches`.

        images: whether the model is to note what it is given.
        """
        arguments: tuple[Any, ...] = ()
        if self.kind == "TinyVariational":
            arguments = (3, course.beta, *course.interface.arguments)
        batches = [course.images, course.batch_size, elsewhere, twice]
        match session.ask("trainee", self.kind, arguments, course.state, batches, images):
            case [Handle() as model, Handle() as loader]:
                return model, loader
        raise Stopped(DISTURBED)

    def _train(
        self, session: Session, model: Handle, loader: Handle, course: Course, device: str
    ) -> Any:
        function = session.read(self.name)
        told = session.make("device", device) if course.interface.device_object else device
        return session.call(function, model, loader, course.epochs, course.rate, told)

    def trial(
        self, session: Session, course: Course, images: bool = False, twice: bool = False
    ) -> Trial:
        """Train by the student's function; raises `Unchecked`.

        images: note what it is given. twice: the images are the labels, too.
        """
        model, loader = self._prepared(session, course, twice=twice, images=images)
        with ThreadPoolExecutor(1) as beside:  # while the worker trains, so does the host
            promised = beside.submit(derivatives.train, course)
            returned = self._train(session, model, loader, course, "cpu")
        found = session.ask("outcome", model, loader)
        if not isinstance(found, dict):
            raise Stopped(DISTURBED)
        state, drawn, passes = map(found.get, ("state", "drawn", "passes"))
        if not isinstance(state, dict) or not is_like(state, course.state):
            raise Unchecked("After training, the model has other weights than before.")
        if explaining.same(course, state, promised.result().state):
            course.promise(promised.result())
        end = Note(True, True, standins.sample(state["decoder.0.weight"]).double())
        course = course.told_of(
            notes=(*notes_of(found.get("noted")), end),
            told=told_of_steps(found.get("stepped")),
            given=given_of(found.get("given"), course) if images else (),
        )
        numbers = [v for v in drawn if isinstance(v, float)] if isinstance(drawn, list) else []
        reseeded = len(set(numbers)) < len(numbers)
        kept = course.epochs > 1 and isinstance(passes, int) and passes == 1
        cleared, lent = found.get("cleared") is True, found.get("lent") is True
        return Trial(course, state, returned, cleared, reseeded, kept, lent)

    def find(self, session: Session, draws: Draws, interface: Interface) -> Findings:
        """Run the trials and look for what explains them; raises `Unchecked`."""
        courses = self.courses(draws, interface)
        try:
            trials = [self.trial(session, course) for course in courses]
            for times in range(REDRAWS):
                if all(promised(t) or not_by_rounding(t, times) for t in trials):
                    break
                courses = self.courses(draws, interface)
                trials = [self.trial(session, course) for course in courses]
        except (NotAttempted, Stopped):
            raise
        except Raised as error:
            if "'str' object has no attribute" in error.text and not interface.device_object:
                with contextlib.suppress(Unchecked):
                    return self.find(session, draws, replace(interface, device_object=True))
            if interface.numbers != "graph":  # the loop may be made for a loss that keeps its graph
                with contextlib.suppress(Unchecked):
                    return self.find(session, draws, replace(interface, numbers="graph"))
            found = self._without_single_batches(session, courses)
            found = found or self._with_whole_batches_alone(session, draws, interface)
            found = found or self._with_batches_of_its_own(session, draws, interface)
            if found is not None:
                return found
            raise self._explain_error(session, courses, error) from error
        if all(untouched(t) for t in trials):
            found = self._with_whole_batches_alone(session, draws, interface)
            found = found or self._with_batches_of_its_own(session, draws, interface)
            if found is not None:
                return found
            text = f"`{self.name}` does not train the model that it is handed."
            raise Unchecked(text, "uses-global-model")
        found = self._explain(session, trials)
        recipe = found.recipe
        if recipe is None and not explaining.goes_as_promised([t.course for t in trials]):
            self._look_for_other_data(session, trials[0])
            found = (
                self._with_other_images(session, courses)
                or self._with_batches_of_its_own(session, draws, interface)
                or found
            )
            recipe = found.recipe
        if recipe is None and found.learned >= MOVED:
            sizes = (likeness.COUNT, likeness.BATCH, 1, courses[0].rate)
            course = replay.draw_course(draws, self.kind, interface, *sizes)
            seed = draws.integer(0, 2**31)

            def run(course: Course) -> Trial:
                session.ask("seed", seed)  # random inputs are the same in all trainings
                return self.trial(session, course)

            with contextlib.suppress(Raised):
                found.faults = likeness.faults(run, course)
        if recipe is not None and compares_with_itself(recipe, trials):
            found.recipe = Recipe(target="own output")
        if recipe is not None and not recipe.deviations() and found.variable is None:
            found.late = self._look_late(session, draws, interface, found.followed)
            if found.late is not None and promised(found.late) and _ends_early(found.late):
                found.stop = len(found.late.course.notes) - 1
            elif found.late is not None and not promised(found.late):
                late = found.late.course
                if len(late.notes) <= late.epochs * len(late.batches):  # a rate may fall to nothing
                    found.stop = explaining.stops_after(late, found.late.state)
                found.evaluates = explaining.changes_mode(found.late.course, found.late.state)
            found.unmoved = self._leaves_batches(session, courses[0])
        return found

    def _without_single_batches(self, session: Session, courses: list[Course]) -> Findings | None:
        """What is known of a training that raises where a pass is one batch, which it drops."""
        try:
            trials = [self.trial(session, course) for course in courses[1:]]
        except Raised:
            return None
        states = [trial.state for trial in trials]
        for which in DROPPING:
            recipe = Recipe(batches=which)
            if explaining.fits([t.course for t in trials], states, recipe):
                return Findings(trials, recipe)
        return None

    def _with_whole_batches_alone(
        self, session: Session, draws: Draws, interface: Interface
    ) -> Findings | None:
        """What is known of a training that leaves out all batches but those of one size."""
        rate, recipe = 10 ** draws.real(-2.9, -2.3), Recipe(batches="whole ones")
        for size in sizes_written(session, self.name):
            trials = list[Trial]()
            try:
                for shape in ((2 * size, size, 1), (3 * size - 1, size, 2)):
                    course = replay.draw_course(draws, self.kind, interface, *shape, rate)
                    trials.append(self.trial(session, course))
                    if untouched(trials[-1]):
                        break
            except Raised:
                continue
            if untouched(trials[-1]):
                continue
            states = [trial.state for trial in trials]
            if explaining.fits([t.course for t in trials], states, recipe):
                return Findings(trials, recipe)
        return None

    def _with_batches_of_its_own(
        self, session: Session, draws: Draws, interface: Interface
    ) -> Findings | None:
        """What is known of a training that makes other batches of the loader's dataset.

        It is judged where all the images are one such batch, and the loader's.
        """
        rate, batch_size = 10 ** draws.real(-2.9, -2.3), 12
        draw = functools.partial(replay.draw_course, draws, self.kind, interface)
        try:
            trial = self.trial(session, draw(MANY_IMAGES, batch_size, 1, rate))
            # what was noted is a claim: as many steps are to lower the loss as far as promised ones
            rows = [note.rows for note in trial.course.notes[:-1]]
            size = _whole_batches(rows)
            if size is None or replay.order_noted(trial.course) is not None:
                return None
            trial.course = replace(trial.course, batch_size=size)
            if learned(trial) < LEARNED:
                return None
            count = size if sum(rows) < MANY_IMAGES else min(size, 13)  # fewer may be dropped
            courses = [draw(count, count, epochs, rate) for epochs in (1, 3)]
            trials = [self.trial(session, course) for course in courses]
        except (NotAttempted, Stopped):
            raise
        except Unchecked:
            return None
        found = self._explain(session, trials)
        if found.recipe is None or found.recipe.batches != "each":
            return None
        found.recipe = replace(found.recipe, batches=recipes.OWN)
        found.own_size = size if size != batch_size else None
        return found

    def _leaves_batches(self, session: Session, course: Course) -> bool:
        """Whether batches that are not on the device asked for reach the model.

        It is asked for the CPU, with batches that are elsewhere, and for a device without memory.
        Moving them to a GPU alone (`if device == "cuda": x = x.cuda()`) cannot be seen here.
        """
        cells = session.submission.cells
        behind, reads = cells_behind(self.name, cells), reads_device(self.name, cells)
        if any(map(calls_cuda, behind)) and reads:
            return False
        # whoever looks for CUDA may fall back to the CPU where it was not asked for
        falls_back = reads and any("cuda" in cell for cell in behind)
        for device in ("cpu",) if falls_back else ("cpu", "meta"):
            model, loader = self._prepared(session, course, elsewhere=device == "cpu")
            session.ask("move", model, device)
            mismatch = False
            try:
                self._train(session, model, loader, course, device)
            except Stopped:
                raise
            except Unchecked as error:  # on a device without memory there are no numbers
                if device == "meta" and "to_empty()" in error.message:
                    return True  # the model is moved to another device than was asked for
                mismatch = device == "cpu" and isinstance(error, Raised) and error.mismatch
            finally:
                session.ask("move", session.make(self.kind), "cpu")  # and the notebook's `device`
            seen = session.attribute(model, "standin_devices")
            if mismatch and seen:  # a batch may be made ready on the CPU, where loaders leave it
                return True
            if isinstance(seen, list) and seen and seen[0] != device:
                return True
        return False

    def _trains_on_other_data(self, session: Session, trial: Trial) -> bool:
        """Whether the model sees the same where the loader has other images, or none at all."""
        course, seen = trial.course, "encoder.2.running_mean"
        try:
            other = self.trial(session, replace(course, images=1 - course.images))
            if torch.equal(other.state[seen], trial.state[seen]):
                return explaining.moved(course, trial.state) and forward_passes(trial) > 0
            none = self.trial(session, replace(course, images=course.images[:0]))
        except Raised:
            return False
        return none.differentiated and explaining.moved(course, none.state)

    def _look_for_other_data(self, session: Session, trial: Trial) -> None:
        """Raise `Unchecked` where data of the notebook are trained on, not those of the loader."""
        reads = session.reads(self.name)
        names = [n for n, kind in reads.items() if kind in ("value", "tensor")]
        if names and self._trains_on_other_data(session, trial):
            text = f"`{self.name}` trains on other data than the loader that it is handed. It reads"
            slug = "stale-batch" if "tensor" in reads.values() else "hidden-global"
            raise Unchecked(f"{text} the notebook's `{names[0]}`.", slug)

    def _with_other_images(self, session: Session, courses: list[Course]) -> Findings | None:
        """Trials that what the model was given explains: each batch, but changed or noisy."""
        try:
            trials = [self.trial(session, course, images=True) for course in courses]
        except (NotAttempted, Stopped):
            raise
        except Unchecked:
            return None  # what is known already counts
        courses, states = [t.course for t in trials], [t.state for t in trials]
        recipe = explaining.explain_by_images(courses, states)
        return Findings(trials, recipe) if recipe is not None else None

    def _explain(self, session: Session, trials: list[Trial]) -> Findings:
        """The recipe of the trials, or of trials with a variable of the notebook set."""
        courses = [t.course for t in trials]
        recipe = explaining.explain(courses, [t.state for t in trials])
        if recipe is None or recipe.warm == recipes.NOTED:
            for name, what in itertools.product(numbers_read(session, self.name), _ARGUMENTS):
                again = self._with_variable(session, courses, name, what)
                if again and all(promised(t) for t in again):
                    other = self._with_variable(session, courses[-1:], name, what, larger=True)
                    if not other or not promised(other[0]):  # not a large limit
                        return Findings(again, Recipe(), (name, what))
            cuts = [explaining.cuts(t.course, t.state) for t in trials]
            if all(cut is not None for cut in cuts):
                ended = [cut for cut in cuts if cut is not None]
                return Findings(trials, Recipe(batches=recipes.CUT), cuts=ended)
        return Findings(trials, recipe)

    def _with_variable(
        self,
        session: Session,
        courses: list[Course],
        name: str,
        what: str,
        larger: bool = False,
    ) -> list[Trial]:
        """The trials, or the first that is not as promised, with a variable set to an argument.

        larger: to twice as much.
        """
        before, trials = session.read(name), list[Trial]()
        for course in courses:
            session.set_global(name, (1 + larger) * getattr(course, what))
            try:
                trials.append(self.trial(session, course))
            except (NotAttempted, Stopped):
                raise
            except Unchecked:
                return []
            finally:
                session.set_global(name, before)
            if not promised(trials[-1]):
                break
        return trials

    def _look_late(
        self, session: Session, draws: Draws, interface: Interface, followed: list[Trial]
    ) -> Trial | None:
        """A trial that does not go as it begins: of large gradients, small losses, many steps.

        Those that do are added to `followed`.
        """
        # what begins after as many batches, or passes, as are written in the code is to show
        written = sizes_written(session, self.name)
        batches = max([replay.MANY, *(n + 20 for n in written if n >= replay.MANY)])
        long = functools.partial(replay.draw_long, batches=batches)
        kinds: list[Callable[..., Course]] = [
            replay.draw_steep,
            replay.draw_dark,
            replay.draw_dull,
            replay.draw_still,
            long,
        ]
        numbers = numbers_written(session, self.name)
        passes = [math.ceil(n) for n in numbers if replay.PASSES <= n <= replay.FOLLOWED]
        many: list[Callable[..., Course]]
        many = [functools.partial(replay.draw_passes, passes=n + 2) for n in sorted(passes)[-1:]]
        for draw in [*kinds, *many]:
            course = functools.partial(draw, draws, self.kind, interface)
            try:
                found = self._deviating(session, course, draw is long, followed)
            except Raised:
                if draw not in many:
                    raise
                continue  # it is not asked for so many passes
            if found is not None:
                return found
        return None

    def _deviating(
        self,
        session: Session,
        draw: Callable[[], Course],
        by_moments: bool,
        followed: list[Trial],
    ) -> Trial | None:
        """A trial that deviates, on a course where rounding is not to blame.

        by_moments: a trial that keeps the second moments of Adam too long does so as well.
        """
        for times in range(REDRAWS):
            course = draw()
            if times >= REPEATED and len(course.batches) > LONG:
                break
            trial = self.trial(session, course)
            if _ends_early(trial):
                return trial
            kept = by_moments and explaining.keeps_second_moments(trial.course, trial.state)
            if promised(trial) and not kept:
                followed.append(trial)
                return None
            if not_by_rounding(trial, times):
                return trial
        return None

    def _explain_error(self, session: Session, courses: list[Course], error: Raised) -> Wrong:
        if error.misconception not in (None, "hidden-global", "uses-global-model"):
            return error
        if session.misreads_arguments(self.name):
            promised = ", ".join(ARGUMENTS[self.name])
            text = f"`{self.name}` should take {promised}, in this order."
            return Unchecked(text, "wrong-signature")
        reads = session.reads(self.name)
        loaders = [n for n, kind in reads.items() if kind in ("value", "undefined")]
        if "the graph a second time" in error.text or "by an inplace operation" in error.text:
            where = error.where or "your loop"
            text = f"In {where} the backward pass meets the graph of an earlier step:"
            text = f"{text} each step needs a loss of its own batch alone."
            return Unchecked(text, "gradients-accumulate")
        if self.kind == "TinyVariational" and "to unpack" in error.text:
            text = f"{error.message} The model that is handed in gives a dict with 'q' and 'rec',"
            return Unchecked(f"{text} and its `loss(x, outputs)` the total and a dict.")
        if "does not require grad" in error.text:
            text = f"{error.message} Something in the loop cuts the gradient."
            return Unchecked(text, "detached-gradient")
        if self._runs_with_images_for_labels(session, courses[0]):
            text = f"{error.message} The output is compared with the labels; compare it with"
            return Unchecked(f"{text} the images.", "wrong-target")
        if self._runs_with_globals(session, courses[0]):
            return Unchecked(
                f"{error.message} It needs variables of the notebook.", "hidden-global"
            )
        for size in sizes_written(session, self.name):
            if self._runs_with_batches_of(session, courses[0], size):
                text = f"`{self.name}` works for batches of {size} only."
                return Unchecked(text, "hard-coded-batch")
        if "module" in reads.values():
            text = f"{error.message} Use the model that the function is handed."
            return Unchecked(text, "uses-global-model")
        if "tensor" in reads.values():
            text = f"{error.message} Use the batches of the loader that the function is handed."
            return Unchecked(text, "stale-batch")
        if error.type == "NameError" and error.name in reads:
            text = f"{error.message} `{error.name}` is no argument of `{self.name}`."
            return Unchecked(text, "hidden-global")
        if loaders:
            text = f"{error.message} It reads the notebook's `{loaders[0]}`; use the arguments."
            return Unchecked(text, "hidden-global")
        return error

    def _runs_with_batches_of(self, session: Session, course: Course, size: int) -> bool:
        images = course.images[torch.arange(size) % len(course.images)]
        try:
            self.trial(session, replace(course, images=images, batch_size=size))
        except Raised:
            return False
        return True

    def _runs_with_images_for_labels(self, session: Session, course: Course) -> bool:
        try:
            return promised(self.trial(session, course, twice=True))
        except Raised:
            return False

    def _runs_with_globals(self, session: Session, course: Course) -> bool:
        for name in numbers_read(session, self.name):
            before = session.read(name)
            for value in (course.epochs, course.rate, course.batch_size):
                session.set_global(name, value)
                try:
                    self.trial(session, course)
                    return True
                except Raised:
                    continue
                finally:
                    session.set_global(name, before)
        return False

    def replaces(self, session: Session, findings: Findings, what: str) -> str | None:
        """The notebook's variable in the place of an argument, found by setting each in turn."""
        courses = [t.course for t in findings.trials]
        for name in numbers_read(session, self.name):
            again = self._with_variable(session, courses, name, what)
            if again and all(promised(t) for t in again):
                return name
        return None


def _apart(course: Course) -> list[float]:
    """How far the images of every batch are from their mean: the mean square, over all passes."""
    found = [float((x - x.mean(0)).square().mean()) for x in course.batches]
    return [found[i] for places in course.places for i in places]


def _ends_early(trial: Trial) -> bool:
    """Whether fewer gradients were noted than there are batches in all passes, though some were."""
    return 0 < len(trial.course.notes) - 1 < trial.course.epochs * len(trial.course.batches)


def _whole_batches(rows: list[float]) -> int | None:
    """The size of the largest batch, if together they have MANY_IMAGES, or lack a smaller batch.

    rows: of every batch, as was claimed.
    """
    if not rows or not all(1 <= n <= MANY_IMAGES for n in rows):
        return None
    size = int(max(rows))
    if size == 1 or MANY_IMAGES % size == 1:  # batch norm needs two examples
        return None
    return size if MANY_IMAGES - size < sum(rows) <= MANY_IMAGES else None
