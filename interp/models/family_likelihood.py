"""How likely a model's answer opens as the phrases of a refusal family do: whole openings, not first tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError, UsageError
from interp.models.continuation import Texts, read
from interp.models.encoding import Encoder
from interp.models.padding import in_batches
from interp.models.phrase_trie import PhraseTrie, compile_trie
from interp.models.pictures import tokenizer_of
from interp.prompts.families import RefusalFamily
from interp.prompts.prompt import Prompt

LOWEST = -30.0
"""The least log-likelihood reported, in nats: a probability of 1e-13, which no sampled answer will ever show."""


@dataclass(frozen=True, slots=True)
class FamilyMass:
    """The probability that a sampled answer begins with one of a family's openings, between two bounds.

    Attributes:
        families: their names, in the order of the columns.
        found: probability of the openings that were followed to their ends, 0 to 1, float64, on the CPU.
        cut: most that the openings given up can add, 0 to 1: the truth lies between ``found`` and ``found + cut``.
    """

    families: tuple[str, ...]
    found: Float[Tensor, "prompt family"]
    cut: Float[Tensor, "prompt family"]

    @property
    def log_likelihood(self) -> Float[Tensor, "prompt family"]:
        """The logarithm of ``found`` in nats, `LOWEST` to 0; `LOWEST` where nothing was found."""
        return self.found.log().clamp(min=LOWEST, max=0.0)


def family_log_likelihood(
    model: nn.Module,
    processor: Any,
    prompts: Iterable[Prompt],
    families: Sequence[RefusalFamily],
    *,
    floor: float = 1e-4,
    batch_size: int = 64,
) -> Float[Tensor, "prompt family"]:
    """Log-likelihood that a model's answer opens as a family's phrases do; arguments and errors as in `family_mass`.

    Returns:
        In nats, `LOWEST` to 0, float64, on the CPU: the lower bound of `FamilyMass`, never -inf. With a ``floor`` it
        is exact to within what `FamilyMass.cut` says, which is less than ``floor`` per branch given up.
    """
    return family_mass(model, processor, prompts, families, floor=floor, batch_size=batch_size).log_likelihood


def family_mass(
    model: nn.Module,
    processor: Any,
    prompts: Iterable[Prompt],
    families: Sequence[RefusalFamily],
    *,
    floor: float = 1e-4,
    batch_size: int = 64,
) -> FamilyMass:
    """The probability that a model's answer opens as a family's phrases do, by teacher forcing over their tokens.

    The tries of all families are walked as one, level by level, and a branch is followed while the probability of its
    tokens so far is at least ``floor``. Openings are those of `compile_trie`; probabilities are those of plain
    sampling at temperature 1.

    Args:
        model: a causal or vision-language model of transformers.
        processor: its fast tokenizer, or the processor of a model that is to see pictures.
        prompts: what is asked; encoded as for a harvest.
        families: refusal families, each a column of the result.
        floor: probability below which a branch is given up, 0 to 1 (exclusive); 0 follows all, which is exact and
            slow.
        batch_size: how many texts the model reads at once; the result does not depend on it beyond rounding.

    Raises:
        UsageError: for a floor or batch size out of range, or a family without a word.
        ModelError: for a prompt that can not be encoded or leaves the model no room for the openings, and for logits
            that are no numbers.
    """
    if not 0 <= floor < 1 or batch_size < 1:
        raise UsageError(f"floor {floor} and batch_size {batch_size}: give 0 <= floor < 1 and batch_size >= 1.")
    tokenizer = tokenizer_of(processor)
    tries = [compile_trie(tokenizer, family) for family in families]
    asked = [prompt.unanswered for prompt in prompts]
    found = Encoder(processor).encode(asked, ["t_post"])
    encoded, pictures = [e.ids for e in found], [e.picture for e in found]
    check_room(asked, encoded, tries, tokenizer.model_max_length)
    walk = _Walk.of(len(asked), tries, floor, batch_size)
    for chosen in in_batches([len(ids) for ids in encoded], pictures, batch_size) if walk.root.children else ():
        texts = read(model, [encoded[i] for i in chosen], [pictures[i] for i in chosen])
        walk.descend(texts, [_Place(i, walk.root, 1.0) for i in chosen])
    return walk.mass(families)


def openings_mass(
    texts: Texts, tokenizer: Any, families: Sequence[RefusalFamily], *, floor: float = 0.0, batch_size: int = 64
) -> FamilyMass:
    """As `family_mass`, of texts that were read already.

    Args:
        texts: prompts read to their ends.
        tokenizer: the model's.
        families: refusal families, each a column of the result.
        floor: as of `family_mass`.
        batch_size: how many texts grow at once.
    """
    n = len(texts.next_log_probs)
    walk = _Walk.of(n, [compile_trie(tokenizer, family) for family in families], floor, batch_size)
    if walk.root.children:
        walk.descend(texts, [_Place(i, walk.root, 1.0) for i in range(n)])
    return walk.mass(families)


@dataclass(slots=True)
class _Branch:
    """A node of the merged tries, behind some tokens.

    Attributes:
        children: the branch behind each next token.
        ends: columns of the families of which this is an opening.
        beyond: columns of the families with openings further on; never one of ``ends``, as tries are prefix-free.
    """

    children: dict[int, "_Branch"] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    beyond: set[int] = field(default_factory=set)

    @property
    def only_way(self) -> tuple[int, ...] | None:
        """The tokens to the end of the openings where nothing branches any more; else None."""
        tokens: list[int] = []
        branch = self
        while branch.children:
            if len(branch.children) > 1:
                return None
            ((token, branch),) = branch.children.items()
            tokens.append(token)
        return tuple(tokens)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a text stands: the row of its prompt, the branch, and the probability of the tokens up to there."""

    prompt: int
    branch: _Branch
    probability: float


