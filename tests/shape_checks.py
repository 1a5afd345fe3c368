"""The checks of annotated types and shapes, made cheap: they took a third of all tests' time as jaxtyping makes them.

jaxtyping checks arguments and result by two functions that it generates, and binds the arguments of every call to name
them in a message. Here beartype alone checks a function, in the same scope of named axes.
"""

import dataclasses
import functools
import inspect
import types
from typing import Any, get_type_hints

import jaxtyping
import torch
from beartype import BeartypeConf, beartype

_with_messages = jaxtyping.jaxtyped
_checks = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def install():
    """Let jaxtyping's import hook use these checks for all functions that it will decorate."""
    jaxtyping.jaxtyped = _decorator


def _decorator(*, typechecker):
    return functools.partial(_checked, typechecker)


def _checked(typechecker, function):
    if dataclasses.is_dataclass(function):
        # Unless it is that of a class it inherits from, which is checked.
        if not hasattr(function.__init__, "__wrapped__"):
            function.__init__ = _checked(typechecker, function.__init__)
        return function
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return _with_messages(function, typechecker=typechecker)
    inner = None

    @functools.wraps(function)
    def wrapped(*arguments, **named):
        nonlocal inner
        # The sizes of a graph that is recorded are symbols, which are no whole numbers yet.
        if jaxtyping.config.jaxtyping_disable or torch.compiler.is_exporting():
            return function(*arguments, **named)
        # Made at the first call, since most functions of the package are not called by most processes.
        if inner is None:
            inner = _checks(_with_known_types(function))
        with _with_messages("context"):
            return inner(*arguments, **named)

    return wrapped


def _with_known_types(function):
    """A copy of a function whose annotations are types; those that only type checkers import are Any."""
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    functools.update_wrapper(copy, function)
    del copy.__wrapped__
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = _known_types(function)
    # Of a dataclass: what stands for a default that is made anew each time.
    for name, default in (function.__kwdefaults__ or {}).items():
        if default is dataclasses._HAS_DEFAULT_FACTORY:
            copy.__annotations__[name] = copy.__annotations__[name] | type(default)
    return copy


def _known_types(function):
    known = {}
    for name, annotation in function.__annotations__.items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            known |= get_type_hints(alone, function.__globals__, include_extras=True)
        except NameError:
            known[name] = Any
    return known
