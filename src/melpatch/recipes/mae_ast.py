"""MAE-AST: as published (patches and frames), and for own data."""

from melpatch.audio import front_ends
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking
from melpatch.objectives.mae_ast import MAEAST
from melpatch.training.config import RunConfig, TrainConfig


def mae_ast(size: str) -> RunConfig:
    """MAE-AST for your own data: any length, pre-norm, fixed statistics, randomly masked patches.

    Source: loss, ratio and decoder of the paper (arXiv 2203.16691), the rest as in
    :func:`melpatch.recipes.maskspec.maskspec`, for the same reasons.
    """
    return RunConfig(
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=MAEAST.Config(
            decoder=MAEDecoder.Config(depth=2, num_heads=ViT.Config.of_size(size).num_heads)
        ),
        loader=LoaderConfig(batch_size=48, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3 if size in ("nano", "mini") else 5e-4),
    )


def mae_ast_patch(size: str) -> RunConfig:
    """MAE-AST as published, patches of 16 x 16: 75 % masked in squares of side 3 to 5.

    Source: Baade et al. 2022 (arXiv 2203.16691), section 3, and the published code: post-norm,
    batch statistics, Adam with betas 0.9 and 0.98 (fairseq's, whose weight decay is AdamW's),
    linear warm-up and decay over 550,000 steps of about 33 clips of up to 15.6 s. *Differs*:
    padding instead of cropping a batch to its shortest clip; clips skip a branch (drop path, rising
    to 0.05), whereas there whole batches skip a layer; dropout before the first LayerNorm, and none
    inside the attention; the decoder starts as MAE's (there as BERT's), after a linear layer;
    Adam's epsilon is torch's; bfloat16 for float16.
    """
    return _published(size, patch=(16, 16), mask=Masking.Config(kind="cluster", sides=(3, 4, 5)))


def mae_ast_frame(size: str) -> RunConfig:
    """MAE-AST as published, frames of 128 mels x 2: 75 % masked at random.

    Source and *Differs*: as :func:`mae_ast_patch`.
    """
    return _published(size, patch=(128, 2), mask=Masking.Config(kind="random"))


def _published(size: str, patch: tuple[int, int], mask: Masking.Config) -> RunConfig:
    return RunConfig(
        front_end=front_ends.mae_ast(),
        encoder=ViT.Config.of_size(
            size,
            patch=patch,
            cls_tokens=0,
            positions="interleaved",
            norm="post",
            norm_eps=1e-5,
            dropout=0.1,
            drop_path=0.05,
            input_norm="batch",
        ),
        objective=MAEAST.Config(
            mask=mask,
            decoder=MAEDecoder.Config(
                depth=2,
                num_heads=ViT.Config.of_size(size).num_heads,
                positions="sequence",
                norm="post",
                norm_eps=1e-5,
                dropout=0.1,
            ),
        ),
        loader=LoaderConfig(batch_size=33, seconds=15.625),
        train=TrainConfig(
            steps=550_000,
            optimizer="adamw",
            lr=1e-4,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            decay_all=True,
            grad_clip=10.0,
            lr_schedule="linear",
            lr_warmup=32 / 550,
        ),
    )
