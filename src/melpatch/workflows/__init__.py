"""Pretraining and fine-tuning from a config to a finished run, for commands and scripts."""
