"""How good a model is, frozen or fine-tuned."""
