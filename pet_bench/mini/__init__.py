"""The embedded default: a world of coloured shapes, its four tasks on disk, backbones that read its text."""
