"""Pictures of a page, as data."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path

from PIL import Image

SMALL, LARGE = 100, 320  # pixels: pictures with a side below are doubled, larger ones reduced to this


class Album:
    """Pictures as data: URIs, each once."""

    def __init__(self) -> None:
        self.pictures: list[str] = []
        self._places: dict[Path | str, int] = {}

    def add(self, path: Path) -> int:
        """The place of a picture in the album."""
        if path not in self._places:
            uri = self._encoded(path)
            if uri not in self._places:
                self._places[uri] = len(self.pictures)
                self.pictures.append(uri)
            self._places[path] = self._places[uri]
        return self._places[path]

    @staticmethod
    def _encoded(path: Path) -> str:
        with Image.open(path) as file:
            image = file.convert("RGB")
        if min(image.size) < SMALL:  # WebP halves the resolution of colours, which such a picture cannot spare
            image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
        else:
            image.thumbnail((LARGE, LARGE))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80, method=6)
        return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"
