"""What notebooks ask for and this machine lacks: packages, and data from disk or network.

A promised function may read them for logs and validation. That costs nothing: packages answer
anything with nothing, MNIST is a handful of grey noise, and what else is made of files that are
not here is empty.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

_IMAGES = 64  # of a dataset that is not here


class Absent(types.ModuleType):
    """Stands in for a package that this machine lacks, so that loggers and bars cost nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(self)(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], list | tuple):  # a bar goes through it, a table answers
            return AbsentAround(args[0])
        if args and (callable(args[0]) or hasattr(args[0], "__iter__")):
            return self if isinstance(args[0], str | bytes | dict) else args[0]
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        if not self.__name__.endswith("Module"):  # Lightning's is torch's, and more
            return ()
        others = [base for base in bases if isinstance(base, type)]
        return () if any(issubclass(b, torch.nn.Module) for b in others) else (torch.nn.Module,)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __getitem__(self, key: Any) -> Any:
        return self

    def __lt__(self, other: object) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __lt__

    def __format__(self, how: str) -> str:
        return "?"

    def __float__(self) -> float:
        return 0.0

    def _nothing(self, *others: Any) -> Any:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _nothing
    __truediv__ = __rtruediv__ = __pow__ = __neg__ = __setitem__ = _nothing

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class AbsentAround(Absent):
    """What a package that is not here makes of a list: it has its items, and answers as well."""

    def __init__(self, held: Any) -> None:
        super().__init__("around")
        self.__dict__.update(__held__=held, shape=(len(held),))

    def to_numpy(self, *args: Any, **kwargs: Any) -> Any:
        """The items as an array, as pandas has it; matplotlib asks for that."""
        return sys.modules["numpy"].asarray(self.__dict__["__held__"])

    __array__ = to_numpy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__["__held__"])

    def __len__(self) -> int:
        return len(self.__dict__["__held__"])

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.__dict__["__held__"][key]
        except (TypeError, IndexError):
            return Absent("item")


class AbsentData(Absent):
    """Stands in for data that could not be read: nothing comes of it, and nobody divides by 0."""

    def __len__(self) -> int:
        return 1


def is_want_of_data(error: BaseException) -> bool:
    """Whether an error says that a file or a download is not to be had."""
    text = str(error).lower()
    return isinstance(error, OSError) or "download" in text or "dataset not found" in text


def imitate_mnist() -> None:
    """Let torchvision's MNIST, and its kin, repeat a few images, as many times as it has.

    A pass of a loader is one over the few.
    """
    module = sys.modules.get("torchvision.datasets.mnist")
    if module is None or module.MNIST.__init__ is _few_images:
        return
    item, sampler = module.MNIST.__getitem__, vars(DataLoader)["_index_sampler"].fget

    def repeated(self: Any, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"of {len(self)} images there is no number {index}")
        return item(self, int(index) % _IMAGES)

    def few(self: DataLoader[Any]) -> Any:
        whole = sampler(self)
        return _Few(whole) if _repeats(self.dataset) else whole

    module.MNIST.__init__ = _few_images
    module.MNIST.__len__ = lambda self: 60_000 if self.train else 10_000
    module.MNIST.__getitem__ = repeated
    # mypy takes a property for the value that it has in an object
    DataLoader._index_sampler = property(few)  # type: ignore[assignment]


class _Few:
    """The first indices of a sampler, one by one or in batches; it is as long as ever."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole)

    def __iter__(self) -> Iterator[Any]:
        left = _IMAGES
        for found in self.whole:
            yield found
            left -= len(found) if isinstance(found, list) else 1
            if left <= 0:
                return


def _repeats(data: Any) -> bool:
    """Whether a dataset is such a one, or a part of it."""
    while isinstance(data, Subset):
        data = data.dataset
    return is_imitated(data)


def is_imitated(value: Any) -> bool:
    """Whether a value is such a dataset: of another size than the notebook knows."""
    module = sys.modules.get("torchvision.datasets.mnist")
    return module is not None and isinstance(value, module.MNIST)


def _few_images(
    self: Any,
    root: Any = "",
    train: bool = True,
    transform: Any = None,
    target_transform: Any = None,
    download: bool = False,
) -> None:
    self.root, self.train = str(root), train
    self.transform, self.target_transform = transform, target_transform
    generator = torch.Generator().manual_seed(0)
    shape = (_IMAGES, 28, 28)
    self.data = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    self.targets = torch.arange(_IMAGES) % 10


_KEPT: list[Any] = []


def define_torchvision_operators() -> None:
    """A CUDA build of torchvision beside a CPU build of torch lacks two operators.

    Nothing in the homework calls them. The reference guards itself in solution/data.py, which a
    worker never sees.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
