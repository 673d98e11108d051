"""What is said about the world: the sentences of the four tasks, and scenes written out as text.

Answers need the image. A yes/no question is asked the same way whichever answer is true, each with
probability 1/2 given its text; open questions ask for attributes that scenes draw uniformly. So a model
that reads but does not see can do no better than the most frequent answer of the question's type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from pet_bench.mini.world import COLORS, GRID, SHAPES, Scene, Thing

PROMPTS = {"vqa": "vqa: ", "gqa": "gpa: ", "nlvr": "nlvr: ", "caption": "caption: "}
IMAGES = ("left", "right")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


class Question(NamedTuple):
    text: str
    answer: str
    kind: str  # VQA's question_type: how the question begins


def relation_holds(a: Thing, relation: str, b: Thing) -> bool:
    """Whether a is `relation` b: strictly less or more along one axis of the board."""
    match relation:
        case "left of":
            return a.column < b.column
        case "right of":
            return a.column > b.column
        case "above":
            return a.row < b.row
        case "below":
            return a.row > b.row
    raise ValueError(relation)


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _unique(scene: Scene, *attributes: str) -> list[Thing]:
    """The objects that no other object shares all of these attributes with."""
    counts = Counter(tuple(getattr(t, a) for a in attributes) for t in scene.things)
    return [t for t in scene.things if counts[tuple(getattr(t, a) for a in attributes)] == 1]


def _name(thing: Thing) -> str:
    return f"{thing.color} {thing.shape}"


def _other(rng: Random, value: str, among: Sequence[str]) -> str:
    return rng.choice([v for v in among if v != value])


# -- VQA -----------------------------------------------------------------------------------------------------


def _what_color(scene: Scene, rng: Random) -> Question | None:
    if things := _unique(scene, "shape"):
        t = rng.choice(things)
        return Question(f"what color is the {t.shape}?", t.color, "what color is the")
    return None


def _what_shape(scene: Scene, rng: Random) -> Question | None:
    if things := _unique(scene, "color"):
        t = rng.choice(things)
        return Question(f"what shape is the {t.color} object?", t.shape, "what shape is the")
    return None


def _how_many(scene: Scene, rng: Random) -> Question:
    by_count: dict[int, list[str]] = {}
    for color in COLORS:
        by_count.setdefault(len(scene.having(color=color)), []).append(f"{color} objects")
    for shape in SHAPES:
        by_count.setdefault(len(scene.having(shape=shape)), []).append(plural(shape))
    count = rng.choice([c for c in by_count if c <= 3])
    return Question(f"how many {rng.choice(by_count[count])} are there?", str(count), "how many")


def _is_there(scene: Scene, rng: Random) -> Question:
    """A present object; or, as often, one that shares an attribute with a present one but is absent."""
    present = {(t.color, t.shape) for t in scene.things}
    color, shape = rng.choice(sorted(present))
    yes = rng.random() < 0.5
    if not yes:
        near = [(c, shape) for c in COLORS] + [(color, s) for s in SHAPES]
        color, shape = rng.choice([pair for pair in near if pair not in present])
    return Question(f"is there a {color} {shape}?", "yes" if yes else "no", "is there a")


def _is_the(scene: Scene, rng: Random) -> Question | None:
    if things := _unique(scene, "shape"):
        t = rng.choice(things)
        yes = rng.random() < 0.5
        color = t.color if yes else _other(rng, t.color, tuple(COLORS))
        return Question(f"is the {t.shape} {color}?", "yes" if yes else "no", "is the")
    return None


# -- GQA -----------------------------------------------------------------------------------------------------


def _related(scene: Scene, rng: Random) -> tuple[Thing, str, Thing] | None:
    """(a, relation, b) with a the only object in that relation to b, and b unique by colour and shape."""
    found = []
    for b in _unique(scene, "color", "shape"):
        for relation in OPPOSITE:
            matches = [t for t in scene.things if relation_holds(t, relation, b)]
            if len(matches) == 1:
                found.append((matches[0], relation, b))
    return rng.choice(found) if found else None


def _relation_query(scene: Scene, rng: Random) -> Question | None:
    if found := _related(scene, rng):
        a, relation, b = found
        attribute = rng.choice(("color", "shape"))
        asked = f"what {attribute}"
        return Question(f"{asked} is the object {relation} the {_name(b)}?", getattr(a, attribute), asked)
    return None


def _pair(scene: Scene, rng: Random) -> tuple[Thing, Thing, str, str] | None:
    """Two nameable objects and an axis they differ on: (a, b, true relation, its opposite)."""
    things = _unique(scene, "color", "shape")
    if len(things) < 2:
        return None
    a, b = rng.sample(things, 2)
    true = [r for r in OPPOSITE if relation_holds(a, r, b)]
    relation = rng.choice(true)
    return a, b, relation, OPPOSITE[relation]


def _relation_verify(scene: Scene, rng: Random) -> Question | None:
    if found := _pair(scene, rng):
        a, b, true, false = found
        yes = rng.random() < 0.5
        relation = true if yes else false
        return Question(f"is the {_name(a)} {relation} the {_name(b)}?", "yes" if yes else "no", "is the")
    return None


def _relation_choose(scene: Scene, rng: Random) -> Question | None:
    if found := _pair(scene, rng):
        a, b, true, _ = found
        words = "above or below" if true in ("above", "below") else "left or right of"
        return Question(f"is the {_name(a)} {words} the {_name(b)}?", true.removesuffix(" of"), "is the")
    return None


def _what_size(scene: Scene, rng: Random) -> Question | None:
    if things := _unique(scene, "color", "shape"):
        t = rng.choice(things)
        return Question(f"is the {_name(t)} small or large?", t.size, "is the")
    return None


def _chain_query(scene: Scene, rng: Random) -> Question | None:
    if things := _unique(scene, "size", "shape"):
        t = rng.choice(things)
        return Question(f"what color is the {t.size} {t.shape}?", t.color, "what color")
    return None


def _chain_verify(scene: Scene, rng: Random) -> Question | None:
    if things := _unique(scene, "size", "color"):
        t = rng.choice(things)
        yes = rng.random() < 0.5
        shape = t.shape if yes else _other(rng, t.shape, SHAPES)
        return Question(f"is the {t.size} {t.color} object a {shape}?", "yes" if yes else "no", "is the")
    return None


Asker = Callable[[Scene, Random], Question | None]
VQA: tuple[Asker, ...] = (_what_color, _what_shape, _how_many, _is_there, _is_the)
GQA: tuple[Asker, ...] = (
    _relation_query,
    _relation_verify,
    _relation_choose,
    _what_size,
    _chain_query,
    _chain_verify,
)


def ask(scene: Scene, rng: Random, askers: Sequence[Asker]) -> Question | None:
    """One question, its form drawn uniformly from those that fit this scene; None if none does."""
    for asker in rng.sample(askers, len(askers)):
        if question := asker(scene, rng):
            return question
    return None


def questioned(rng: Random, askers: Sequence[Asker], count: int) -> tuple[Scene, list[Question]]:
    """A scene and `count` different questions about it; scenes that do not allow so many are passed over."""
    while True:
        scene = Scene.sample(rng)
        found: dict[str, Question] = {}
        for _ in range(4 * count):
            if question := ask(scene, rng, askers):
                found.setdefault(question.text, question)
            if len(found) == count:
                return scene, list(found.values())


def annotators(answer: str, rng: Random) -> list[str]:
    """Ten people's answers: most agree, some see or type something else."""
    for words in (tuple(COLORS), SHAPES, ("yes", "no"), ("0", "1", "2", "3", "4")):
        if answer in words:
            slips = rng.choice((0, 0, 0, 1, 1, 2, 3))
            given = [answer] * (10 - slips) + [_other(rng, answer, words) for _ in range(slips)]
            return rng.sample(given, 10)
    raise ValueError(answer)


