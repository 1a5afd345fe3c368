"""Sound in: files, features, augmentation."""
