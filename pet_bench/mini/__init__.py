"""The embedded default: a small world of coloured shapes, its four tasks on disk, and backbones that read its text."""
