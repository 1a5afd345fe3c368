"""Using a trained network on sound of any length: windows, batches, outputs, and the tables made of them."""