@dataclass(frozen=True, slots=True)
class _Walk:
    """The walk over the merged tries, and the probability that it found and cut, by prompt and family."""

    root: _Branch
    floor: float
    batch_size: int
    found: list[list[float]]
    cut: list[list[float]]

    @classmethod
    def of(cls, prompts: int, tries: Sequence[PhraseTrie], floor: float, batch_size: int) -> "_Walk":
        """A walk that has not begun."""
        found, cut = ([[0.0] * len(tries) for _ in range(prompts)] for _ in range(2))
        return cls(_merged(tries), floor, batch_size, found, cut)

    def mass(self, families: Sequence[RefusalFamily]) -> FamilyMass:
        """What was found so far."""
        # Rounding may lift a sum of probabilities a little above 1.
        shape = (2, len(self.found), len(families))
        sums = torch.tensor([self.found, self.cut], dtype=torch.float64).reshape(shape).clamp(max=1.0)
        return FamilyMass(tuple(family.name for family in families), sums[0], sums[1])

    def descend(self, texts: Texts, places: Sequence[_Place]) -> None:
        """Follows the branches behind some texts; ``places`` says where each of their rows stands."""
        going: list[tuple[int, int, _Place]] = []
        ending: list[tuple[int, tuple[int, ...], _Place]] = []
        for row, place in enumerate(places):
            tokens = list(place.branch.children)
            nexts = texts.next_log_probs[row, torch.tensor(tokens)].double().exp() * place.probability
            for token, probability in zip(tokens, nexts.tolist(), strict=True):
                branch = place.branch.children[token]
                _add(self.found[place.prompt], branch.ends, probability)
                if probability < self.floor:
                    _add(self.cut[place.prompt], branch.beyond, probability)
                elif branch.children:
                    reached, way = _Place(place.prompt, branch, probability), branch.only_way
                    if way is None:
                        going.append((row, token, reached))
                    else:
                        ending.append((row, (token, *way), reached))
        for start in range(0, len(ending), self.batch_size):
            rows, sequences, places_of = zip(*ending[start : start + self.batch_size], strict=True)
            for place, told in zip(places_of, texts.foretold(rows, sequences), strict=True):
                self._finish(place, told.double().exp().tolist())
        for start in range(0, len(going), self.batch_size):
            rows, followed, places_of = zip(*going[start : start + self.batch_size], strict=True)
            self.descend(texts.grown(rows, followed), places_of)

    def _finish(self, place: _Place, likelihoods: Sequence[float]) -> None:
        """Follows the only way from a place to the end of its openings; of each token on it, how likely it is."""
        branch, probability = place.branch, place.probability
        for likelihood in likelihoods:
            (branch,) = branch.children.values()
            probability *= likelihood
            _add(self.found[place.prompt], branch.ends, probability)
            if probability < self.floor:
                _add(self.cut[place.prompt], branch.beyond, probability)
                return


def _add(sums: list[float], columns: Iterable[int], probability: float) -> None:
    for column in columns:
        sums[column] += probability


def _merged(tries: Sequence[PhraseTrie]) -> _Branch:
    """All tries as one, so that what families share is run once."""
    root = _Branch()
    for column, trie in enumerate(tries):
        for sequence in trie.sequences:
            branch = root
            for token in sequence:
                branch.beyond.add(column)
                branch = branch.children.setdefault(token, _Branch())
            branch.ends.append(column)
    return root


def check_room(
    prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]], tries: Sequence[PhraseTrie], limit: int | None
) -> None:
    """Checks that every prompt leaves the model room for the openings.

    Args:
        prompts: what is asked.
        encoded: their token ids.
        tries: the openings.
        limit: how many tokens the model reads; None for no limit.

    Raises:
        ModelError: naming the first prompt that does not.
    """
    # The last token of an opening is only looked up, never read.
    depth = max((len(s) - 1 for trie in tries for s in trie.sequences), default=0)
    for prompt, ids in zip(prompts, encoded, strict=True):
        if limit is not None and len(ids) + depth > limit:
            raise ModelError(
                f"prompt {prompt.id!r}: {len(ids)} tokens leave no room for the {depth} of the longest opening; the "
                f"model reads {limit}. Shorten it."
            )
