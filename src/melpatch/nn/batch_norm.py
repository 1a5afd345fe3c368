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
        plain = padding is None and not _several() and x.numel() > self.num_features
        if self.training and not plain:
            return self._together(x, padding)
        x = _zeroed(x, padding)
        # Images are flattened to rows, since torch 2.13 on CPUs computes wrong gradients for images
        # of one mel or frame.
        normalised: Tensor = super().forward(x.flatten(2))
        return _zeroed(normalised.view(x.shape), padding)

    def _together(self, x: Images, padding: Padding) -> Images:
        """Normalise with the statistics of all processes, and update the running statistics."""
        normalised, mean, unbiased = _Together.apply(  # type: ignore[no-untyped-call]
            x, padding, self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        together: Tensor = normalised
        return together


@contextmanager
def unnoted(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of a module's norms unchanged by the body."""
    norms = [norm for norm in module.modules() if isinstance(norm, MaskedBatchNorm)]
    saved = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    yield
    for buffer, before in saved:
        buffer.data.copy_(before)


class _Together(torch.autograd.Function):
    """Batch normalisation over the valid values of all processes, with 0 at padding.

    Written out, since the images are large: autograd would make a new one of each operation.
    """

    @staticmethod
    def forward(
        context: Any,
        x: Images,
        padding: Padding,
        weight: Float[Tensor, " channel"] | None,
        bias: Float[Tensor, " channel"] | None,
        eps: float,
    ) -> tuple[Images, Float[Tensor, " channel"], Float[Tensor, " channel"]]:
        """Return the normalised input, the mean, and the unbiased variance."""
        centred = _own_copy(x, padding)
        # One reduction carries the sums of all channels and, last, the number of valid values of a
        # channel.
        values = _zeroed(torch.ones_like(centred[:, :1]), padding).sum(dim=(0, 2, 3))
        total = _over_processes(torch.cat([centred.sum(dim=(0, 2, 3)), values]))
        number = total[-1].clamp(min=1)
        mean = total[:-1] / number
        kept = None if padding is None else (~padding).to(centred.dtype)
        centred -= mean[:, None, None]
        _multiply(centred, kept)
        # A new image costs more than any arithmetic on it, so the squares lie where the result will.
        normalised = centred.square()
        squares = _over_processes(normalised.sum(dim=(0, 2, 3)))
        scale = (squares / number + eps).rsqrt()
        gain = scale if weight is None else weight * scale
        if bias is None:
            torch.mul(centred, gain[:, None, None], out=normalised)
        else:
            torch.addcmul(bias[:, None, None], centred, gain[:, None, None], out=normalised)
            _multiply(normalised, kept)
        context.save_for_backward(centred, scale, gain, number, padding, kept)
        # As in torch: the running variance is the unbiased one, the batch is normalised with the
        # biased one.
        unbiased = squares / (number - 1).clamp(min=1)
        context.mark_non_differentiable(mean, unbiased)
        return normalised.to(x.dtype), mean, unbiased

    @staticmethod
    def backward(context: Any, gradient: Images, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the input and of gain and bias.

        With n valid values in all processes and z the normalised ones before gain and bias::

            d loss / d x = gain / std * (g - sum(g) / n - z * sum(g z) / n)
        """
        centred, scale, gain, number, padding, kept = context.saved_tensors
        own = _own_copy(gradient, padding)
        # Torch's gradients of gain and bias, if mean and variance were given.
        given = (torch.zeros_like(scale), scale.square().reciprocal())
        wanted = [False, True, True]
        _, of_gain, of_bias = torch.ops.aten.native_batch_norm_backward(
            own, centred, torch.ones_like(scale), *given, None, None, False, 0.0, wanted
        )
        mean_bias, mean_gain = (_over_processes(torch.stack([of_bias, of_gain])) / number).unbind()
        own -= mean_bias[:, None, None]
        own.addcmul_(centred, (mean_gain * scale)[:, None, None], value=-1)
        own *= gain[:, None, None]
        _multiply(own, kept)
        of_x = own.to(gradient.dtype)
        if not context.needs_input_grad[2]:
            return of_x, None, None, None, None
        return of_x, None, of_gain, of_bias, None


def _restore_nonfinite(buffer: Tensor, before: Tensor) -> None:
    # Through .data, since autograd has no part in running statistics.
    buffer.data.copy_(torch.where(buffer.isfinite(), buffer, before))


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _over_processes(values: Float[Tensor, "*value"]) -> Float[Tensor, "*value"]:
    """Return the sum over all processes, in place."""
    if _several():
        torch.distributed.all_reduce(values)
    return values


def _own_copy(x: Images, padding: Padding) -> Images:
    """Return a copy of images in float32 at least, with 0 at padding."""
    copy = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    if padding is not None:
        copy.masked_fill_(padding, 0.0)
    return copy


def _multiply(x: Images, kept: Float[Tensor, "clip 1 1 frame"] | None) -> None:
    """Set finite images to 0 where they are not kept, a third of the cost of filling them."""
    if kept is not None:
        x *= kept


def _zeroed(x: Images, padding: Padding) -> Images:
    return x if padding is None else x.masked_fill(padding, 0.0)
