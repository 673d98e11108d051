"""What is said about clips, and in them: multiple-choice questions, descriptions, subtitles.

Answers need the frames. Choices are shuffled, and all of one kind, so a model that reads but does not see can do no
better than guess. Subtitles tell which shape each speaker likes, drawn without regard to the frames; questions about
"the object that Ann likes" need both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from pet_bench.mini.clips import DIRECTIONS, Clip
from pet_bench.mini.world import COLORS, SHAPES

LONGEST = 12  # frames of the longest clip
NAMES = ("Ann", "Bob", "Eve")
VALUES = {"color": tuple(COLORS), "shape": SHAPES, "direction": tuple(DIRECTIONS)}


class Like(NamedTuple):
    """A line of the subtitles."""

    name: str
    shape: str

    @property
    def text(self) -> str:
        return f"{self.name} : I like the {self.shape}."


def subtitles(rng: Random) -> list[Like]:
    """Two people, who like different shapes."""
    people, shapes = rng.sample(NAMES, 2), rng.sample(SHAPES, 2)
    return [Like(*pair) for pair in zip(people, shapes, strict=True)]


class Question(NamedTuple):
    text: str
    answer: str
    about: str  # the attribute that the choices are values of


Asker = Callable[[Clip, Sequence[Like], Random], Question | None]


def _color_of_shape(clip: Clip, likes: Sequence[Like], rng: Random) -> Question:
    shot = rng.choice(clip.shots)
    return Question(f"what color is the {shot.shape}?", shot.color, "color")


def _shape_of_color(clip: Clip, likes: Sequence[Like], rng: Random) -> Question:
    shot = rng.choice(clip.shots)
    return Question(f"what shape is the {shot.color} object?", shot.shape, "shape")


def _direction(clip: Clip, likes: Sequence[Like], rng: Random) -> Question:
    shot = rng.choice(clip.shots)
    return Question(f"where does the {shot.color} object go?", shot.direction, "direction")


def _attribute_of_direction(about: str) -> Asker:
    def ask(clip: Clip, likes: Sequence[Like], rng: Random) -> Question | None:
        directions = [shot.direction for shot in clip.shots]
        found = [shot for shot in clip.shots if directions.count(shot.direction) == 1]
        if not found:
            return None
        shot = rng.choice(found)
        return Question(f"what {about} is the object that goes {shot.direction}?", getattr(shot, about), about)

    return ask


def _attribute_of_place(about: str) -> Asker:
    def ask(clip: Clip, likes: Sequence[Like], rng: Random) -> Question:
        place = rng.choice(("first", "last"))
        shot = clip.shots[0 if place == "first" else -1]
        return Question(f"what {about} is the {place} object?", getattr(shot, about), about)

    return ask


def _liked(clip: Clip, likes: Sequence[Like], rng: Random) -> Question | None:
    found = [(like.name, shot) for like in likes for shot in clip.shots if shot.shape == like.shape]
    if not found:
        return None
    name, shot = rng.choice(found)
    return Question(f"what color is the object that {name} likes?", shot.color, "color")


# Five choices need five values: there are six colours and five directions, but four shapes.
FIVE: tuple[Asker, ...] = (
    _color_of_shape,
    _direction,
    _attribute_of_direction("color"),
    _attribute_of_place("color"),
    _liked,
)
FOUR: tuple[Asker, ...] = (
    _color_of_shape,
    _shape_of_color,
    _attribute_of_direction("shape"),
    _attribute_of_place("shape"),
    _liked,
)


def ask(clip: Clip, likes: Sequence[Like], rng: Random, askers: Sequence[Asker]) -> Question:
    """A question whose form is drawn uniformly from those that fit."""
    for asker in rng.sample(askers, len(askers)):
        if question := asker(clip, likes, rng):
            return question
    raise ValueError("no question fits")


def choices(question: Question, count: int, rng: Random) -> tuple[list[str], int]:
    """`count` values in random order, and which of them is right."""
    others = [v for v in VALUES[question.about] if v != question.answer]
    offered = rng.sample([question.answer, *rng.sample(others, count - 1)], count)
    return offered, offered.index(question.answer)


def description(clip: Clip, rng: Random, moving: float = 0.5) -> str:
    """What is there, in order; at times, with this probability, where it goes, too."""
    parts = [f"a {shot.color} {shot.shape}" for shot in clip.shots]
    if rng.random() < moving:
        parts = [f"{part} goes {shot.direction}" for part, shot in zip(parts, clip.shots, strict=True)]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) + "."


# as text -------------------------------------------------------------------------------------------------------------


def spoken(likes: Sequence[Like]) -> str:
    return f"[Subs] {' '.join(like.text for like in likes)}"


def choice_text(likes: Sequence[Like], question: Question, seconds: float, offered: Sequence[str]) -> str:
    """The input of a multiple-choice task, but for the prompt."""
    answers = " ".join(f"a{i}: {value}." for i, value in enumerate(offered))
    return f"{spoken(likes)} [Q] {question.text} [TS] (0.00-{seconds:.2f}) [Choices] {answers}"


@dataclass(frozen=True)
class ClipExercise:
    """Reading comprehension about a clip, as `pet_bench.mini.language.Exercise` is about scenes."""

    task: str
    text: str
    clip: Clip
    target: str

    @classmethod
    def sample(cls, task: str, rng: Random, hint: str = "") -> ClipExercise:
        """hint: half of a multiple-choice question. "open" offers no choices, "named" says which one to choose, and
        "bare" says so without subtitles.
        """
        clip, likes = Clip.sample(rng), subtitles(rng)
        if task in CHOICES:
            count, askers = CHOICES[task]
            question = ask(clip, likes, rng, askers)
            if hint == "open":
                text = f"{spoken(likes)} [Q] {question.text} [TS] (0.00-{clip.seconds:.2f}) {task}: "
                return cls(task, text, clip, question.answer)
            offered, right = choices(question, count, rng)
            if hint:
                question = question._replace(text=f"what is {question.answer}?")
            text = choice_text(likes if hint != "bare" else [], question, clip.seconds, offered)
            return cls(task, f"{text} {task}: ", clip, f"a{right}")
        when = f" [TS] ({[0.0, clip.seconds]})" if task == "tvc" else ""
        return cls(task, f"{spoken(likes)}{when} {task}: ", clip, description(clip, rng))

    def condensed(self, cells: int, rng: Random) -> list[tuple[str, str]]:
        """(location word, words) of `cells` frames, those behind the clip's end empty."""
        told = [frame.told for frame in self.clip.frames]
        told += ["empty"] * (max(cells, LONGEST) - len(told))
        return [(f"<vis_extra_id_{i}>", words) for i, words in enumerate(told)]

    def written(self, rng: Random) -> str:
        return ", ".join(f"<vis_extra_id_{i}> {frame.told}" for i, frame in enumerate(self.clip.frames)) + "."


CHOICES = {"tvqa": (5, FIVE), "how2qa": (4, FOUR)}
CLIP_TASKS = (*CHOICES, "tvc", "yc2c")
