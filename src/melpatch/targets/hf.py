"""A folder that Hugging Face transformers opens as its own AST, without remote code.

The folder holds what ``ASTModel`` or ``ASTForAudioClassification`` and ``ASTFeatureExtractor``
read. Tokens and logits are those of the run, from samples on: the feature extractor computes
Kaldi's log-mel spectrogram and fills it with zeros before it is normalised, which is
``padding = "legacy"`` here.
"""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.checkpoint import copied, write_weights
from melpatch.encoders.vit import ViT
from melpatch.export.card import CARD, model_card
from melpatch.export.misfits import Misfit, refuse
from melpatch.export.source import Source
from melpatch.export.timm_names import head_misfits, head_state, timm_state, vit_misfits
from melpatch.targets.base import Target

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_EXTRACTOR = "preprocessor_config.json"
_MODEL = "audio_spectrogram_transformer."
_ADVICE = (
    "melpatch finetune --recipe ast_audioset (or another of AST) and melpatch pretrain ssast_patch "
    "make runs that fit; --to onnx takes every run"
)
# Longer patterns come before those that match their end.
_FROM_TIMM = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^dist_token$", "embeddings.distillation_token"),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
"""Patterns of parts of timm's names, each with what transformers writes to disk."""
# What the feature extractor computes, whatever its settings.
_FRONT_END = LogMel.Config(padding="legacy", target_frames=1024)
_FIXED = (
    *("sample_rate", "window_ms", "hop_ms", "low_hz", "top_hz", "n_fft", "unit_norm"),
    *("preemphasis", "preemphasis_over", "centred", "remove_offset", "window", "spectrum", "mel"),
    *("floor", "floor_added", "range_db", "padding"),
)


