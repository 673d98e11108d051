"""From annotation and feature files to batches of tensors."""
