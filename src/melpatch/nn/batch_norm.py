"""Batch normalisation that ignores padding."""

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
    """Torch's batch normalisation, with the same parameters and buffers, over valid frames only.

    In training on several processes, mean and variance are those of all their clips together,
    however many each has, and so is the gradient: as in torch's ``SyncBatchNorm``, but on CPUs too.
    Every process must then take part in every call.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167). *Differs* from torch if training sees one
    value per channel: that value becomes the bias, whereas torch refuses.

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
        """Return the normalised input, in its precision, with 0 at padding.

        Args:
            x: the input; its values at padding are ignored.
            valid: False for padding; None, which is faster on one process, if there is none.
        """
        if not self.training:
            return self._normalised(x, valid)
        mean_before = self.running_mean.clone()
        var_before = self.running_var.clone()
        normalised = self._normalised(x, valid)
        # The loop skips a step whose numbers overflow; it must leave no trace in the running
        # statistics either.
        _restore_nonfinite(self.running_mean, mean_before)
        _restore_nonfinite(self.running_var, var_before)
        return normalised

    def _normalised(self, x: Images, valid: Bool[Tensor, "clip frame"] | None) -> Images:
        padding = None if valid is None else ~valid[:, None, None]
        x = _zeroed(x, padding)
        plain = padding is None and not _several() and x.numel() > self.num_features
        if self.training and not plain:
            return _zeroed(self._together(x, padding), padding)
        # Images are flattened to rows, since torch 2.13 on CPUs computes wrong gradients for images
        # of one mel or frame.
        normalised: Tensor = super().forward(x.flatten(2))
        return _zeroed(normalised.view(x.shape), padding)

    def _together(self, x: Images, padding: Padding) -> Images:
        """Normalise with the statistics of all processes, and update the running statistics."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # One reduction carries the sums of all channels and, last, the number of valid values of a
        # channel.
        values = _zeroed(torch.ones_like(wide[:, :1]), padding).sum(dim=(0, 2, 3))
        total = _over_processes(torch.cat([wide.sum(dim=(0, 2, 3)), values]))
        number = total[-1].detach().clamp(min=1)
        mean = total[:-1] / number
        centred = _zeroed(wide - mean[:, None, None], padding)
        squares = _over_processes(centred.square().sum(dim=(0, 2, 3)))
        # As in torch: the running variance is the unbiased one, the batch is normalised with the
        # biased one.
        unbiased = squares / (number - 1).clamp(min=1)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = (squares / number + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale[:, None, None]).to(x.dtype)
        normalised = centred * (self.weight * scale)[:, None, None] + self.bias[:, None, None]
        return normalised.to(x.dtype)


@contextmanager
def unnoted(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of a module's norms unchanged by the body."""
    norms = [norm for norm in module.modules() if isinstance(norm, MaskedBatchNorm)]
    saved = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    yield
    for buffer, before in saved:
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


def _restore_nonfinite(buffer: Tensor, before: Tensor) -> None:
    # Through .data, since autograd has no part in running statistics.
    buffer.data.copy_(torch.where(buffer.isfinite(), buffer, before))


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _over_processes(values: Float[Tensor, " value"]) -> Float[Tensor, " value"]:
    total: Tensor = _Sum.apply(values) if _several() else values  # type: ignore[no-untyped-call]
    return total


def _zeroed(x: Images, padding: Padding) -> Images:
    return x if padding is None else x.masked_fill(padding, 0.0)
