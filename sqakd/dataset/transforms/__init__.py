"""Augmentation and resizing of image batches."""
