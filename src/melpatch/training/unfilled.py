"""Networks whose weights will be loaded: none is drawn, and none takes memory until then.

Their parameters are on torch's meta device, which has shapes and types but no values. A weight that
is used without having been loaded is therefore an error, never a number that nobody chose. Buffers
are computed as ever.

>>> with without_weights():
...     layer = nn.Linear(1000, 1000)
>>> layer.weight.is_meta
True
>>> load_into(layer, state)  # melpatch.checkpoint
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode


class WithoutDrawing(TorchFunctionMode):
    """Leaves tensors on the meta device as they are that would be filled with random numbers.

    There is nothing to fill, but torch imports its compiler to do so, for 2 s.
    """

    _drawing = (Tensor.normal_, Tensor.uniform_)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self._drawing and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_weights() -> Iterator[None]:
    """Put the parameters of modules that this thread builds in the body on the meta device.

    Two names of one parameter would become two parameters when they are loaded, and nothing may be
    computed from the values of parameters: neither holds for every module of other code.
    """
    thread = get_ident()

    def without_values(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
        # The hook is called for the modules of all threads.
        if get_ident() != thread or parameter.is_meta:
            return parameter
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(without_values)
    try:
        with WithoutDrawing():
            yield
    finally:
        hook.remove()