def soft_label(answers: Sequence[str]) -> dict[str, float]:
    """Answer -> score by how many of ten people gave it: 1 0.3, 2 0.6, 3 0.9, four or more 1.0."""
    return {a: {1: 0.3, 2: 0.6, 3: 0.9}.get(n, 1.0) for a, n in Counter(answers).items()}


# -- NLVR2 ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """A sentence about a pair of images that some pairs make true."""

    form: str
    color: str
    shape: str
    image: str
    count: int

    @classmethod
    def sample(cls, rng: Random) -> Statement:
        return cls(
            rng.choice(tuple(FORMS)),
            rng.choice(tuple(COLORS)),
            rng.choice(SHAPES),
            rng.choice(IMAGES),
            rng.randint(2, 5),
        )

    @property
    def text(self) -> str:
        template, _ = FORMS[self.form]
        return template.format(color=self.color, shape=self.shape, image=self.image, number=NUMBERS[self.count])

    def holds(self, left: Scene, right: Scene) -> bool:
        _, truth = FORMS[self.form]
        return truth(self, left, right)

    def named(self, left: Scene, right: Scene) -> Scene:
        """The scene of the image that the sentence names."""
        return left if self.image == "left" else right


FORMS: dict[str, tuple[str, Callable[[Statement, Scene, Scene], bool]]] = {
    "one": (
        "the {image} image contains a {color} {shape}.",
        lambda s, left, right: bool(s.named(left, right).having(color=s.color, shape=s.shape)),
    ),
    "color": (
        "the {image} image contains a {color} object.",
        lambda s, left, right: bool(s.named(left, right).having(color=s.color)),
    ),
    "both": (
        "both images contain a {shape}.",
        lambda s, left, right: bool(left.having(shape=s.shape)) and bool(right.having(shape=s.shape)),
    ),
    "any": (
        "at least one image contains a {color} object.",
        lambda s, left, right: bool(left.having(color=s.color)) or bool(right.having(color=s.color)),
    ),
    "exactly": (
        "exactly one image contains a {shape}.",
        lambda s, left, right: bool(left.having(shape=s.shape)) != bool(right.having(shape=s.shape)),
    ),
    "count": (
        "the {image} image contains exactly {number} objects.",
        lambda s, left, right: len(s.named(left, right).things) == s.count,
    ),
}


