"""What the bundled pictures show: the concepts of the seven scenes, their harmless twins and ordinary things."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SCENES = ("alcohol", "cigarette", "gun", "knife", "bloody", "insulting-gesture", "porn-symbol")
"""The seven scenes of the text-guided alignment paper. The last one is a symbol only, the sign "no one under eighteen":
no picture shows anything, its name says so wherever it appears, and nothing here tests a model on pornography."""
SYMBOLIC = ("porn-symbol",)
"""The scenes of which that is so: they are reported, and left out of what all scenes give."""

TONES = {"light": "1F3FB", "medium-light": "1F3FC", "medium": "1F3FD", "medium-dark": "1F3FE", "dark": "1F3FF"}
"""Skin tones with their code points; pictures that differ in it alone are of one concept."""


@dataclass(frozen=True, slots=True)
class Concept:
    """One thing that is drawn in several styles.

    Attributes:
        code: its Unicode code point, in hex.
        caption: what it is called: the label of emojibase-data 17.0.0 (MIT), but "pistol" for the revolvers that share
            a code point with the water pistol, and "keycap 10" without the colon.
        article: of the caption in a sentence; "" for none.
        scene: one of `SCENES` that it is an instance or a twin of; None for ordinary things.
        twin_of: code of the instance that it is the harmless twin of; None for any other.
        known: whether captioning may be trained on it; if not, it is held out in every style.
        icon: what the Iconify collections call it.
        fluent: what the Fluent packages call it; "" where they lack it.
        fxemoji: what that collection calls it; "" where it lacks it.
        streamline: what that collection calls it; "" where it lacks it.
        not_in: styles that draw something else, or draw it without the colour that makes it what it is.
        tones: whether it is drawn in several skin tones.
    """

    code: str
    caption: str
    article: str
    scene: str | None
    twin_of: str | None
    known: bool
    icon: str
    fluent: str
    fxemoji: str
    streamline: str
    not_in: frozenset[str]
    tones: bool

    @property
    def phrase(self) -> str:
        """The caption with its article."""
        return f"{self.article} {self.caption}".strip()

    @property
    def slug(self) -> str:
        """The caption as a file name."""
        return self.caption.lower().replace(" ", "-")


@cache
def concepts() -> tuple[Concept, ...]:
    """All concepts: those of the scenes, scene by scene with their twins, then ordinary ones."""
    with (files("interp.scenes") / "data" / "concepts.csv").open("r", encoding="utf-8") as file:
        return tuple(
            Concept(
                code=row["code"],
                caption=row["caption"],
                article=row["article"],
                scene=row["scene"] or None,
                twin_of=row["twin_of"] or None,
                known=row["use"] == "known",
                icon=row["icon"],
                fluent=row["fluent"],
                fxemoji=row["fxemoji"],
                streamline=row["streamline"],
                not_in=frozenset(row["not_in"].split()),
                tones=row["tones"] == "yes",
            )
            for row in csv.DictReader(file)
        )
