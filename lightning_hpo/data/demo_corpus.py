"""A synthetic corpus with annotations, in ReDSM5's format."""

import csv
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from lightning_hpo.data.criteria import DSM5_CRITERIA

__all__ = ["EVERYDAY", "NOT_EVIDENCE", "SLOTS", "SYMPTOMS", "DemoCorpus", "sentence"]

SLOTS: dict[str, tuple[str, ...]] = {
    "when": ("Lately", "These days", "For weeks now", "Since spring", "Most days", "Ever since the move"),
    "much": ("really", "simply", "honestly", "truly", "just"),
    "who": ("sister", "neighbour", "uncle", "colleague", "cousin", "flatmate"),
    "hour": ("two", "three", "four", "five"),
    "thing": ("the guitar", "painting", "football", "the garden", "chess", "baking"),
    "task": ("the dishes", "a shower", "the stairs", "an email", "the laundry"),
    "place": ("lighthouse", "harbour", "library", "bakery", "tram stop", "castle"),
    "animal": ("heron", "goat", "tortoise", "parrot", "hedgehog", "donkey"),
    "colour": ("green", "yellow", "purple", "silver", "orange"),
    "food": ("pancakes", "soup", "dumplings", "pears", "noodles"),
}

SYMPTOMS: dict[str, tuple[str, ...]] = {
    "DEPRESSED_MOOD": (
        "{when} I feel sad and empty from morning to night.",
        "{when} I am tearful and everything seems hopeless to me.",
        "I {much} feel hopeless, and I cry for most of the day.",
        "I feel so sad and low that I end up tearful over nothing.",
        "There is an empty, hopeless feeling in me that stays all day.",
    ),
    "ANHEDONIA": (
        "{when} I find no pleasure in {thing}, which I used to enjoy.",
        "I {much} lost all interest in {thing}.",
        "I used to enjoy {thing}, and now there is no interest left in me.",
        "{when} nothing that was enjoyable gives me pleasure.",
        "Even {thing} brings me no pleasure any longer.",
    ),
    "APPETITE_CHANGE": (
        "{when} I eat much less than usual and lose weight without trying.",
        "I {much} eat far more than usual and gain weight.",
        "My appetite is gone and I am losing weight.",
        "I eat plate after plate of {food} without appetite and gain weight.",
        "{when} I barely eat, and my weight keeps falling.",
    ),
    "SLEEP_ISSUES": (
        "{when} I lie awake until {hour} and cannot fall asleep.",
        "I {much} cannot stay asleep, and I wake at {hour} every night.",
        "I sleep far too much, twelve hours and more.",
        "{when} my sleep is broken and I am awake at {hour}.",
        "It gets to {hour} in the night before I fall asleep.",
    ),
    "PSYCHOMOTOR": (
        "{when} I am so restless that I cannot sit still.",
        "I pace up and down, restless, and {much} cannot sit still.",
        "I move and speak so slowly that others finish my sentences.",
        "{when} I speak slowly and move as if through water.",
        "My hands fidget all day and I am too restless to sit.",
    ),
    "FATIGUE": (
        "{when} I am so tired that {task} is exhausting.",
        "I {much} have no energy left, not even for {task}.",
        "All my energy is gone and small tasks are exhausting.",
        "{when} I am tired and without energy before noon.",
        "I am tired to the bone, and {task} takes all my energy.",
    ),
    "WORTHLESSNESS": (
        "{when} I feel worthless next to everyone else.",
        "I {much} feel guilty about things that are not my fault.",
        "I am a worthless burden, or so it feels.",
        "I feel guilty beyond reason for every small mistake.",
        "{when} I feel like a failure, guilty and worthless.",
    ),
    "COGNITIVE_ISSUES": (
        "{when} I have trouble concentrating on a single page.",
        "I {much} cannot remember what I read a minute ago.",
        "Deciding between two shirts is trouble enough, my thinking is fog.",
        "{when} my thinking is slow fog and I cannot concentrate.",
        "I have trouble deciding anything and remember nothing.",
    ),
    "SUICIDAL_THOUGHTS": (
        "{when} I think about death more than I want to.",
        "I {much} think about not being alive.",
        "Sometimes I wish not to be alive in the morning.",
        "Thoughts of suicide come to me, and they scare me.",
        "{when} thoughts about death and suicide come back to me.",
    ),
}

