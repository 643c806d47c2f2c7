"""What the first step of a training tells where no recipe does: how weights moved, by gradients.

All of it is of the host's own gradients of the promised loss, and of the weights that were left.
"""

from __future__ import annotations

import torch

from autograder.recipes import Recipe
from autograder.replay import Course, State, loss_of_batch

EPSILON = 1e-8  # Adam's


def scale_factor(course: Course, seen: State) -> float:
    """The factor on the promised loss that would give the seen first step of Adam.

    Adam's first step is rate * g / (|g| + eps), which tells the size of g where g is near eps.
    """
    found = _gradients(course)
    steps = {n: (course.state[n] - seen.get(n, course.state[n])).double() for n in found}
    if any(steps[name].shape != gradient.shape for name, gradient in found.items()):
        return 1.0
    step = torch.cat([steps[name].flatten() for name in found]) / course.rate
    gradient = torch.cat([found[name].flatten() for name in found]).double()
    share = step / gradient.sign()
    told = (share > 0.02) & (share < 0.98) & (gradient.abs() > 0)
    if not bool(told.any()):
        return 1.0
    factors = EPSILON * share[told] / (1 - share[told]) / gradient[told].abs()
    return float(factors.median())


def goes_down_unlike_adam(course: Course, seen: State) -> bool:
    """Whether a first step went down the gradient of the promised loss, but not as far as Adam.

    Signs are compared where gradients are a hundredth of the weight's largest one, or more; sizes
    where Adam's would be the rate.
    """
    sizes, moved = [], []
    for name, gradient in _gradients(course).items():
        step = seen[name] - course.state[name]
        large = gradient.abs() > 0.01 * gradient.abs().max()
        if float((step * gradient > 0)[large].double().mean()) > 0.02:
            return False
        moved.append((step != 0)[large])
        step = step[large & (gradient.abs() > 100 * EPSILON)]
        sizes.append(float((step.abs() / course.rate).median()) if len(step) else 1.0)
    most = bool(torch.cat(moved).double().mean() > 0.5)
    return most and any(abs(size - 1) > 0.02 for size in sizes)


def has_rates_of_its_own(course: Course, seen: State) -> bool:
    """Whether every weight moved as promised, times a factor of its own."""
    for name in _gradients(course):
        step = (seen[name] - course.state[name]).double()
        expected = (course.promised.state[name] - course.state[name]).double()
        factor = float((step * expected).sum() / expected.square().sum().clamp(min=1e-30))
        if factor < 1e-3 or float((step - factor * expected).norm()) > 0.01 * float(step.norm()):
            return False
    return True


def steps_as_adam(course: Course, seen: State) -> bool:
    """Whether the weights moved as after a first step of Adam, down whatever gradient.

    Its size is the rate, for gradients far above eps; where there is none, as at pixels that are
    not compared, nothing moves.
    """
    step = (seen["decoder.0.weight"] - course.state["decoder.0.weight"]).abs() / course.rate
    moved = step[step > 0]
    like_adam = (moved - 1).abs() < 0.02
    return len(moved) > 0.1 * step.numel() and bool(like_adam.double().mean() > 0.9)


def gradient_norm(course: Course) -> float:
    """The Euclidean norm of all gradients of the promised loss at the first step."""
    return float(torch.cat([g.flatten() for g in _gradients(course).values()]).norm())


def _gradients(course: Course) -> State:
    """The gradients of the promised loss at the first step, by weight."""
    model = course.model()
    losses: dict[str, list[float]] = {"total": [], "promised": [], "rec_loss": [], "kl_loss": []}
    x = course.batches[0]
    loss_of_batch(course, model, x, x, Recipe(), losses).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
