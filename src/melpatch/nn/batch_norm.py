"""Batch normalisation that padding has no part in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from jaxtyping import Bool, Float
from torch import Tensor, nn

Images = Float[Tensor, "clip channel mel frame"]
Padding = Bool[Tensor, "clip 1 1 frame"] | None


class MaskedBatchNorm(nn.BatchNorm1d):
    """Torch's batch normalisation, with the same parameters and buffers, over the valid frames alone.

    In training on several processes, mean and variance are those of all their clips together, however many each has,
    and so is the gradient: as torch's ``SyncBatchNorm``, but on processors too. Every process must then take part in
    every call.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167). *Differs* from torch where training sees one value per channel:
    that value becomes the bias, where torch refuses.

    Args:
        channels: channels of the input, each with its own mean and variance.
        affine: whether to learn a gain and a bias per channel.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__(channels, affine=affine)

    def forward(self, x: Images, valid: Bool[Tensor, "clip frame"] | None = None) -> Images:
        """Return the normalised input, in its precision, and 0 at padding; statistics are float32 at least.

        Args:
            x: the input; what it holds at padding means nothing.
            valid: False for padding; None, the fast way on one process, when there is none.
        """
        if not self.training:
            return self._normalised(x, valid)
        before = self.running_mean.clone(), self.running_var.clone()
        normalised = self._normalised(x, valid)
        # A step whose numbers overflow is skipped by the loop, and must not stay in what is used in its place.
        for now, kept in zip((self.running_mean, self.running_var), before, strict=True):
            now.data.copy_(
                torch.where(now.isfinite(), now, kept)
            )  # autograd needs not know: it has no part in them
        return normalised

    def _normalised(self, x: Images, valid: Bool[Tensor, "clip frame"] | None) -> Images:
        padding = None if valid is None else ~valid[:, None, None]
        x = _zeroed(x, padding)
        plain = padding is None and not _several() and x.numel() > self.num_features
        if self.training and not plain:
            return _zeroed(self._together(x, padding), padding)
        # Images as rows: of images one mel high or one frame long, torch 2.13 on processors gets gradients wrong.
        normalised: Tensor = super().forward(x.flatten(2))
        return _zeroed(normalised.view(x.shape), padding)

    def _together(self, x: Images, padding: Padding) -> Images:
        """Normalise with the statistics of the valid values of all processes, and note them for evaluation."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        places = _zeroed(torch.ones_like(wide[:, :1]), padding).sum(dim=(0, 2, 3))
        total = _over_processes(torch.cat([wide.sum(dim=(0, 2, 3)), places]))
        number = total[-1].detach().clamp(min=1)
        mean = total[:-1] / number
        centred = _zeroed(wide - mean[:, None, None], padding)
        squares = _over_processes(centred.square().sum(dim=(0, 2, 3)))
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(
                (squares / (number - 1).clamp(min=1)).to(self.running_var.dtype), self.momentum
            )
        scale = (squares / number + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale[:, None, None]).to(x.dtype)
        return (centred * (self.weight * scale)[:, None, None] + self.bias[:, None, None]).to(
            x.dtype
        )


@contextmanager
def unnoted(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of a module's norms as they are, whatever these are given in the body."""
    norms = [each for each in module.modules() if isinstance(each, MaskedBatchNorm)]
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    yield
    for buffer, before in kept:
        buffer.data.copy_(before)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(context, gradient)


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _over_processes(values: Float[Tensor, " value"]) -> Float[Tensor, " value"]:
    total: Tensor = _Sum.apply(values) if _several() else values  # type: ignore[no-untyped-call]
    return total


def _zeroed(x: Images, padding: Padding) -> Images:
    return x if padding is None else x.masked_fill(padding, 0.0)
