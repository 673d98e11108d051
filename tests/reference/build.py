"""Makes the files of this folder from the shared folder beside the repository: `python -m tests.reference.build`.

What is somebody else's and not ours to pass on stays there: the samples of real data sets, and the sentences of YC2C
and TVR among the tokeniser's pairs (both non-commercial).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.numpy import load_file

from tests.conftest import SHARED
from tests.reference import packs

HERE = Path(__file__).parent
FOLDERS = ("parity", "followups/parity")  # of fixtures
# by the beginning of a name, so that each file stays under 2 MB
PACK = re.compile(r"(bart|t5)(_ab_dec|_ab)?(?=_)|[a-z\d]+(?=_)")
UNUSED = "p_adapter_"  # no method here is restated by these
FILES = ("parity/dropout_trace.json", "cases/fuzz.jsonl", "expectations/**/*")
PAIRS = "expectations/tokenizer/ptb_pairs.json"
NOT_OURS = ("yc2c", "tvr")


def fixtures(folder: Path) -> dict[str, dict[str, packs.Given]]:
    """Pack → name → fixture, of a folder of `name.safetensors` and `name.json`."""
    packed: dict[str, dict[str, packs.Given]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.stem.startswith(UNUSED):
            continue
        pack = match[0] if (match := PACK.match(path.stem)) else "more"
        given = packs.Given(json.loads(path.with_suffix(".json").read_text()), load_file(path))
        packed.setdefault(pack, {})[path.stem] = given
    return packed


def copies(shared: Path) -> dict[str, bytes]:
    """Path below this folder → content, of what is carried over as it is."""
    paths = [path for pattern in FILES for path in sorted(shared.glob(pattern)) if path.is_file()]
    contents = {path.relative_to(shared).as_posix(): path.read_bytes() for path in paths if path.name != "README.md"}
    pairs = json.loads(contents[PAIRS])
    pairs["pairs"] = [pair for pair in pairs["pairs"] if pair["source"] not in NOT_OURS]
    contents[PAIRS] = f"{json.dumps(pairs, indent=0, ensure_ascii=False)}\n".encode()
    # a program that is data here: no checker reads it
    return {name.replace("_draft.py", "_draft.txt"): content for name, content in contents.items()}


def main() -> None:
    for name, content in copies(SHARED).items():
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_bytes(content)
    for folder in FOLDERS:
        (HERE / folder).mkdir(parents=True, exist_ok=True)
        for pack, given in fixtures(SHARED / folder).items():
            packs.write(HERE / folder / f"{pack}.h5", given)


if __name__ == "__main__":
    main()
