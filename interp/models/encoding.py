"""From a prompt to token ids and named positions, by way of the model's own chat template.

Positions:
    image_mean, image_last: over the tokens that become the picture, wherever they stand; the last of them.
    caption_mean: over the tokens of the caption in the slot.
    t_inst: last token of the user's instruction.
    t_post: last token before the answer.
    all_post: every template token after the instruction; it expands to post_0, post_1, ... and t_post.
    response_first, response_last: first and last token of the prompt's response, which follows t_post.

A mean is one of states, taken in float32. Every token is of one class: image, caption, instruction, template, response.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from interp.errors import ModelError, UsageError
from interp.models.chat import Rendered, Span, render
from interp.models.pictures import Picture, PictureReader, Written, tokenizer_of
from interp.prompts.prompt import Prompt

SLOT_POSITIONS = {"image_mean": "image", "image_last": "image", "caption_mean": "caption"}
RESPONSE_POSITIONS = ("response_first", "response_last")
POSITIONS = (*SLOT_POSITIONS, "t_inst", "t_post", "all_post", *RESPONSE_POSITIONS)
CLASSES = ("image", "caption", "instruction", "template", "response")
GROUPS = (*CLASSES[:-1], "t_inst", "t_post")
"""What `Encoded.group` knows: the classes of a prompt's tokens, and single ones."""

