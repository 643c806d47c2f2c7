"""Putting stand-ins where the notebook has its own classes, however it refers to them.

The student's `Encoder` and `Decoder` may be reached through a global, a default argument, a
table or a subclass; so the classes themselves are changed, and whatever is made of them from
then on is a stand-in. A session that does this does not use the student's networks.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import stages
import standins

KINDS: dict[str, type[nn.Module]] = {"Encoder": standins.Encoder, "Decoder": standins.Decoder}
_OWN = "_stand_in_arguments"
_METHODS = ("forward", "loss", "reconstruct")
_CONTAINER = ("__getitem__", "__iter__", "__len__")


def take_over(namespace: dict[str, Any]) -> None:
    """Make stand-ins of everything that the notebook will make of its Encoder and Decoder."""
    for name, kind in KINDS.items():
        student = namespace.get(name)
        if not (isinstance(student, type) and issubclass(student, nn.Module)):
            namespace[name] = kind
        elif student is not kind and "_takes_over" not in vars(student):
            _change(student, kind)


def _change(student: type[nn.Module], kind: Any) -> None:
    """Give a class the stand-in's constructor and forward."""
    kept: dict[str, Any] = {
        "__init__": student.__init__,
        "forward": getattr(student, "forward", None),
    }
    restored: list[bool] = []  # not empty while a network is made as the student would make it

    def construct(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        if restored:
            kept["__init__"](self, *args, **kwargs)
            return
        kind.__init__(self, _width(kept["__init__"], args, kwargs))
        self.__dict__[_OWN] = (args, kwargs)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if _OWN not in vars(self):
            return kept["forward"](self, *args, **kwargs)
        args, kwargs = _in_order(kept["forward"], args, kwargs)
        return kind.forward(self, *args, **kwargs)

    def other(self: nn.Module, name: str) -> Any:
        """What the stand-in lacks, from a network as the student made it."""
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if _OWN not in vars(self) or name.startswith("__"):
                raise
        return getattr(original(self), name)

    def original(self: nn.Module) -> nn.Module:
        """A network as the student made it, of the same arguments, where the stand-in is now."""
        device = _anchor(self).device
        made, where = vars(self).get("_original", (None, None))
        if made is None or where != device:
            made_with, named = vars(self)[_OWN]
            restored.append(True)
            try:
                made = student(*made_with, **named)
            finally:
                restored.pop()
            # in eval mode it takes single images, as the stand-in does
            self.__dict__["_original"] = made.to(device).eval(), device
            with contextlib.suppress(Exception):  # of a network that cannot be run
                stages.connect(made, self, _inputs(self, kind))
        found: nn.Module = made
        return found

    def layered(self: nn.Module, alone: bool) -> nn.Module:
        """The student's network where it is asked for alone, and not with a whole, as to train."""
        if alone and _OWN in vars(self):
            with contextlib.suppress(Exception):  # of a network that cannot be made
                return original(self)
        return self

    def named_modules(self: nn.Module, memo: Any = None, *args: Any, **kwargs: Any) -> Any:
        return nn.Module.named_modules(layered(self, memo is None), memo, *args, **kwargs)

    def state_dict(self: nn.Module, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        alone = destination is None and not args
        return nn.Module.state_dict(layered(self, alone), *args, destination=destination, **kwargs)

    def of_original(name: str) -> Callable[..., Any]:
        """A method of containers, such as `nn.Sequential` has, of the layers that are in it."""
        own = getattr(student, name)
        return lambda self, *args: own(original(self) if _OWN in vars(self) else self, *args)

    changed: dict[str, Callable[..., Any]] = {
        "__init__": construct,
        "forward": forward,
        "__call__": nn.Module.__call__,
        "__getattr__": other,
        "named_modules": named_modules,
        "state_dict": state_dict,
        **{name: of_original(name) for name in _CONTAINER if hasattr(student, name)},
    }
    for name, function in changed.items():
        setattr(student, name, function)
    setattr(student, "_takes_over", True)  # noqa: B010


def _inputs(made: Any, kind: Any) -> Tensor:
    """Three inputs of a stand-in of a kind."""
    shape = (1, 28, 28) if kind is standins.Encoder else (made.standin_width,)
    drawn = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(_anchor(made).device)


def _anchor(made: Any) -> Tensor:
    """The one weight of a stand-in."""
    weight: Tensor = made.standin_anchor
    return weight


def _width(constructor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of a constructor's first parameter in a call.

    Where the constructor takes other arguments than promised, that is its own fault, and a call as
    promised is right.
    """
    try:
        bound = inspect.signature(constructor).bind(None, *args, **kwargs)
    except TypeError:
        given = [*args, *kwargs.values()]
        if len(given) == 1 and set(kwargs) <= {"nz"}:
            return given[0]
        raise
    bound.apply_defaults()
    first = list(bound.arguments.values())[1:2]
    if first and isinstance(first[0], tuple):
        first = list(first[0][:1])
    return first[0] if first else 0


def _in_order(
    promised: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call by keywords in the order in which the student's own method has them.

    promised: that method, whose parameters may have any name.
    """
    if not kwargs:
        return args, kwargs
    try:
        bound = inspect.signature(promised).bind(None, *args, **kwargs)
    except (TypeError, ValueError):
        return args, kwargs
    return bound.args[1:], bound.kwargs


def of_width(namespace: dict[str, Any], name: str, width: int) -> nn.Module:
    """A stand-in of the notebook's class where it has one."""
    take_over(namespace)
    try:
        made: nn.Module = namespace[name](width)
    except TypeError:  # the constructor takes something else
        made = KINDS[name](width)
    return made if getattr(made, "standin_width", None) == width else KINDS[name](width)


def pose_as(made: nn.Module, student: object) -> None:
    """Let `isinstance(made, student)` be true, and give `made` the class's further methods."""
    if not isinstance(student, type):
        return

    own: list[Any] = []  # a model as the student made it, once it was needed

    def other(self: nn.Module, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            found = inspect.getattr_static(student, name, None)
            if name.startswith("__"):
                raise
            if found is not None:
                return found.__get__(self, student) if hasattr(found, "__get__") else found
            return _set_by_constructor(student, self, name, own)

    def by_own_names(name: str) -> Callable[..., Any]:
        """A method of the stand-in's that takes keywords as the student's does."""
        kind, promised = type(made), getattr(student, name, None)

        def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = _in_order(promised, args, kwargs)
            return getattr(kind, name)(self, *args, **kwargs)

        return method

    told = {
        **{name: by_own_names(name) for name in _METHODS if hasattr(made, name)},
        "__class__": property(lambda self: student),
        "__getattr__": other,
        "__deepcopy__": _copied,
        "__reduce_ex__": lambda self, protocol: (dict, (self.state_dict(),)),  # to save is enough
    }
    made.__class__ = type(type(made).__name__, (type(made),), told)


def _set_by_constructor(student: Any, made: Any, name: str, own: list[Any]) -> Any:
    """What else a model of the student's has: a name, a counter, a criterion.

    Weights are none of it: those of the stand-in are what is trained. own: keeps the model.
    """
    if not own:
        with contextlib.suppress(Exception), torch.random.fork_rng(devices=[]):
            own.append(student(made.nz))
    if own:
        _follow(own[0], made)
    value = getattr(own[0], name) if own else None
    has_weights = isinstance(value, nn.Module) and next(value.parameters(), None) is not None
    if not own or has_weights or isinstance(value, nn.Parameter):
        text = f"'{type(made).__name__}' object has no attribute '{name}'"
        raise AttributeError(text, name=name)
    return value


def _follow(network: Any, made: nn.Module) -> None:
    """Put what only shows attributes where the stand-in is."""
    weight = next(made.parameters(), None)
    if isinstance(network, nn.Module) and weight is not None:
        with contextlib.suppress(Exception):
            network.to(weight.device)


class Lent:
    """A network of the student's own, whose layers a stand-in shows to whoever asks by name.

    They are there to be looked at: a loss or a training that goes by them counts for nothing.
    """

    def __init__(self, student: Any, width: int) -> None:
        self.make: Callable[[], Any] = lambda: student(width)
        self.network: Any = None
        self.reached = False  # whether a gradient came to its weights
        self.start: list[torch.Tensor] = []

    def attribute(self, name: str, part: nn.Module) -> Any:
        """An attribute of the network, which is made when it is first asked for; part: who is."""
        if self.network is None:
            with torch.random.fork_rng(devices=[]):
                self.network = self.make()
            for weight in self.network.parameters():
                weight.register_hook(self._note)
                weight.grad = torch.zeros_like(weight)
                self.start.append(weight.detach().clone())
        _follow(self.network, part)
        return getattr(self.network, name)

    def _note(self, gradient: torch.Tensor) -> None:
        self.reached = True

    @property
    def is_used(self) -> bool:
        """Whether more was done with it than to look at it."""
        weights = [] if self.network is None else list(self.network.parameters())
        kept = all(w.requires_grad for w in weights) and len(weights) == len(self.start)
        return self.reached or not kept or not all(map(torch.equal, weights, self.start))


def lend(part: nn.Module, student: object, width: int) -> Lent | None:
    """Let a stand-in for a network have the names that the student's own has, if it can be made."""
    if not (isinstance(student, type) and issubclass(student, nn.Module)):
        return None
    lent = Lent(student, width)

    def other(self: nn.Module, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError as error:
            if name.startswith("__"):
                raise
            try:
                return lent.attribute(name, self)
            except Exception:
                raise error from None

    told = {
        "__getattr__": other,
        "__deepcopy__": _copied,
        "__reduce_ex__": lambda self, protocol: (dict, (self.state_dict(),)),
    }
    part.__class__ = type(type(part).__name__, (type(part),), told)
    return lent


def _copied(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    made: nn.Module = object.__new__(type(self))
    memo[id(self)] = made
    vars(made).update(copy.deepcopy(vars(self), memo))
    return made
