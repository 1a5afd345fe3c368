"""What exports share: the run, its weights under foreign names, its way from waveform to output, a card."""