_BREAK = "\ue000"
"""A private-use character, which no control token contains and no vocabulary joins with its neighbours."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt as the model sees it.

    Attributes:
        ids: the vocabulary ids, template included.
        at: the token index of every position asked for, of a mean the last index that it is over.
        control_free: how many chat control tokens were taken out of the user's text (0 for ordinary prompts).
        means: the token indices that each mean asked for is over.
        classes: the class of every token, see the head of this module.
        picture: what stands in the slot, if it is a picture.
    """

    ids: tuple[int, ...]
    at: dict[str, int]
    control_free: int = 0
    means: dict[str, tuple[int, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = field(default=(), repr=False)
    picture: Picture | None = None

    @property
    def first_read(self) -> int:
        """The lowest token index that any position needs."""
        return min((*self.at.values(), *(i for indices in self.means.values() for i in indices)))

    def of_class(self, name: str) -> tuple[int, ...]:
        """The indices of all tokens of a class."""
        return tuple(i for i, own in enumerate(self.classes) if own == name)

    def group(self, name: str) -> tuple[int, ...]:
        """The indices of a class, or that of ``t_inst`` or ``t_post`` where it was encoded with them."""
        return (self.at[name],) if name in self.at else self.of_class(name)


@dataclass(frozen=True, slots=True)
class Token:
    """A vocabulary id and the characters of the rendered text that it stands for."""

    id: int
    start: int
    end: int


class Encoder:
    """Encodes prompts for one model; what stands in a message or caption can never become a control token.

    Args:
        reader: the model's tokenizer, or the processor of a vision-language model, which holds one.
    """

    def __init__(self, reader: Any) -> None:
        self.tokenizer = tokenizer_of(reader)
        self.pictures = None if self.tokenizer is reader else PictureReader(reader)
        self.template = reader.chat_template or self.tokenizer.chat_template

    def encode(self, prompts: Iterable[Prompt], positions: Sequence[str]) -> list[Encoded]:
        """Encodes prompts at the positions asked for, see the head of this module.

        Raises:
            UsageError: for a position that does not exist, one in a response or slot where a prompt has none, or a
                picture for a model that reads none.
            ImageError: for a picture that can not be read.
            ModelError: for a prompt that the chat template refuses or rewrites, that is longer than the
                model's context, or whose template tail differs from the other prompts'.
        """
        for position in positions:
            if position not in POSITIONS:
                raise UsageError(f"unknown position {position!r}; choose from {', '.join(POSITIONS)}.")
        encoded = [self._encode(prompt, positions) for prompt in prompts]
        names = {tuple(e.at) for e in encoded}
        if len(names) > 1:
            raise ModelError(
                "the chat template puts different numbers of tokens after different instructions, so "
                f"all_post has no fixed meaning here: {sorted(names)}; ask for t_inst and t_post only."
            )
        return encoded

    def render(self, prompt: Prompt) -> Rendered:
        """The text of a prompt under the chat template, or the bare instruction where the model has none.

        Raises:
            ModelError: when the template refuses the conversation, drops a message or changes its text.
        """
        return self._render(prompt)[0]

    def _render(self, prompt: Prompt) -> tuple[Rendered, Written | None]:
        """The text of a prompt, in which the processor has written out its picture, and what else it gave."""
        if self.pictures is None:
            if prompt.image is not None:
                raise UsageError(
                    f"prompt {prompt.id!r} has a picture, but nothing that reads pictures was given: use a "
                    "vision-language model with its processor files, and hand on its processor, not its tokenizer."
                )
            return render(self.tokenizer, prompt, template=self.template), None
        if prompt.image is None and not self.pictures.reads_text:
            raise UsageError(f"prompt {prompt.id!r} has no picture, and this model reads none without one.")
        heard: list[Written] = []
        reader, path = self.pictures, prompt.image

        def expand(text: str) -> str:
            heard.append(reader.written(path, text))
            return heard[-1].text

        rendered = render(self.tokenizer, prompt, template=self.template, placeholder=reader.placeholder, expand=expand)
        # A processor has special tokens added where the text does not begin with one already.
        begun = self.tokenizer.bos_token is not None and rendered.text.startswith(self.tokenizer.bos_token)
        return replace(rendered, special=heard[-1].special and not begun), heard[-1]

    def _encode(self, prompt: Prompt, positions: Sequence[str]) -> Encoded:
        rendered, written = self._render(prompt)
        tokens, breaks = self._tokenize(prompt, rendered)
        classes = self._classes(tokens, rendered, beside=written is not None and written.crossing)
        instruction = [i for i, name in enumerate(classes) if name == "instruction"]
        if not instruction:
            raise ModelError(f"prompt {prompt.id!r}: its instruction is empty in this model's vocabulary.")
        response, more_breaks = self._response(prompt, rendered)
        ids = (*(token.id for token in tokens), *response)
        limit = self.tokenizer.model_max_length
        if limit is not None and len(ids) > limit:
            raise ModelError(f"prompt {prompt.id!r}: {len(ids)} tokens, the model reads {limit}; shorten it.")
        if not response and set(positions) & set(RESPONSE_POSITIONS):
            raise UsageError(f"prompt {prompt.id!r} has no response, so none of {', '.join(RESPONSE_POSITIONS)}.")
        classes += ["response"] * len(response)
        slots = {
            p: tuple(i for i, c in enumerate(classes) if c == SLOT_POSITIONS[p])
            for p in positions
            if p in SLOT_POSITIONS
        }
        for position, indices in slots.items():
            if not indices:
                raise UsageError(
                    f"prompt {prompt.id!r} has no {SLOT_POSITIONS[position]} in its slot, so no {position}."
                )
        places = _places(instruction[-1], len(tokens) - 1, len(ids) - 1, positions, slots)
        means = {position: indices for position, indices in slots.items() if position.endswith("_mean")}
        picture = self.pictures.picture(prompt, len(tokens)) if self.pictures and prompt.image else None
        return Encoded(ids, places, breaks + more_breaks, means, tuple(classes), picture)

    def _classes(self, tokens: Sequence[Token], rendered: Rendered, *, beside: bool) -> list[str]:
        """The class of every token: a token that two share is the caption's, and control tokens are the template's.

        With the picture ``beside`` the text, no token becomes it.
        """
        control = self._control_ids(rendered.frame)
        spans = [("caption", rendered.caption), ("instruction", rendered.instruction)]
        named = [(name, *span) for name, span in spans if span is not None]
        image = None if self.pictures is None or beside else self.pictures.image_id

        def of(token: Token) -> str:
            if token.id == image:
                return "image"
            for name, start, end in named:
                if start < token.end and token.start < end:
                    return "template" if self._is_control(token, rendered.text, control) else name
            return "template"

        return [of(token) for token in tokens]

    def _response(self, prompt: Prompt, rendered: Rendered) -> tuple[tuple[int, ...], int]:
        """The tokens of the response, tokenized by itself as a model writes it, and how many breaks it took."""
        text = prompt.response or ""
        if not text:
            return (), 0
        whole = (0, len(text))
        alone = Rendered(text, instruction=whole, spans=(whole,), frame=rendered.frame or ("",))
        tokens, breaks = self._tokenize(prompt, alone)
        return tuple(token.id for token in tokens), breaks

    def _tokenize(self, prompt: Prompt, rendered: Rendered) -> tuple[list[Token], int]:
        """The tokens of the whole text, and at how many places a control token in a message was broken.

        The text is tokenized in one piece, as the model was trained on it. A control token inside a message can
        only come from the message: a character put into it keeps the tokenizer from seeing it, and the tokens of
        that character are taken out again, so that everything else reads as it would anyway.
        """
        control = self._control_ids(rendered.frame)
        breaks: list[int] = []
        while True:
            tokens = self._tokens(rendered, breaks)
            forged = {
                place
                for token in tokens
                if self._is_control(token, rendered.text, control) and (place := _inside(token, rendered)) is not None
            }
            if not forged:
                return tokens, len(breaks)
            if forged <= set(breaks):
                raise ModelError(
                    f"prompt {prompt.id!r}: its text holds a control token of the model that the vocabulary can "
                    f"not write in any other way, near character {min(forged)} of {rendered.text!r}; reword it."
                )
            breaks = sorted({*breaks, *forged})

    def _tokens(self, rendered: Rendered, breaks: Sequence[int]) -> list[Token]:
        """The tokens of a text with a break at some places; starts and ends count without the breaks."""
        edges = [0, *breaks, len(rendered.text)]
        pieces = [rendered.text[a:b] for a, b in pairwise(edges)]
        found = self.tokenizer(
            _BREAK.join(pieces),
            add_special_tokens=rendered.special,
            return_offsets_mapping=True,
            truncation=False,
        )
        broken = [place + k for k, place in enumerate(breaks)]
        tokens: list[Token] = []
        reached = 0
        for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            # Some tokenizers trim white space off the offsets: a token of nothing else is then empty.
            begin = min(start, reached) if start == end else start
            reached = max(reached, end)
            first, last = (place - bisect_left(broken, place) for place in (begin, end))
            if first < last or begin == end:
                tokens.append(Token(token, first, last))
        return tokens

    def _is_control(self, token: Token, text: str, control: frozenset[int]) -> bool:
        """Whether a token controls the conversation; an unknown character is no control token."""
        unknown = token.id == self.tokenizer.unk_token_id
        return token.id in control and not (
            unknown and text[token.start : token.end].strip() != self.tokenizer.unk_token
        )

    @cached_property
    def _added(self) -> dict[int, Any]:
        return dict(self.tokenizer.added_tokens_decoder)

    def _control_ids(self, frame: tuple[str, ...]) -> frozenset[int]:
        """Special tokens, and added tokens that the template itself uses to mark turns."""
        marks = "".join((*frame, str(self.template))) if frame else ""
        return frozenset(i for i, t in self._added.items() if t.content.strip() and (t.special or t.content in marks))


def _inside(token: Token, rendered: Rendered) -> int | None:
    """Where to break a control token that stands in a message; None for one of the template's own.

    Control tokens may swallow white space around them, the template's from a message and the other way round, so
    only their core tells whose they are.
    """
    covered = rendered.text[token.start : token.end]
    start = token.end - len(covered.lstrip())
    end = token.start + len(covered.rstrip())
    span: Span | None = next((s for s in rendered.spans if start < s[1] and s[0] < end), None)
    return None if span is None else start + 1


def _places(
    t_inst: int, t_post: int, last: int, positions: Sequence[str], slots: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Token indices of the positions asked for; ``all_post`` ends with t_post: no state is stored twice."""
    single = {"t_inst": t_inst, "t_post": t_post, "response_first": t_post + 1, "response_last": last}
    single |= {position: indices[-1] for position, indices in slots.items()}
    places: dict[str, int] = {}
    for position in positions:
        if position == "all_post":
            places |= {f"post_{k}": i for k, i in enumerate(range(t_inst + 1, t_post))}
            position = "t_post"
        places[position] = single[position]
    return places
