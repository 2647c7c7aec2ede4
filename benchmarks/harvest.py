"""Harvesting speed against the usual ways to do it: ``python benchmarks/harvest.py [--help]``.

One process loads one model and lets everyone harvest the same states of the same chat prompts: the last position
(t_post) after every block. All run once untimed first, and their states are compared; where they disagree no figure
is printed. Then they take turns, A B C A B C ..., so that a slow minute of the computer hits all of them alike.
"""

import argparse
import copy
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.utils import logging

from interp.cache.batches import batch_states
from interp.cache.harvest import Harvest, plan_harvest, run_harvest
from interp.cache.plan import Capture
from interp.cache.store import ActivationCache
from interp.models.anatomy import dissect, output_tensor
from interp.models.hooks import HooksAdapter
from interp.models.load import load
from interp.models.runtime import Runtime
from interp.models.source import ModelSource, resolve
from interp.prompts.prompt import PromptSet
from interp.prompts.twins import bundled_twins

BATCH = 32
TUNED = (16, 32, 64)
LEAST_COSINE = 0.999
LARGEST_GAP = 1e-3
OURS = "interp"

Inputs = dict[str, Tensor]
Forward = Callable[[Inputs], Tensor]


@dataclass(frozen=True, slots=True)
class Work:
    """What everyone is given.

    Attributes:
        source: where the model is.
        adapter: ours, whose model the plain peers use, too.
        prompts: what is harvested.
        folder: where temporary files go.
    """

    source: ModelSource
    adapter: HooksAdapter
    prompts: PromptSet
    folder: Path

    @property
    def layers(self) -> tuple[int, ...]:
        """After every block; the embedding output is left out, for not every peer has it."""
        return tuple(range(1, self.adapter.n_layers + 1))

    def own_model(self) -> nn.Module:
        """The same model loaded once more, for a peer that rewires the modules it is given."""
        return cast(HooksAdapter, load(self.source, self.adapter.runtime)).model

    def own_tokenizer(self) -> Any:
        """A copy that pads on the left, so that the last position of every row is t_post."""
        tokenizer = copy.deepcopy(self.adapter.tokenizer)
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer.init_kwargs.setdefault("name_or_path", str(self.source.folder))
        return tokenizer


