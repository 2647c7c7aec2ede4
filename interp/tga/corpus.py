"""The texts that can be retrieved: captions and short descriptions, each once."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from interp.errors import UsageError
from interp.prompts.duplicates import normalised


@dataclass(frozen=True)
class Corpus:
    """Texts in order, no two of which are the same but for case, spaces and punctuation.

    Attributes:
        texts: as they were given.
        origins: where each comes from, such as captions or harmful.
    """

    texts: tuple[str, ...]
    origins: tuple[str, ...]

    @classmethod
    def of(cls, sources: Mapping[str, Sequence[str]]) -> "Corpus":
        """Puts texts together; of texts that are the same but for their form the first is kept.

        Args:
            sources: texts by where they come from. Earlier ones win.

        Raises:
            UsageError: when fewer than two different texts are left; a caption needs another text beside it.
        """
        kept: dict[str, tuple[str, str]] = {}
        for origin, texts in sources.items():
            for text in texts:
                kept.setdefault(normalised(text), (text.strip(), origin))
        kept.pop("", None)
        if len(kept) < 2:
            raise UsageError(
                f"{len(kept)} different texts are there; give at least 2, for no caption is given back to itself."
            )
        texts, origins = zip(*kept.values(), strict=True)
        return cls(texts, origins)

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """sha256 over texts and origins in order."""
        digest = hashlib.sha256()
        for text, origin in zip(self.texts, self.origins, strict=True):
            for part in (text.encode(), origin.encode()):
                digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()