def pair(rng: Random, wanted: Sequence[tuple[Statement, bool]]) -> tuple[Scene, Scene] | None:
    """Two scenes, drawn until each statement has the truth value wanted; None if that seems impossible."""
    for _ in range(1000):
        left, right = Scene.sample(rng), Scene.sample(rng)
        if all(s.holds(left, right) == truth for s, truth in wanted):
            return left, right
    return None


# -- captions ------------------------------------------------------------------------------------------------


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


Wording = Callable[[Scene], str]


def _plain(things: Iterable[Thing]) -> str:
    return _listed([f"a {_name(thing)}" for thing in things])


def _sized(scene: Scene) -> str:
    return _listed([f"a {thing.size} {_name(thing)}" for thing in scene.things]) + "."


def _counted(scene: Scene) -> str:
    shapes = sorted(Counter(thing.shape for thing in scene.things).items())
    grouped = _listed([f"a {shape}" if n == 1 else f"{NUMBERS[n]} {plural(shape)}" for shape, n in shapes])
    return f"{NUMBERS[len(scene.things)]} objects: {grouped}."


NAMED: tuple[Wording, ...] = (
    lambda scene: f"there is {_plain(scene.things)}.",
    lambda scene: f"a picture of {_plain(scene.things)}.",
)
"""By colour and shape."""
WORDINGS: tuple[Wording, ...] = (*NAMED, _sized, _counted)
"""And by size too, or by shape and number."""


def captions(scene: Scene, rng: Random, count: int = 5, wordings: Sequence[Wording] = WORDINGS) -> list[str]:
    """`count` people's captions; objects are named in reading order."""
    return [rng.choice(wordings)(scene) for _ in range(count)]


# -- scenes as text ------------------------------------------------------------------------------------------


def located(thing: Thing, rng: Random, words_only: bool = False) -> str:
    """'<vis_extra_id_14> small red circle', or (at times, or always) the same place in words."""
    words = f"{thing.size} {thing.color} {thing.shape}"
    if not words_only and rng.random() < 0.8:
        return f"<vis_extra_id_{thing.cell}> {words}"
    return f"{words} in row {NUMBERS[thing.row + 1]} column {NUMBERS[thing.column + 1]}"


def written(scenes: Sequence[Scene], rng: Random, words_only: bool = False) -> str:
    """One scene, or a left and a right one, as a shuffled list of located objects."""
    parts = []
    for image, scene in zip(IMAGES, scenes, strict=False):
        things = [located(t, rng, words_only) for t in rng.sample(scene.things, len(scene.things))]
        parts.append((f"{image} image: " if len(scenes) > 1 else "") + ", ".join(things) + ".")
    return " ".join(parts)


def condensed(scenes: Sequence[Scene], cells: int, rng: Random) -> list[tuple[str, str]]:
    """Scenes as (location word, words) of `cells` cells each: the filled ones, and some that are 'empty'."""
    told = []
    for image, scene in zip(IMAGES, scenes, strict=False):
        filled = {t.cell: f"{t.size} {t.color} {t.shape}" for t in scene.things}
        others = [cell for cell in range(GRID * GRID) if cell not in filled]
        chosen = [*filled, *rng.sample(others, max(0, cells - len(filled)))]
        told += [(f"<vis_extra_id_{cell}>", f"{image} {filled.get(cell, 'empty')}") for cell in sorted(chosen)]
    return told


@dataclass(frozen=True)
class Exercise:
    """Reading comprehension: a task's prompted input, the scenes it is about, and the target."""

    task: str
    text: str
    scenes: tuple[Scene, ...]
    target: str

    @classmethod
    def sample(cls, task: str, rng: Random) -> Exercise:
        if task == "nlvr":
            statement, truth = Statement.sample(rng), rng.random() < 0.5
            scenes = None
            while scenes is None:
                scenes = pair(rng, [(statement, truth)])
            return cls(task, PROMPTS[task] + statement.text, scenes, "true" if truth else "false")
        if task == "caption":
            scene = Scene.sample(rng)
            return cls(task, PROMPTS[task], (scene,), captions(scene, rng, 1)[0])
        scene, (question,) = questioned(rng, VQA if task == "vqa" else GQA, 1)
        return cls(task, PROMPTS[task] + question.text, (scene,), question.answer)

    def condensed(self, cells: int, rng: Random) -> list[tuple[str, str]]:
        return condensed(self.scenes, min(cells, GRID * GRID), rng)

    def written(self, rng: Random) -> str:
        return written(self.scenes, rng)