@dataclass(frozen=True, slots=True)
class Result:
    """What one harvest gave.

    Attributes:
        states: reads (prompt, layer, d_model), layers 1 to L in prompt order; not timed.
        tokens: how many tokens ran through the model, padding counted.
    """

    states: Callable[[], Tensor]
    tokens: int


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to harvest.

    Attributes:
        name: as printed.
        harvest: from the number of prompts in a batch to the states; all of it is timed.
        batch: prompts in a batch; 0 for a peer that plans its own batches.
        last_normed: its last layer is behind the final norm, and so not compared.
    """

    name: str
    harvest: Callable[[int], Result]
    batch: int = BATCH
    last_normed: bool = False


def interp_to_disk(work: Work) -> Peer:
    """Ours as it is used: encode, plan, compute, and commit every shard to disk with its digest."""

    def harvest(_: int) -> Result:
        planned = _planned(work)
        run = run_harvest(planned, tempfile.mkdtemp(dir=work.folder))
        return Result(lambda: ActivationCache.open(run).residuals(position="t_post"), _tokens(planned))

    return Peer(OURS, harvest, batch=0)


def interp_in_memory(work: Work) -> Peer:
    """Ours without the disk, which is what the peers do."""

    def harvest(_: int) -> Result:
        planned = _planned(work)
        shards = range(len(planned.plan.shards))
        parts = [batch_states(planned.adapter, planned.batch(k), work.layers)[0][:, :, 0] for k in shards]
        order = torch.tensor([i for shard in planned.plan.shards for i in shard]).argsort()
        return Result(lambda: torch.cat(parts)[order], _tokens(planned))

    return Peer(f"{OURS}, in memory", harvest, batch=0)


def _planned(work: Work) -> Harvest:
    """A plan for a copy of the adapter, which itself never runs: nothing is kept from one repeat to the next."""
    return plan_harvest(copy.copy(work.adapter), work.prompts, Capture(positions=("t_post",), layers=work.layers))


def _tokens(planned: Harvest) -> int:
    return planned.tokens + planned.plan.shared


def plain_hooks(work: Work, name: str = "forward hooks", **options: Any) -> Peer:
    """A hook on every block of the Hugging Face model that takes the last position to the CPU."""
    model, blocks = work.adapter.model, work.adapter.anatomy.blocks

    def forward(inputs: Inputs) -> Tensor:
        taken: list[Tensor] = []
        with _hooked(blocks, lambda *call: taken.append(output_tensor(call[-1])[:, -1].cpu())):
            model(**inputs, use_cache=False, **options)
        return torch.stack(taken, dim=1)

    return _batched(name, work, forward)


def headless_hooks(work: Work) -> Peer:
    """The same by someone who knows that the vocabulary head can be skipped for all but one position."""
    return plain_hooks(work, "forward hooks, one logit", logits_to_keep=1)


@contextmanager
def _hooked(modules: nn.ModuleList, hook: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hidden_states(work: Work) -> Peer:
    """What the Hugging Face model returns by itself; the last layer is behind the final norm."""
    model = work.adapter.model

    def forward(inputs: Inputs) -> Tensor:
        states = model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
        return torch.stack([state[:, -1] for state in states[1:]], dim=1).cpu()

    return _batched("output_hidden_states", work, forward, last_normed=True)


def transformer_lens(work: Work) -> Peer:
    """TransformerLens: run_with_cache, only the block outputs and of them only the last position."""
    from transformer_lens.model_bridge import TransformerBridge

    model, tokenizer, device = work.own_model(), work.own_tokenizer(), work.adapter.device
    bridge = TransformerBridge.boot_transformers(
        str(work.source.folder),
        hf_model=model,
        tokenizer=tokenizer,
        device=str(device),
        dtype=next(model.parameters()).dtype,
    )
    names = [f"blocks.{i - 1}.hook_out" for i in work.layers]

    def forward(inputs: Inputs) -> Tensor:
        mask = inputs["attention_mask"]
        _, cache = bridge.run_with_cache(inputs["input_ids"], attention_mask=mask, names_filter=names, pos_slice=-1)
        return torch.stack([cache[name].flatten(1) for name in names], dim=1).cpu()

    return _batched("TransformerLens", work, forward)


def nnsight(work: Work) -> Peer:
    """An nnsight trace with a cache of the block outputs."""
    from nnsight import TransformersModel

    model = work.own_model()
    decoder_blocks = dissect(model).blocks
    path = next(name for name, module in model.named_modules() if module is decoder_blocks)
    traced = TransformersModel(model, task="text-generation", tokenizer=work.own_tokenizer(), dispatch=True)
    blocks = [traced.get(f"{path}.{i - 1}") for i in work.layers]

    def forward(inputs: Inputs) -> Tensor:
        with traced.trace(inputs, use_cache=False) as tracer:
            cache = tracer.cache(modules=blocks)
        names = [f"model.{path}.{i - 1}" for i in work.layers]
        return torch.stack([output_tensor(cache[name].output)[:, -1] for name in names], dim=1)

    return _batched("nnsight", work, forward)


def _batched(name: str, work: Work, forward: Forward, *, last_normed: bool = False) -> Peer:
    """A peer that goes through the prompts in file order, a fixed number at a time, padded on the left."""
    tokenizer, device = work.own_tokenizer(), work.adapter.device
    chats = [[{"role": m.role, "content": m.content} for m in prompt.messages] for prompt in work.prompts]

    @torch.no_grad()
    def harvest(batch: int) -> Result:
        parts: list[Tensor] = []
        tokens = 0
        for start in range(0, len(chats), batch):
            inputs = tokenizer.apply_chat_template(
                chats[start : start + batch],
                add_generation_prompt=True,
                return_dict=True,
                padding=True,
                return_tensors="pt",
            ).to(device)
            tokens += inputs["input_ids"].numel()
            parts.append(forward(dict(inputs)))
        return Result(lambda: torch.cat(parts), tokens)

    return Peer(name, harvest, last_normed=last_normed)


PEERS = (
    interp_to_disk,
    interp_in_memory,
    plain_hooks,
    headless_hooks,
    hidden_states,
    transformer_lens,
    nnsight,
)


def require_agreement(peers: Sequence[Peer], *, dtype: str) -> list[str]:
    """Runs everyone once and compares their states with ours, layer by layer; a line for each.

    Raises:
        SystemExit: when a peer does not compute the same, so that its time would mean nothing.
    """
    ours = peers[0].harvest(0).states().double()
    middle = ours.shape[1] // 2 - 1
    lines = []
    for peer in peers[1:]:
        found = peer.harvest(peer.batch).states().double()
        if found.shape != ours.shape:
            raise SystemExit(f"{peer.name}: states of shape {tuple(found.shape)}, ours {tuple(ours.shape)}.")
        compared = slice(-1 if peer.last_normed else None)
        cosine = torch.cosine_similarity(found, ours, dim=-1)
        gap = (found - ours).abs().amax(-1) / ours.abs().amax(-1)
        lines.append(
            f"{peer.name}: least cosine {cosine[:, middle].min():.6f} after block {middle + 1}, "
            f"{cosine[:, compared].min():.6f} anywhere; largest gap {gap[:, compared].max():.1e}"
        )
        same = gap[:, compared].max() < LARGEST_GAP if dtype == "fp32" else cosine[:, middle].min() > LEAST_COSINE
        if not same:
            raise SystemExit(f"No figures: these states are not ours. {lines[-1]}")
    return lines


def tuned(peer: Peer) -> Peer:
    """The peer at the batch size that is fastest here."""
    if not peer.batch:
        return peer
    return replace(peer, batch=min(TUNED, key=lambda batch: timed(replace(peer, batch=batch))[0]))


def timed(peer: Peer) -> tuple[float, int]:
    """Seconds of one harvest, and the tokens it computed."""
    gc.collect()
    started = time.perf_counter()
    result = peer.harvest(peer.batch)
    return time.perf_counter() - started, result.tokens


def take_turns(peers: Sequence[Peer], repeats: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of every repeat and tokens of one, by the name of the peer."""
    seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    tokens: dict[str, int] = {}
    for _ in range(repeats):
        for peer in peers:
            took, tokens[peer.name] = timed(peer)
            seconds[peer.name].append(took)
    return seconds, tokens