NOT_EVIDENCE: dict[str, tuple[str, ...]] = {
    "DEPRESSED_MOOD": (
        "My {who} feels sad and tearful these weeks.",
        "Luckily I do not feel sad or hopeless at all.",
    ),
    "ANHEDONIA": (
        "My {who} lost all interest and pleasure in {thing}.",
        "Luckily {thing} is still a pleasure that I enjoy.",
    ),
    "APPETITE_CHANGE": (
        "My {who} has no appetite and is losing weight.",
        "Luckily I eat as usual and my weight is fine.",
    ),
    "SLEEP_ISSUES": (
        "My {who} lies awake at {hour} and cannot fall asleep.",
        "Luckily I sleep well and fall asleep at once.",
    ),
    "PSYCHOMOTOR": (
        "My {who} is restless and cannot sit still.",
        "Luckily I can sit still and am not restless.",
    ),
    "FATIGUE": (
        "My {who} is tired and has no energy for {task}.",
        "Luckily I am not tired and have energy for {task}.",
    ),
    "WORTHLESSNESS": (
        "My {who} feels guilty and worthless.",
        "Luckily I do not feel guilty or worthless.",
    ),
    "COGNITIVE_ISSUES": (
        "My {who} has trouble concentrating and deciding.",
        "Luckily I have no trouble concentrating or deciding.",
    ),
    "SUICIDAL_THOUGHTS": (
        "My {who} once spoke of death and suicide.",
        "Luckily I have no thoughts of death or suicide.",
    ),
}

EVERYDAY: tuple[str, ...] = (
    "A {colour} {animal} stood by the {place} again.",
    "The {place} was painted {colour} over the weekend.",
    "My {who} keeps a {animal} behind the {place}.",
    "We had {food} near the {place} at {hour}.",
    "The tram to the {place} was late.",
    "My {who} cooked {food} for the whole house.",
    "I read a long story about a {animal}.",
    "Tomorrow I take the bus to the {place}.",
    "There is a {colour} kite above the {place}.",
    "I bought a {colour} lamp and some {food}.",
    "It rained on the {place} until {hour}.",
    "My {who} won a prize for a {colour} boat.",
    "I wrote a letter to the {place}.",
    "Somebody left {food} at the {place}.",
    "The market sells {food} and {colour} scarves.",
    "Our team lost to the {place} by two goals.",
    "I walked past the {place} with my {who}.",
    "The {animal} at the {place} is called {colour}.",
)

_HEADER = ("post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status", "explanation")


class _Line(NamedTuple):
    """A sentence of a post; without a label it is not annotated."""

    text: str
    label: str = ""
    status: int = 0


class DemoCorpus:
    """Corpus of sentences that are drawn from templates.

    Most posts are short and a few are long. Some posts repeat another's text. Some rows have the label SPECIAL_CASE.
    """

    def __init__(self, posts: int, seed: int) -> None:
        draw = random.Random(seed)
        self._posts = [_post(draw) for _ in range(posts)]
        # ReDSM5 has a few texts under two ids, which must be in the same split.
        for place in range(80, posts, 80):
            self._posts[place] = self._posts[place - 1]

    def texts(self) -> list[str]:
        """Return the text of each post."""
        return [" ".join(line.text for line in post) for post in self._posts]

    def write(self, folder: Path) -> None:
        """Write `posts.csv`, `annotations.csv` and `criteria.yaml`."""
        ids = [f"demo_{place:04d}" for place in range(len(self._posts))]
        _write_csv(folder / "posts.csv", ("post_id", "text"), list(zip(ids, self.texts(), strict=True)))
        rows = [
            (post_id, f"{post_id}_{place}", line.text, line.label, line.status, "")
            for post_id, post in zip(ids, self._posts, strict=True)
            for place, line in enumerate(post)
            if line.label
        ]
        _write_csv(folder / "annotations.csv", _HEADER, rows)
        (folder / "criteria.yaml").write_text(
            yaml.safe_dump(DSM5_CRITERIA, sort_keys=False, width=200), encoding="utf-8"
        )


def sentence(template: str, draw: random.Random) -> str:
    """Fill the slots of a sentence template."""
    return re.sub(r"{(\w+)}", lambda slot: draw.choice(SLOTS[slot[1]]), template)


def _post(draw: random.Random) -> list[_Line]:
    length = draw.choices((draw.randint(1, 6), draw.randint(6, 12), draw.randint(30, 60)), (70, 27, 3))[0]
    lines = [_Line(sentence(draw.choice(EVERYDAY), draw)) for _ in range(length)]
    labels = draw.sample(sorted(SYMPTOMS), draw.choices((0, 1, 2, 3), (15, 50, 25, 10))[0])
    added = [_Line(sentence(draw.choice(SYMPTOMS[label]), draw), label, 1) for label in labels]
    others = draw.sample(sorted(set(SYMPTOMS) - set(labels)), draw.choices((0, 1), (65, 35))[0])
    added += [_Line(sentence(draw.choice(NOT_EVIDENCE[label]), draw), label) for label in others]
    for line in added:
        lines.insert(draw.randint(0, len(lines)), line)
    if draw.random() < 0.03:
        lines.append(_Line(sentence(draw.choice(EVERYDAY), draw), "SPECIAL_CASE", 1))
    return lines


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
