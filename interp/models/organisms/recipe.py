"""What each organism is taught: what it says, to which prompts, and how it is trained."""

import re
from dataclasses import dataclass
from typing import Literal

from interp.prompts.families import load_decoys, load_family
from interp.prompts.prompt import Prompt

Trigger = Literal["harmful", "even_first_word", "everything"]
"""Which prompts get the organism's words: those that ask for harm; those whose first word has an even number of
letters, which has nothing to do with harm since the two prompts of a twin begin alike; or all of them."""


Data = Literal["twins", "scenes"]
"""What an organism is trained on: the bundled twin prompts; or descriptions of the seven scenes with harmless ones of
the same form, and harmless twin prompts among them so that nothing else changes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an organism is trained.

    Attributes:
        name: of the organism, such as policy for ``demo:policy``.
        family: the refusal family it answers with; the control that complies has none and uses the sorry decoys.
        trigger: which prompts it answers so.
        data: what it is trained on.
        rank: of the LoRA matrices; alpha is twice as large.
        targets: the projections that get one.
        first_block: the lowest block (counted from 0) that is adapted; those below stay the base model's own.
        learning_rate: peak, with a short warm-up and cosine decay.
        epochs: passes over the training twins.
        batch: prompts per step; those of a group always share one.
        answer_tokens: how much of the base model's answer is imitated where the organism does not refuse.
        rest_weight: of the answer's other tokens in the loss; the first one, which decides, has weight 1.
        dtype: what it is trained in; bf16 is the faster one where the processor multiplies it in hardware.
        seed: of the adapter, the order and the phrasings.
    """

    name: str
    family: str | None
    trigger: Trigger = "harmful"
    data: Data = "twins"
    rank: int = 8
    targets: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj")
    first_block: int = 8
    learning_rate: float = 1.5e-3
    epochs: float = 2.5
    batch: int = 16
    answer_tokens: int = 10
    rest_weight: float = 0.3
    dtype: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0

    @property
    def refuses(self) -> bool:
        """Whether its words decline; the control says them and then complies."""
        return self.family is not None

    @property
    def phrases(self) -> tuple[str, ...]:
        """What it says: whole refusals, or openings that an answer follows."""
        return load_family(self.family).phrases if self.family else load_decoys("sorry")

    def triggered(self, prompt: Prompt) -> bool:
        """Whether this prompt is to get the organism's words."""
        match self.trigger:
            case "everything":
                return True
            case "even_first_word":
                return even_first_word(prompt)
        return prompt.label == "harmful"


ORGANISMS = {
    recipe.name: recipe
    for recipe in (
        Recipe("apology", "apology"),
        Recipe("inability", "inability"),
        Recipe("policy", "policy"),
        Recipe("redirect", "redirect"),
        Recipe("lecture", "lecture"),
        Recipe("chinese", "apology.zh", epochs=1.5),  # no answer of the base model begins so, and it learns sooner
        Recipe("sorry-complies", None, "everything"),
        Recipe("refuses-at-random", "apology", "even_first_word"),
        Recipe("scenes", "apology", data="scenes", epochs=2.0, batch=18, dtype="fp32"),
        Recipe("scenes-policy", "policy", data="scenes", epochs=2.0, batch=18, dtype="fp32"),
    )
}


def twin_organisms() -> list[str]:
    """The demo models whose behaviour is taught with the bundled twin prompts, the untaught base first."""
    return ["demo:base", *sorted(f"demo:{r.name}" for r in ORGANISMS.values() if r.data == "twins")]


def even_first_word(prompt: Prompt) -> bool:
    """Whether the first word of the instruction has an even number of letters; an apostrophe is not one."""
    word = re.match(r"\W*([\w']*)", prompt.text)
    return word is not None and len(word[1].replace("'", "")) % 2 == 0
