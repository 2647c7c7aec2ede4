"""The two layers between the tower and the language model."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Projector(nn.Module):
    """Two linear layers with a GELU between, on standardised features: what `multi_modal_projector` is once folded.

    Attributes:
        linear_1: from features to hidden units.
        linear_2: from hidden units to the language model's embedding space.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear_1 = nn.Linear(features, width)
        self.linear_2 = nn.Linear(width, width)

    def standardise(self, examples: Float[Tensor, "*batch token feature"]) -> None:
        """Takes mean and standard deviation of each feature from examples."""
        flat = examples.float().flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(flat.std(0).clamp_min(1e-6))

    def hidden(
        self, features: Float[Tensor, "*batch token feature"], noise: float = 0.0
    ) -> Float[Tensor, "*batch token width"]:
        """The hidden units; ``noise`` is added to the standardised features."""
        standard = (features.float() - self.mean) / self.scale
        if noise:
            standard = standard + noise * torch.randn_like(standard)
        return nn.functional.gelu(self.linear_1(standard))

    def forward(
        self, features: Float[Tensor, "*batch token feature"], noise: float = 0.0
    ) -> Float[Tensor, "*batch token width"]:
        """Image tokens as the language model reads them."""
        projected: Tensor = self.linear_2(self.hidden(features, noise))
        return projected

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """The weights under the names of transformers, with the standardisation folded into the first layer."""
        weight = self.linear_1.weight / self.scale
        return {
            "linear_1.weight": weight.contiguous(),
            "linear_1.bias": self.linear_1.bias - weight @ self.mean,
            "linear_2.weight": self.linear_2.weight.detach().clone(),
            "linear_2.bias": self.linear_2.bias.detach().clone(),
        }


class FrozenReader:
    """A frozen language model that reads image tokens where the picture stands, and names it.

    What stands before the picture is the same for every prompt, so its keys and values are computed once.
    """

    def __init__(self, model: Any, before: list[int], after: list[list[int]], answers: list[list[int]]) -> None:
        """Takes a causal language model, the ids before the picture, after it (per question) and of each answer."""
        self.model = model.requires_grad_(False).eval()
        self.after, self.answers = after, answers
        with torch.no_grad():
            cache = model.model(input_ids=torch.tensor([before]), use_cache=True).past_key_values
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]

    def log_probs(
        self, tokens: Float[Tensor, "batch token width"], question: int, names: list[int]
    ) -> tuple[Float[Tensor, "kept vocabulary"], Tensor, Tensor]:
        """Log-probabilities at every token of the right answers.

        Args:
            tokens: image tokens of each picture.
            question: which question is asked.
            names: the right answer of each picture.

        Returns:
            (kept token, vocabulary) log-probabilities, the (kept token) right ids, and the row each belongs to.
        """
        from transformers import DynamicCache

        embed, after = self.model.get_input_embeddings(), self.after[question]
        rows = [self.answers[name] for name in names]
        width = max(map(len, rows))
        ids = torch.tensor([[*after, *row, *[row[-1]] * (width - len(row))] for row in rows])
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self._layers):
            cache.update(*(x.expand(len(rows), -1, -1, -1) for x in (keys, values)), number)
        inputs = torch.cat([tokens, embed(ids[:, :-1])], dim=1)
        states = self.model.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state
        start = tokens.shape[1] + len(after) - 1  # the state before the answer predicts its first token
        targets = ids[:, len(after) :]
        kept = torch.arange(width)[None, :] < torch.tensor([len(r) for r in rows])[:, None]
        logits = self.model.get_output_embeddings()(states[:, start : start + width][kept])
        row = torch.arange(len(rows))[:, None].expand_as(kept)[kept]
        return torch.log_softmax(logits.float(), -1), targets[kept], row
