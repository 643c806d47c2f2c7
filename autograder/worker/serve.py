"""What the worker does when the host asks: run definitions, open sessions, call, read, trace."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import inspect
import os
import random
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

import absent
import definitions
import execution
import folders
import impersonation
import reading
import rebinding
import selection
import standins
import statements
import tracing
import wire

GPU_MEMORY = 8 << 30  # bytes; the homework takes less than one
_PARTS = ("Encoder", "Decoder")
# stand-ins for models, and the class of the notebook that each stands in for
_MODELS = {
    "Pair": "AutoEncoder",
    "Composed": "AutoEncoder",
    "TinyAutoEncoder": "AutoEncoder",
    "TinyVariational": "VAE",
    "Substitute": "VAE",
}


def prepare(forks: bool) -> None:
    """Make torch and Jupyter as a notebook is to find them; once in a process that forks or not."""
    torch.set_num_threads(1)
    # no GPU of a Mac either; CUDA is hidden by the environment
    torch.backends.mps.is_available = functools.cache(lambda: False)
    postpone_dynamo()
    _imitate_jupyter()
    if forks and sys.platform == "linux":  # elsewhere, libraries may not bear a fork after use
        _warm_up()


def _warm_up() -> None:
    """Use the libraries under torch once: what they set up then, all that is forked finds done."""
    kept = torch.get_rng_state()
    down, up = torch.nn.Conv2d(1, 2, 3), torch.nn.ConvTranspose2d(2, 1, 3)
    network = torch.nn.Sequential(down, torch.nn.BatchNorm2d(2), torch.nn.LeakyReLU(), up)
    optimiser = torch.optim.Adam(network.parameters())
    with torch.no_grad():  # the engine of gradients is left to those that need it
        image = torch.rand(2, 1, 8, 8)
        torch.nn.functional.mse_loss(network(image).sigmoid(), image).item()
        torch.nn.functional.linear(image, image[0, 0])
        for weights in network.parameters():
            weights.grad = torch.zeros_like(weights)
        optimiser.step()
    torch.set_rng_state(kept)


class Worker:
    """Serves one notebook; see `run` for the order of things."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO, options: dict[str, Any]) -> None:
        self.requests, self.answers, self.options = requests, answers, options
        self.forks = bool(options.get("fork")) and hasattr(os, "fork")
        self.open_until_end = contextlib.ExitStack()
        self.sources: list[str] = []
        self.statements: list[statements.Statement] = []
        self.skip: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Definitions first, then one session after the other until the host hangs up."""
        request, _ = wire.read_frame(self.requests, header_limit=1 << 40)  # a whole notebook
        self.skip = {(cell, index) for cell, index in request["skip"]}
        notebook = definitions.read(request["cells"], self._progress)
        self.sources = notebook.sources
        self.statements = selection.needed(
            notebook, set(request["promised"]), set(request["trainers"])
        )
        # told before any code of the student's runs, which might say something else
        self._answer(
            {
                "read": {
                    "outlived": rebinding.outlived(notebook.statements, request["promised"]),
                    "broken": notebook.broken,
                    "variables": sorted({n for s in notebook.statements for n in s.binds})[:2000],
                }
            }
        )
        _limit(self.options)
        if self.options.get("alone"):
            folders.make_as_needed()
        gc.freeze()  # a collection in a session would look at all of torch, 0.1 s each time
        if request["gpu_is_cpu"]:
            import as_cpu

            as_cpu.begin(self.open_until_end)
        outcome = self._execute()
        self._end_others()
        self._answer(
            {
                "ready": {
                    "errors": outcome.errors,
                    "defined": [
                        n for n in request["promised"] if _is_defined(n, outcome.namespace)
                    ],
                    "fork": self.forks,
                }
            }
        )
        while True:
            try:
                request, _ = wire.read_frame(self.requests)
            except EOFError:
                return
            if request.get("op") != "end":  # of a process that had ended before it was told to
                self._session(request, outcome)

    def _execute(self) -> execution.Outcome:
        return execution.execute(self.statements, self.sources, self._progress)

    def _progress(self, cell: int, index: int) -> bool:
        self._answer({"progress": [cell, index]})
        return (cell, index) not in self.skip

    def _answer(self, header: dict[str, Any], tensors: list[torch.Tensor] | None = None) -> None:
        wire.write_frame(self.answers, header, tensors or [])

    def _session(self, request: dict[str, Any], outcome: execution.Outcome) -> None:
        if not self.forks:
            fresh = execution.execute(self.statements, self.sources, self._quiet)
            self._serve(fresh.namespace, request["seed"])
            gc.collect()
            self._answer({"ended": 0})
            return
        child = os.fork()
        if child == 0:
            try:
                self._serve(outcome.namespace, request["seed"])
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        self._end_others()
        self._answer({"ended": status})

    def _end_others(self) -> None:
        """End every process that student code left behind; in a box there are no others."""
        if self.options.get("alone"):
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)

    def _quiet(self, cell: int, index: int) -> bool:
        return (cell, index) not in self.skip

    def _serve(self, namespace: dict[str, Any], seed: int) -> None:
        """A session, and those that are to follow it in the same process."""
        variables = dict(namespace)
        while True:
            if self.options["device"] == "cpu":
                torch.default_generator.manual_seed(seed)  # the others are looked for at length
            else:
                torch.manual_seed(seed)
            session = Session(namespace)
            self._answer({"open": True})
            with session.open_until_end:
                while True:
                    request, tensors = wire.read_frame(self.requests)
                    if request["op"] in ("end", "renew"):
                        break
                    self._reply(session, request, tensors)
            if request["op"] == "end":
                return
            seed = request["seed"]
            namespace.clear()
            namespace.update(variables)

    def _reply(
        self, session: Session, request: dict[str, Any], tensors: list[torch.Tensor]
    ) -> None:
        sent: list[torch.Tensor] = []
        try:
            value = session.perform(request, tensors)
            header = {"value": wire.encode(value, sent, session.keep)}
        except BaseException as error:  # SystemExit from student code is an answer too
            sent = []
            header = {"error": execution.describe(error)}
        self._answer(header, sent)


class Session:
    """The objects of one check, and the few things that the host may do with them."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.objects: list[Any] = []
        self.lent: list[impersonation.Lent] = []  # to the model that is trained
        self.records: list[tuple[Any, int]] = []  # of stand-ins, and how long before a call
        self.open_until_end = contextlib.ExitStack()
        self.operations: dict[str, Callable[..., Any]] = {
            "global": self.read_global,
            "set_global": namespace.__setitem__,
            "quietly": self.quietly,
            "seed": self.seed,
            "call": lambda function, args, kwargs: function(*args, **kwargs),
            "keep_call": self.keep_call,
            "attribute": getattr,
            "set_attribute": setattr,
            "make": self.make,
            "take_over": lambda: impersonation.take_over(namespace),
            "parts": self.parts,
            "seen": lambda parts: [part.standin_seen for part in parts],
            "observe": self.observe,
            "lately": lambda: [seen[start:] for seen, start in self.records],
            "method": lambda owner, name, args: getattr(owner, name)(*args),
            "bare": self.bare,
            "leave": self.leave,
            "move": self.move,
            "leaves": lambda tensors: self.keep([t.clone().requires_grad_() for t in tensors]),
            "gradient": self.gradient,
            "parameter_gradients": self.parameter_gradients,
            "trace": self.trace,
            "trainee": self.trainee,
            "outcome": self.outcome,
            "state": self.state,
            "load": self.load,
            "put": self.put,
            "without_dropout": self.without_dropout,
            "mode": lambda module, training: module.train(training) and None,
            "iterate": self.iterate,
            "reads": self.reads,
            "signature": self.signature,
            "constants": self.constants,
        }

    def keep(self, value: Any) -> wire.Handle:
        """Hold an object for the host and number it."""
        self.objects.append(value)
        kind = type(value).__name__
        if isinstance(value, torch.nn.Module):
            kind = f"module {kind}"
        return wire.Handle(len(self.objects) - 1, str(kind)[:80])

    def perform(self, request: dict[str, Any], tensors: list[torch.Tensor]) -> Any:
        """Do one operation with decoded arguments, with gradients on, whatever came before."""
        torch.set_grad_enabled(True)
        decode = wire.Decoder(tensors, lambda handle: self.objects[handle.number])
        return self.operations[request["op"]](*decode(request["args"]))

    def seed(self, number: int) -> None:
        """Let all random numbers begin anew."""
        torch.manual_seed(number)
        random.seed(number)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed(number % 2**32)

    def without_dropout(self) -> None:
        """Let no dropout do anything until the session ends."""
        self.open_until_end.enter_context(tracing.without_dropout())

    def quietly(self, op: str, args: list[Any]) -> Any:
        """Another operation, where no gradients are recorded."""
        with torch.no_grad():
            return self.operations[op](*args)

    def read_global(self, name: str) -> Any:
        """A variable of the notebook."""
        if name not in self.namespace:
            raise NameError(f"name {name!r} is not defined", name=name)
        return self.namespace[name]

    def make(self, name: str, args: list[Any]) -> Any:
        """A stand-in of the given kind; one for a model is an instance of the notebook's class."""
        if name == "Pair":
            made = standins.Composed(
                *(impersonation.of_width(self.namespace, part, *args) for part in _PARTS)
            )
        else:
            made = standins.MAKERS[name](*args)
        if name in _MODELS:
            impersonation.pose_as(made, self.namespace.get(_MODELS[name]))
        return made

    def bare(self, kind: Any, nz: int, beta: float) -> torch.nn.Module:
        """An object of a model's class whose constructor fails, with what it was to be made of."""
        made: torch.nn.Module = kind.__new__(kind)
        torch.nn.Module.__init__(made)
        promised = {"nz": nz, "beta": beta}
        names = list(inspect.signature(kind.__init__).parameters)[1:3]
        for name, value in [*promised.items(), *zip(names, promised.values(), strict=False)]:
            setattr(made, name, value)
        return made

    def leave(self, module: torch.nn.Module) -> None:
        """Put a module where there is no memory, as if it and the notebook's `device` were CUDA."""
        import elsewhere

        self.open_until_end.enter_context(elsewhere.Undrawn())
        module.to("meta")
        for part in module.modules():
            for name, value in part.named_parameters(recurse=False):
                setattr(part, name, elsewhere.Away(value, value.requires_grad))
        if "device" in self.namespace:
            text = isinstance(self.namespace["device"], str)
            self.namespace["device"] = "cuda" if text else elsewhere.Away.device

    def move(self, module: torch.nn.Module, device: str) -> None:
        """Put a module, and the notebook's `device`, on a device; on a GPU within bounds."""
        if device == "cuda":
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, GPU_MEMORY / total))
            torch.backends.cudnn.allow_tf32 = False
        module.to(device)
        if isinstance(self.namespace.get("device"), torch.device | str):
            self.namespace["device"] = torch.device(device)

    def trainee(
        self,
        kind: str,
        arguments: list[Any],
        state: dict[str, torch.Tensor],
        batches: list[Any],
        images: bool,
    ) -> list[wire.Handle]:
        """A tiny model in train mode, which notes how it is trained, and a loader for it.

        arguments and state: of the model. batches: arguments of the loader. images: whether the
        model notes its images, too.
        """
        model = self.make(kind, arguments)
        model.load_state_dict(state)
        model.train()
        self.open_until_end.callback(standins.note_steps(model).remove)
        self.lent = []
        for name in _PARTS:
            wide = 2 * model.nz if kind == "TinyVariational" and name == "Encoder" else model.nz
            lent = impersonation.lend(getattr(model, name.lower()), self.namespace.get(name), wide)
            self.lent += [] if lent is None else [lent]
        if images:
            standins.note_images(model)
        return [self.keep(model), self.keep(self.make("loader", batches))]

    def outcome(self, model: Any, loader: Any) -> dict[str, Any]:
        """What a training left, and what the tiny model and its loader noted of it."""
        cleared = all(p.grad is None or not p.grad.any() for p in model.parameters())
        noted = ("noted", "stepped", "given", "drawn")
        found = {name: vars(model).get(f"standin_{name}") for name in noted}
        return {
            "state": self.state(model),
            "cleared": cleared,
            "passes": getattr(loader, "passes", None),
            "lent": any(lent.is_used for lent in self.lent),
            **found,
        }

    def parts(self, owner: Any, encoder: int | None, decoder: int) -> list[Any]:
        """A model's stand-ins, by their widths, and its beta; its own encoder for no width."""
        own = owner.encoder if encoder is None else self.part(owner, "encoder", encoder)
        beta = None
        with contextlib.suppress(Exception):  # it may be a property, and fail
            beta = owner.beta
        return [own, self.part(owner, "decoder", decoder), beta]

    def part(self, owner: Any, name: str, width: int) -> wire.Handle:
        """The stand-in that a model has as encoder or decoder; it is given one if it has none."""
        kind = name.capitalize()
        found: Any = getattr(owner, name, None)
        if found is None and isinstance(owner, torch.nn.Module):  # it may go by another name
            own = self.namespace.get(kind)
            found = next(
                (m for m in owner.children() if isinstance(own, type) and isinstance(m, own)), None
            )
        seen = getattr(found, "standin_seen", None)
        if not isinstance(seen, standins.Record) or found.standin_width != width:
            found = impersonation.of_width(self.namespace, kind, width)
            setattr(owner, name, found)
        return self.keep(found)

    def keep_call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call, and answer with both a handle on the result and the result."""
        result = function(*args, **kwargs)
        return self.keep(result), result

    def observe(
        self, owner: Any, method: str, args: list[Any], parts: list[Any]
    ) -> tuple[Any, ...]:
        """Call an object, or a method of it, and tell what stand-ins were given meanwhile.

        The answer: a handle on the result, the result, and for every part a handle on all that it
        was given, how much that was before, and what came to it.
        """
        self.records = []
        self.records = [(part.standin_seen, len(part.standin_seen)) for part in parts]
        result = (getattr(owner, method) if method else owner)(*args)
        told = [(self.keep(seen), start, seen[start:]) for seen, start in self.records]
        return self.keep(result), result, told

    def gradient(self, output: Any, inputs: list[torch.Tensor]) -> list[Any]:
        """The gradient of a scalar made of outputs; None where no graph leads."""
        if not isinstance(output, torch.Tensor) or not output.requires_grad:
            return [None for _ in inputs]
        return list(torch.autograd.grad(output.sum(), inputs, retain_graph=True, allow_unused=True))

    def parameter_gradients(
        self, module: torch.nn.Module, x: torch.Tensor, weights: torch.Tensor
    ) -> list[Any]:
        """The gradient of `(module(x) * weights).sum()` for what is trained, in its order."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        output = module(x)
        if not output.requires_grad:
            return [None for _ in parameters]
        found = torch.autograd.grad((output * weights).sum(), parameters, allow_unused=True)
        return list(found)

    def trace(self, module: Any, image: torch.Tensor, training: bool) -> dict[str, Any]:
        """Trace one call in the given mode; the weights are as they were before it."""
        module.train(training)
        found: dict[str, Any] = tracing.trace(module, image)
        if found["error"] is not None:
            found["error"] = execution.describe(found["error"])
        return found

    def state(self, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name."""
        return {k: v.detach().clone() for k, v in module.state_dict().items()}

    def load(self, module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
        """Set parameters and buffers by name."""
        module.load_state_dict(state)

    def put(self, module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
        """Set some parameters by name."""
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)

    def iterate(self, iterable: Any, limit: int) -> list[Any]:
        """One pass over an iterable, at most `limit` items, and as many tensors' rows."""
        items, rows = [], 0
        for item in iterable:
            items.append(item)
            parts = item if isinstance(item, list | tuple) else [item]
            rows += max(
                (len(p) for p in parts if isinstance(p, torch.Tensor) and p.dim()), default=0
            )
            if max(len(items), rows) >= limit:
                break
        return items

    def reads(self, target: Any) -> dict[str, Any]:
        """Variables of the notebook that a function or class reads; see `reading`."""
        found: dict[str, Any] = reading.variables(target, self.namespace)
        return found

    def constants(self, target: Any) -> list[int | float]:
        """Numbers written into a function or class; see `reading`."""
        found: list[int | float] = reading.constants(target, self.namespace)
        return found

    def signature(self, function: Any) -> list[str]:
        """The names of a function's parameters."""
        return list(inspect.signature(function).parameters)


def _is_defined(name: str, namespace: dict[str, Any]) -> bool:
    return name in namespace and not isinstance(namespace[name], absent.Absent)


class Late(types.ModuleType):
    """Stands in for a module until more is asked of it than it can say itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> types.ModuleType:
        for name in [name for name, module in sys.modules.items() if isinstance(module, Late)]:
            del sys.modules[name]
        vars(torch).pop("_dynamo", None)
        return importlib.import_module(self.__name__)


class LateDynamo(Late):
    """Stands in for `torch._dynamo`, which takes longer to import than all of grading.

    Every optimiser imports it only to say that it is not to be compiled.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # its other modules need the real one
            return self._real().__path__
        return super().__getattr__(name)

    def graph_break(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is compiled, so nothing breaks."""

    def disable(self, fn: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Nothing is compiled: the function itself, or a decorator that returns it."""
        return fn if fn is not None else lambda inner: inner


class LateDynamoUtils(Late):
    """Stands in for `torch._dynamo.utils`, of which torchvision imports one function."""

    def is_compile_supported(self, device_type: Any) -> bool:
        """Nothing is compiled."""
        return False


def postpone_dynamo() -> None:
    """Put off the import of `torch._dynamo` until something is really compiled."""
    if "torch._dynamo" not in sys.modules:
        stand_in = LateDynamo("torch._dynamo")
        sys.modules["torch._dynamo"] = stand_in
        sys.modules["torch._dynamo.utils"] = LateDynamoUtils("torch._dynamo.utils")
        torch._dynamo = stand_in


def _imitate_jupyter() -> None:
    """A plain progress bar where a notebook asks for widgets; figures that are never shown."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        import tqdm
    except ModuleNotFoundError:
        tqdm = absent.Absent("tqdm")
        sys.modules["tqdm"] = tqdm
    for name in ("tqdm.notebook", "tqdm.auto", "tqdm.autonotebook"):
        module = types.ModuleType(name)
        module.__dict__.update(tqdm=tqdm.tqdm, trange=tqdm.trange, tqdm_notebook=tqdm.tqdm)
        sys.modules[name] = module
        setattr(tqdm, name.split(".")[1], module)


def _limit(options: dict[str, Any]) -> None:
    """Bound memory, processes, file size and open files, where the system can."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    wanted = {
        # CUDA maps far more than it uses
        "RLIMIT_AS" if options["device"] == "cpu" else "RLIMIT_DATA": (
            _address_space() + options["memory"]
        ),
        "RLIMIT_FSIZE": options["file_size"],
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }
    if options.get("processes"):
        wanted["RLIMIT_NPROC"] = options["processes"]
    for name, value in wanted.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):  # macOS refuses some
            continue


def _address_space() -> int:
    """Bytes of address space in use, as far as the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 8 << 30
