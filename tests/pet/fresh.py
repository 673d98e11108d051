"""In a process of its own: `python -m tests.pet.fresh FOLDER` writes the logits of every saved method in the folder."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from safetensors.torch import save_file

from pet_bench.pet import load_trained
from tests.pet.minis import batch, logits, mini

SEED = 99  # another than that of the saved models: what is not in the file must not matter


def main(folder: Path) -> None:
    found = {}
    for path in folder.glob("*.safetensors"):
        family, method = path.stem.split()
        try:
            model = mini(family, method, seed=SEED)
            load_trained(model, path)
            found[path.stem] = logits(model, batch(family))
        except Exception:
            traceback.print_exc()
    save_file(found, folder / "logits")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
