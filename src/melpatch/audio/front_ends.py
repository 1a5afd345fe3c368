"""The front ends of published systems, by name: settings for :class:`melpatch.audio.logmel.LogMel`.

``melpatch pretrain`` measures ``mean`` and ``std`` where they are the defaults, as for MAE-AST, M2D
and BYOL-A. Those of PANNs and COLA only set the unit, since the first norm of a CNN14 normalises
level and scale; for another encoder, measure them (``--stats-clips 512``; ``melpatch stats`` prints
them).
"""

import math
from dataclasses import replace

from melpatch.audio.framing import DECIBELS
from melpatch.audio.logmel import LOG_FLOOR, LogMel


def kaldi() -> LogMel.Config:
    """SSAST and AST: Kaldi's features with Hann's window, the defaults of LogMel.

    Source: Gong et al. 2022 (arXiv 2110.09784), published code.
    """
    return LogMel.Config()


def mae_ast() -> LogMel.Config:
    """MAE-AST: Kaldi's features with Povey's window, scaled to a standard deviation of 1/2.

    Source: Baade et al. 2022 (arXiv 2203.16691), published code.
    *Differs:* there, batch normalisation uses the mean and deviation of each batch.
    """
    return replace(kaldi(), window="povey")


def byol_a() -> LogMel.Config:
    """BYOL-A: torchaudio's log-mel spectrogram, natural logarithm; mean and std are your data's.

    Source: Niizumi et al. 2021 (arXiv 2103.06695) and 2023 (arXiv 2204.07402), published settings.
    """
    return replace(_torchaudio(), floor_added=True)


def beats() -> LogMel.Config:
    """BEATs: Kaldi's features with Povey's window, mean and std of its own.

    Source: Chen et al. 2022 (arXiv 2212.09058), published code. Its samples are 16-bit numbers,
    2^15 times ours, which adds ln(2^30) to the logarithm of a power.
    """
    full_scale = 2.0**30
    return replace(
        kaldi(),
        window="povey",
        floor=LOG_FLOOR / full_scale,
        mean=15.41663 - math.log(full_scale),
        std=6.55582,
    )


def maskspec(sample_rate: int = 32000) -> LogMel.Config:
    """MaskSpec, as PaSST: Kaldi's mel filters on a centred transform.

    Source: Chong et al. 2022 (arXiv 2204.12768), published code; there at 32 kHz only.
    *Differs:* there, each mel bin has its own mean and deviation, and training moves the edges of
    the filters at random, the upper one by up to 1 kHz either way. Here the edges are those used
    there in evaluation.
    """
    return LogMel.Config(
        sample_rate=sample_rate,
        low_hz=0.0,
        high_hz=sample_rate / 2 - 1000.0,
        preemphasis_over="wave",
        centred=True,
        remove_offset=False,
        floor=1e-5,
        floor_added=True,
        mean=-4.5,
        std=5.0,
        scale=1.0,
    )


def m2d() -> LogMel.Config:
    """M2D and MSM-MAE: librosa's mel filters, 80 bands from 50 to 8000 Hz, natural logarithm.

    Source: Niizumi et al. 2022 (arXiv 2210.14648, arXiv 2204.12260): 16 kHz, windows of 400 samples
    without zero padding, hop 160; mean and std are those of the corpus.
    """
    return LogMel.Config(
        n_mels=80,
        low_hz=50.0,
        high_hz=8000.0,
        preemphasis=0.0,
        centred=True,
        remove_offset=False,
        window="hann_periodic",
        mel="slaney",
        fft_length=400,
        floor=1.19e-7,
        floor_added=True,
        scale=1.0,
    )


def panns(sample_rate: int = 32000) -> LogMel.Config:
    """PANNs: librosa's log-mel spectrogram in decibels of power.

    Source: Kong et al. 2020 (arXiv 1912.10211), published code, with models for 32, 16 and 8 kHz.
    """
    return LogMel.Config(
        sample_rate=sample_rate,
        window_ms=32.0,
        n_mels=64,
        low_hz=50.0,
        high_hz=min(14000.0, sample_rate / 2),
        preemphasis=0.0,
        centred=True,
        remove_offset=False,
        window="hann_periodic",
        mel="slaney",
        floor=1e-10,
        mean=0.0,
        std=1.0 / DECIBELS,
        scale=1.0,
    )


def cola() -> LogMel.Config:
    """COLA: TensorFlow's log-mel spectrogram of magnitudes, of clips scaled to L2 norm 1.

    Source: Saeed et al. 2020 (arXiv 2010.10915), published code.
    *Differs:* the norm is that of the segment that was read, not of the whole recording.
    """
    return LogMel.Config(
        n_mels=64,
        low_hz=60.0,
        high_hz=7800.0,
        unit_norm=True,
        preemphasis=0.0,
        remove_offset=False,
        window="hann_periodic",
        fft_length=1024,
        spectrum="magnitude",
        floor=1e-5,
        mean=0.0,
        std=1.0,
        scale=1.0,
    )


def atst() -> LogMel.Config:
    """ATST-Clip and ATST-Frame: torchaudio's log-mel in decibels, from -1 to 1 in most clips.

    Source: Li et al. 2022 (arXiv 2204.12076) and 2024 (arXiv 2306.04186), published code: from
    -79.6482 to 50.6842 dB, no lower than 80 dB below the loudest value.
    """
    return replace(
        _torchaudio(),
        floor=1e-10,
        range_db=80.0,
        mean=-14.482 / DECIBELS,
        std=65.1662 / DECIBELS,
    )


def clar() -> LogMel.Config:
    """CLAR: a mel spectrogram of 128 Slaney bands, one of its three inputs; mean and std are your data's.

    Source: Al-Tahan and Mohsenzadeh 2020 (arXiv 2010.09542), published code: windows of 2,048
    samples, a hop of 128, 40 to 8000 Hz.
    """
    return replace(
        _torchaudio(),
        window_ms=128.0,
        hop_ms=8.0,
        n_mels=128,
        low_hz=40.0,
        high_hz=8000.0,
        mel="slaney",
    )


def dasheng() -> LogMel.Config:
    """Dasheng: torchaudio's log-mel in decibels, no lower than 120 dB below the loudest value.

    Source: Dinkel et al. 2024 (arXiv 2406.06992), published code.
    *Differs:* there, the loudest value is that of the batch. The statistics of mel bins are weights
    there; here mean and std set the unit, a decibel.
    """
    return replace(
        atst(),
        window_ms=32.0,
        low_hz=0.0,
        high_hz=8000.0,
        range_db=120.0,
        mean=0.0,
        std=1.0 / DECIBELS,
    )


def _torchaudio() -> LogMel.Config:
    """Return what BYOL-A and ATST share: torchaudio's mel spectrogram, 64 bands from 60 to 7800 Hz."""
    return LogMel.Config(
        window_ms=64.0,
        n_mels=64,
        low_hz=60.0,
        high_hz=7800.0,
        preemphasis=0.0,
        centred=True,
        remove_offset=False,
        window="hann_periodic",
        mel="htk",
        scale=1.0,
    )
