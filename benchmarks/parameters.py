"""Parameters of a solve that ``SolveSettings`` does not have, set for the time of one solve.

Of the back ends: ``threads``, ``presolve`` (``on`` or ``off``), ``cuts`` and ``heuristics``
(``off``, ``low``, ``medium``, ``high``; HiGHS and SCIP through MathOpt), ``solver_seed``.
Of the fast path: any constant by its place, as ``fast.many_rows._PRICE_GAP``.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pulp
from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

from powercap_solver.compact import mathopt as compact_mathopt

BACKEND_NAMES = ("threads", "presolve", "cuts", "heuristics", "solver_seed")
_EMPHASIS = {
    "off": mathopt.Emphasis.OFF,
    "low": mathopt.Emphasis.LOW,
    "medium": mathopt.Emphasis.MEDIUM,
    "high": mathopt.Emphasis.HIGH,
    "on": mathopt.Emphasis.MEDIUM,
}


@contextlib.contextmanager
def applied(parameters: Mapping[str, Any]) -> Iterator[None]:
    """Have every solve inside use ``parameters``.

    Raises:
        SystemExit: naming a parameter that does not exist.
    """
    backend = {name: value for name, value in parameters.items() if name in BACKEND_NAMES}
    with contextlib.ExitStack() as stack:
        for name, value in parameters.items():
            if name not in BACKEND_NAMES:
                stack.enter_context(_constant(name, value))
        if backend:
            stack.enter_context(
                _replaced(compact_mathopt, "_parameters", _mathopt_parameters(backend))
            )
            stack.enter_context(_replaced(cp_model, "CpSolver", _cp_solver(backend)))
            stack.enter_context(_replaced(pulp, "COIN_CMD", _coin(backend)))
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _constant(place: str, value: Any) -> contextlib.AbstractContextManager[None]:
    module_name, _, name = place.rpartition(".")
    try:
        module = importlib.import_module(f"powercap_solver.{module_name}")
        getattr(module, name)
    except (ImportError, AttributeError) as error:
        accepted = ", ".join(BACKEND_NAMES)
        raise SystemExit(
            f"parameter {place!r} is not known; accepted: {accepted}, or a constant such as "
            "fast.many_rows._PRICE_GAP"
        ) from error
    return _replaced(module, name, value)


def _mathopt_parameters(backend: Mapping[str, Any]) -> Callable[..., mathopt.SolveParameters]:
    original = compact_mathopt._parameters

    def changed(method: Any, *rest: Any, **named: Any) -> mathopt.SolveParameters:
        parameters = original(method, *rest, **named)
        is_highs = getattr(method, "value", method) == "highs"
        if "threads" in backend:
            if is_highs:
                parameters.highs.int_options["threads"] = int(backend["threads"])
            else:
                parameters.threads = int(backend["threads"])
        for name in ("presolve", "cuts", "heuristics"):
            if name in backend:
                setattr(parameters, name, _EMPHASIS[str(backend[name])])
        if "solver_seed" in backend:
            parameters.random_seed = int(backend["solver_seed"])
        return parameters

    return changed


def _cp_solver(backend: Mapping[str, Any]) -> type[cp_model.CpSolver]:
    class Tuned(cp_model.CpSolver):
        def solve(self, *arguments: Any, **named: Any) -> Any:
            if "threads" in backend:
                self.parameters.num_workers = int(backend["threads"])
            if "presolve" in backend:
                self.parameters.cp_model_presolve = backend["presolve"] != "off"
            if "solver_seed" in backend:
                self.parameters.random_seed = int(backend["solver_seed"])
            return super().solve(*arguments, **named)

    return Tuned


def _coin(backend: Mapping[str, Any]) -> type[pulp.COIN_CMD]:
    class Tuned(pulp.COIN_CMD):  # type: ignore[misc]  # PuLP has no types
        def __init__(self, *arguments: Any, **named: Any) -> None:
            options = list(named.pop("options", None) or [])
            if "threads" in backend:
                named["threads"] = int(backend["threads"])
            if backend.get("presolve") == "off":
                options += ["presolve off", "preprocess off"]
            if "solver_seed" in backend:
                options.append(f"randomCbcSeed {int(backend['solver_seed'])}")
            super().__init__(*arguments, options=options, **named)

    return Tuned
