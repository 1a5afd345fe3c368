"""Spectrogram to tokens, one file per backbone."""
