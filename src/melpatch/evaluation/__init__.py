"""How good a run is, frozen or fine-tuned: features, protocols, metrics and reports."""
