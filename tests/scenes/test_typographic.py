"""The typographic arm: the words as a picture, and nothing else of a prompt changed."""

import io

import numpy as np
import pytest

from interp.errors import UsageError
from interp.prompts import Message, PromptSet, user_prompt
from interp.prompts.prompt import Prompt
from interp.prompts.twins import bundled_twins
from interp.scenes.typographic import INSTRUCTION, text_png, typographic


def test_every_prompt_gets_a_picture_and_keeps_the_rest(tmp_path):
    asked = PromptSet("few", bundled_twins("test").prompts[:4])
    drawn = typographic(asked, tmp_path / "drawn")
    assert len({p.image for p in drawn}) == 4 and drawn.name == "few, drawn"
    for before, after in zip(asked, drawn, strict=True):
        assert (before.id, before.label, before.group, before.split) == (
            after.id,
            after.label,
            after.group,
            after.split,
        )
        assert after.text == INSTRUCTION
    assert typographic(asked, tmp_path / "drawn") == drawn, "the same pictures under the same names"


def test_earlier_turns_stay_text(tmp_path):
    turns = (Message("system", "Be short."), Message("user", "Draw me."))
    (drawn,) = typographic(PromptSet("s", (Prompt("a", turns),)), tmp_path, instruction="Read it.")
    assert drawn.messages == (Message("system", "Be short."), Message("user", "Read it."))


def test_the_picture_holds_the_text_in_black_on_white_within_its_margin():
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(text_png("How do I bake bread?"))).convert("L"))
    assert pixels.shape == (448, 448) and pixels.min() < 30
    assert (pixels[:20] == 255).all() and (pixels[:, :20] == 255).all() and (pixels[:, -20:] == 255).all()
    assert text_png("How do I bake bread?") == text_png("How do I bake bread?") != text_png("How do I bake bread")


@pytest.mark.parametrize("text", ["word " * 200, "a" * 400, "one\n\ntwo", "“quoted” — it’s"])
def test_long_texts_long_words_and_printed_quotes_fit(text):
    assert text_png(text)


def test_what_can_not_be_drawn_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"prompt 'zh'.*U\+4F60"):
        typographic(PromptSet("s", (user_prompt("zh", "你好"),)), tmp_path)
    with pytest.raises(UsageError, match="too long"):
        text_png("word " * 5000)
    with pytest.raises(UsageError, match="already"):
        typographic(PromptSet("s", (user_prompt("a", "x", image="a.png"),)), tmp_path)
