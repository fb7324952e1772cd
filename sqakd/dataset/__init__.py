"""Images as uint8 tensors, one data set per file."""
