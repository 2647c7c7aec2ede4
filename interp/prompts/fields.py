"""What the value of each field may be; a `FieldError` says why one may not."""

import unicodedata
from pathlib import PureWindowsPath
from reprlib import repr as shown

from interp.prompts.images import is_address
from interp.prompts.prompt import ROLES, Label, Message
from interp.prompts.strict_json import JsonError, StrictDecoder

LABEL_WORDS: dict[str, Label] = {
    "harmful": "harmful",
    "unsafe": "harmful",
    "toxic": "harmful",
    "malicious": "harmful",
    "harmless": "harmless",
    "safe": "harmless",
    "benign": "harmless",
}
LONGEST_ID = 200


class FieldError(ValueError):
    """A value its field can not have; the message is the reason."""


def string(field: str, value: object) -> str:
    """A string that can be written as UTF-8 and has no NUL character."""
    if not isinstance(value, str):
        raise FieldError(f"{field} must be a string, found {type(value).__name__}")
    if "\0" in value:
        raise FieldError(f"{field} has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise FieldError(f"{field} has the lone surrogate {half}, half of a character") from None
    return value


def instruction(field: str, value: object) -> str:
    """A string with something in it; chat control strings are text like any other."""
    text = string(field, value)
    if not text.strip():
        raise FieldError(f"{field} is empty or only whitespace")
    return text


def name(field: str, value: object) -> str:
    """A string, or a whole number written as one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return string(field, value)


def prompt_id(value: object) -> str:
    """A name that fits in a table and a message."""
    text = name("id", value)
    if not text.strip():
        raise FieldError("id is only whitespace")
    if len(text) > LONGEST_ID:
        raise FieldError(f"id {shown(text)} has {len(text)} characters; {LONGEST_ID} are allowed")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise FieldError(f"id {text!r} has a control character")
    return text


def label(value: object) -> Label:
    """The label that a word of some prompt set means, letter case aside."""
    word = string("label", value).strip().lower()
    if word not in LABEL_WORDS:
        raise FieldError(f"label {shown(value)} is none of {', '.join(LABEL_WORDS)}")
    return LABEL_WORDS[word]


def image(value: object) -> str:
    """The path of a picture as given, if it stays below the folder of the prompt file."""
    text = string("image", value)
    if is_address(text):
        raise FieldError(f"image {shown(text)} is an address; pictures are read from disk only, fetch it first")
    path = PureWindowsPath(text)  # knows / and \ and drive letters, on every system
    if path.anchor or ".." in path.parts:
        raise FieldError(f"image {shown(text)} must be a path below the folder of the prompt file")
    return text


def conversation(value: object) -> tuple[Message, ...]:
    """The turns of a list of {role, content}, given as a list or as its JSON text."""
    if isinstance(value, str):
        try:
            value = StrictDecoder().parse(value)
        except JsonError as error:
            raise FieldError(f"messages: {error}") from None
    if not isinstance(value, list):
        raise FieldError(f"messages must be a list of {{role, content}}, found {type(value).__name__}")
    turns = tuple(_turn(number, turn) for number, turn in enumerate(value, 1))
    if not turns or turns[-1].role != "user":
        raise FieldError("messages must end with one of the user")
    if any(turn.role == "system" for turn in turns[1:]):
        raise FieldError("only the first message may be of the system")
    instruction("the last message", turns[-1].content)
    return turns


def _turn(number: int, value: object) -> Message:
    if not isinstance(value, dict):
        raise FieldError(f"message {number} must be an object, found {type(value).__name__}")
    role = value.get("role")
    if role not in ROLES:
        raise FieldError(f"message {number} has the role {shown(role)}; it must be one of {', '.join(ROLES)}")
    return Message(role, string(f"content of message {number}", value.get("content")))
