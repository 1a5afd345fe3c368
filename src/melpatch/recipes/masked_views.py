"""Masked views, for own data."""

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.objectives.masked_views import MaskedViews
from melpatch.training.config import RunConfig, TrainConfig


def masked_views(size: str) -> RunConfig:
    """Masked views for your own data: any length, two views of which 75 % is masked.

    Source: the objective's; front end, start of the weights and decoder are those of
    :func:`melpatch.recipes.maskspec.maskspec`. Batches mix all lengths: if lengths were alike, a
    clip would be compared with its own corpus only.
    """
    width = max(64, ViT.Config.of_size(size).embed_dim // 2)
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=MaskedViews.Config(
            decoder=MAEDecoder.Config(dim=width, depth=2, num_heads=width // 32)
        ),
        loader=LoaderConfig(batch_size=32, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )
