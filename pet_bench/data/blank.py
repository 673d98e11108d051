"""Tasks some of whose examples lack an image: in its place is a black picture, or for features zeros.

Such a task says `masks_empty`, so that zeros are hidden from attention.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from pet_bench.data.task import FEATURES, Task, open_hdf5

FOLDER = Path(__file__).parent / "blank_pictures"  # with the picture below images/, as an album has it
NAME = "blank"


class BlankTask(Task):
    """Keys are `<name of the task>/<image>`, and `blank` where there is none. The file of a feature holds it under the
    last part of its name."""

    @property
    def blank(self) -> str:
        """The key of an image that is not there."""
        return f"{self.name}/.blank"

    def home(self, root: Path | str) -> Path:
        """The folder that holds the task's files."""
        return Path(root) / self.name

    def feature_name(self, key: str) -> str:
        """Of an image's feature, the file below the folder of features, without its suffix."""
        return PurePosixPath(self.picture_place(key)).with_suffix("").as_posix()

    def picture_place(self, key: str) -> str:
        """Of an image's picture, the path below the folder of pictures."""
        return key.removeprefix(f"{self.name}/")

    def feature_path(self, root: Path | str, key: str) -> Path:
        """No image has no file; for it stands one that is there, that of the test split."""
        if key == self.blank:
            return self.sources(Path(root), "test")[0]
        return self.home(root) / FEATURES / f"{self.feature_name(key)}.h5"

    def dataset(self, file: h5py.File, key: str) -> h5py.Dataset:
        return super().dataset(file, f"{self.name}/{PurePosixPath(key).stem}")

    def feature(self, root: Path | str, key: str) -> np.ndarray:
        """Of no image zeros, in the shape of any other's; raises OSError where there is no other."""
        if key != self.blank:
            return super().feature(root, key)
        folder = self.home(root) / FEATURES
        other = next(folder.rglob("*.h5"), None)
        if other is None:
            raise OSError(f"the shape of no image's feature is that of any other, and there is none in {folder}")
        with open_hdf5(other) as file:
            return np.zeros_like(self.dataset(file, other.name)[:])

    def picture(self, root: Path | str, key: str) -> tuple[Path, str]:
        """Of no image the black one, which comes with the package."""
        return (FOLDER, NAME) if key == self.blank else (self.home(root), self.picture_place(key))
