"""Audio: reading and writing files, log-mel features, augmentation."""