class HF(Target):
    """A folder for transformers: native AST, its feature extractor, and a model card.

    Key names are those of ``save_pretrained`` in versions 4 and 5.
    """

    files = frozenset({_WEIGHTS, _CONFIG, _EXTRACTOR, CARD})
    takes = frozenset({"licence"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the four files; see :meth:`Target.write`."""
        encoder = source.model.objective.export_encoder()
        refuse(source.folder, "AST of transformers", _misfits(source, encoder), _ADVICE)
        assert isinstance(encoder, ViT)
        path.mkdir(parents=True)
        write_weights(path / _WEIGHTS, copied(_state(source, encoder)))
        _write_json(path / _CONFIG, _config(source, encoder))
        _write_json(path / _EXTRACTOR, _extractor(source))
        notes = _notes(source, encoder)
        (path / CARD).write_text(model_card(source, _usage(source), notes), encoding="utf-8")
        return notes


def _misfits(source: Source, encoder: Any) -> list[Misfit]:
    """Return the settings that native AST and its feature extractor do not have."""
    misfits = [*_front_end_misfits(source.model.config.front_end), *vit_misfits(encoder)]
    if isinstance(encoder, ViT):
        misfits += _geometry_misfits(source, encoder)
    classifier = source.classifier
    if classifier is not None:
        if str(classifier.pooling) != "cls":
            allowed = "'cls', the mean of class and distillation token"
            misfits.append(Misfit("objective.pooling", classifier.config.pooling, allowed))
        misfits += head_misfits(classifier)
    return misfits


def _front_end_misfits(front_end: LogMel.Config) -> list[Misfit]:
    misfits = []
    for name in _FIXED:
        value = getattr(front_end, name)
        wanted = getattr(_FRONT_END, name)
        if value != wanted:
            misfits.append(Misfit(f"front_end.{name}", value, repr(wanted)))
    if front_end.target_frames is None:
        misfits.append(Misfit("front_end.target_frames", None, "the frames of every clip"))
    return misfits


def _geometry_misfits(source: Source, encoder: ViT) -> list[Misfit]:
    """Return what is wrong with the number of class tokens and the shape of the patches."""
    config = encoder.config
    grid = encoder.grid
    misfits = []
    if config.cls_tokens != 2:
        misfits.append(Misfit("encoder.cls_tokens", config.cls_tokens, "2"))
    if grid.patch[0] != grid.patch[1]:
        misfits.append(Misfit("encoder.patch", grid.patch, "a square"))
    # A convolution ignores what does not fill a patch.
    frames = source.model.config.front_end.target_frames
    sizes = [(grid.n_mels, 0)] if frames is None else [(grid.n_mels, 0), (frames, 1)]
    rest = any((size - grid.patch[axis]) % grid.stride[axis] for size, axis in sizes)
    if grid.partial == "pad" and rest:
        misfits.append(Misfit("encoder.partial", grid.partial, "'drop'"))
    return misfits


def _state(source: Source, encoder: ViT) -> dict[str, Tensor]:
    """Return all weights under the names that transformers writes to disk."""
    columns = encoder.grid.columns(_frames(source))
    classifier = source.classifier
    prefix = _MODEL if classifier is not None else ""
    state = {}
    for key, value in timm_state(encoder, columns).items():
        if ".attn.qkv." not in key:
            state[prefix + _renamed(key)] = value
            continue
        for part, own in zip(("query", "key", "value"), value.chunk(3), strict=True):
            name = key.replace(".attn.qkv.", f".attention.attention.{part}.")
            state[prefix + _renamed(name)] = own
    if classifier is not None:
        layers = {"0": "layernorm", "1": "dense"}
        for key, value in head_state(classifier).items():
            number, _, kind = key.partition(".")
            state[f"classifier.{layers[number]}.{kind}"] = value
    return state


def _renamed(key: str) -> str:
    for pattern, name in _FROM_TIMM:
        key = re.sub(pattern, name, key)
    return key


def _frames(source: Source) -> int:
    frames = source.model.config.front_end.target_frames
    assert frames is not None  # else it was refused
    return frames


def _config(source: Source, encoder: ViT) -> dict[str, Any]:
    """Return what ``ASTConfig`` is made from."""
    settings = encoder.config
    config: dict[str, Any] = {
        "architectures": ["ASTModel"],
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": settings.embed_dim,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.num_heads,
        "intermediate_size": int(settings.embed_dim * settings.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": encoder.transformer.norm.eps,
        "qkv_bias": True,
        "patch_size": encoder.grid.patch[0],
        "frequency_stride": encoder.grid.stride[0],
        "time_stride": encoder.grid.stride[1],
        "max_length": _frames(source),
        "num_mel_bins": encoder.grid.n_mels,
        "dtype": "float32",
    }
    classifier = source.classifier
    if classifier is None:
        return config
    labels = classifier.labels
    kind = "multi_label" if classifier.config.multi_label else "single_label"
    return config | {
        "architectures": ["ASTForAudioClassification"],
        "problem_type": f"{kind}_classification",
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def _extractor(source: Source) -> dict[str, Any]:
    """Return what ``ASTFeatureExtractor`` is made from, which divides by two deviations."""
    front_end = source.model.config.front_end
    return {
        "feature_extractor_type": "ASTFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": front_end.sample_rate,
        "num_mel_bins": front_end.n_mels,
        "max_length": front_end.target_frames,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": True,
        "mean": front_end.mean,
        "std": front_end.std * front_end.scale / 2,
        "return_attention_mask": False,
    }


def _notes(source: Source, encoder: ViT) -> list[str]:
    """Return in which points the folder does otherwise than the run."""
    model = source.model
    front_end = LogMel(model.config.front_end)
    longest = front_end.hop_seconds * _frames(source)
    notes = [
        f"recordings longer than {longest:.4g} s: transformers takes the beginning only, melpatch "
        "takes all of them in windows"
    ]
    classifier = source.classifier
    if classifier is None:
        return notes
    norm = next(part for part in classifier.head.modules() if isinstance(part, nn.LayerNorm))
    if norm.eps != encoder.transformer.norm.eps:
        notes.append(
            f"the head's LayerNorm has epsilon {encoder.transformer.norm.eps:g} instead of "
            f"{norm.eps:g}, since AST has one for all: logits move by about 1e-5 of their size"
        )
    calibration = model.calibration
    if calibration is not None and calibration.temperature != 1:
        notes.append(
            "melpatch predict divides these logits by a temperature of "
            f"{calibration.temperature:.4g}; transformers does not"
        )
    return notes


def _usage(source: Source) -> str:
    """Return how the folder is used, in Python."""
    if source.classifier is not None:
        return (
            "from transformers import pipeline\n\n"
            'classify = pipeline("audio-classification", model="PATH OR owner/name")\n'
            'classify("recording.wav")'
        )
    return (
        "from transformers import ASTFeatureExtractor, ASTModel\n\n"
        'extractor = ASTFeatureExtractor.from_pretrained("PATH OR owner/name")\n'
        'model = ASTModel.from_pretrained("PATH OR owner/name")\n'
        "rate = extractor.sampling_rate\n"
        'inputs = extractor(wave, sampling_rate=rate, return_tensors="pt")\n'
        "tokens = model(**inputs).last_hidden_state"
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