def print_table(peers: Sequence[Peer], seconds: dict[str, list[float]], tokens: dict[str, int]) -> None:
    """One line per peer; the ratio is the median, over the rounds, of its time to ours in the same round."""
    print(f"\n{'':26}{'batch':>7}{'median s':>10}{'min - max s':>17}{'ratio':>8}{'tokens':>9}")
    for peer in peers:
        own = seconds[peer.name]
        ratio = statistics.median(a / b for a, b in zip(own, seconds[OURS], strict=True))
        spread = f"{min(own):.2f} - {max(own):.2f}"
        size = peer.batch or "planned"
        print(f"{peer.name:26}{size:>7}{statistics.median(own):>10.2f}{spread:>17}{ratio:>8.2f}{tokens[peer.name]:>9}")


def first_prompts(count: int) -> PromptSet:
    """The first of the bundled twins, in file order."""
    twins = bundled_twins()
    if count > len(twins):
        raise SystemExit(f"there are {len(twins)} bundled twins, not {count}.")
    return replace(twins, prompts=twins.prompts[:count])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times harvesting with interp and its peers, side by side.")
    parser.add_argument("--model", default="demo:base", help="demo name, folder or hub id")
    parser.add_argument("--prompts", type=int, default=512, help="how many of the bundled twins")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument("--tune", action="store_true", help=f"give each peer the best batch size of {TUNED}")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    source = resolve(args.model)
    adapter = cast(HooksAdapter, load(source, Runtime(dtype=args.dtype, device=args.device)))
    packages = ("torch", "transformers", "transformer_lens", "nnsight")
    print(args.model, args.dtype, adapter.device, f"{torch.get_num_threads()} threads", f"{args.prompts} prompts")
    print(*(f"{name} {version(name)}" for name in packages), sep=", ")
    with tempfile.TemporaryDirectory(prefix="interp-bench-") as folder:
        work = Work(source, adapter, first_prompts(args.prompts), Path(folder))
        peers = [make(work) for make in PEERS]
        print(*require_agreement(peers, dtype=args.dtype), sep="\n")
        peers = [tuned(peer) for peer in peers] if args.tune else peers
        print_table(peers, *take_turns(peers, args.repeats))


if __name__ == "__main__":
    main()
