"""Probes of many sites at once against a loop of scikit-learn: ``python benchmarks/probes.py [--help]``.

One logistic regression for every layer, position, fold and penalty. All see the same standardised states in float32,
the same folds and the same objective. Their held-out AUROC is compared with that of scikit-learn run to convergence;
where ours is off no figure is printed. Then they take turns, so that a slow minute hits all of them alike.
"""

# ruff: noqa: E402 - the path is set right before the imports that need it

import argparse
import gc
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# This file has the name of the package it times, and Python looks beside a script first.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from interp.cache import ActivationCache
from interp.metrics import auroc
from probes.logistic import fit_logistic
from probes.splits import Folds, by_group
from probes.sweep import PENALTIES, standardised

FOLDS = 5
LAYERS, POSITIONS = 30, 4
PAIRS, WIDTH = 1092, 576
MASSIVE, DECAY = 0.4, 1.5
LARGEST_GAP = 0.002
CHECKED = 6
OURS = "interp"
DEFAULT, TIGHT, CONVERGED = 1e-4, 1e-5, 1e-8
"""scikit-learn's own tolerance, one that makes its AUROC about as exact as ours, and one for the truth."""

Found = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Work:
    """What everyone is given.

    Attributes:
        states: (site, row, d) standardised, float32.
        target: (row,) the class of every row.
        folds: who is trained on, who chooses the penalty, who is tested.
        name: of the data, as printed.
    """

    states: Tensor
    target: np.ndarray
    folds: Folds
    name: str

    @property
    def trained(self) -> Tensor:
        """(row, fold) the rows a probe is fitted on."""
        return torch.from_numpy(np.stack([self.folds.trained(k) for k in range(FOLDS)], axis=1))

    @property
    def penalty(self) -> Tensor:
        """(fold * penalty,) lambda of every column, the penalties of a fold side by side."""
        return (self.trained.sum(0)[:, None] * torch.tensor(PENALTIES)).flatten()


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to fit all probes.

    Attributes:
        name: as printed.
        fit: from the sites to directions (site, d, column) and biases (site, column); all of it is timed.
        threads: of the linear algebra, 0 for as many as there are.
        sites: how many sites are fitted, evenly spread; the time is scaled up.
    """

    name: str
    fit: Callable[[Tensor], Found]
    threads: int
    sites: int


def ours(work: Work) -> Callable[[Tensor], Found]:
    """All sites, folds and penalties in one call."""
    weights = work.trained.float().repeat_interleave(len(PENALTIES), dim=1)[None]
    target = torch.tensor(work.target).float()[None, :, None]

    def fit(states: Tensor) -> Found:
        return fit_logistic(states, target, weights, work.penalty)

    return fit


def loop(work: Work, *, tolerance: float = DEFAULT, double: bool = False) -> Callable[[Tensor], Found]:
    """One regression after the other, with its default solver."""
    trained, penalty = work.trained.numpy(), work.penalty.tolist()

    def fit(states: Tensor) -> Found:
        directions = torch.empty(len(states), states.shape[-1], len(penalty))
        biases = torch.empty(len(states), len(penalty))
        for site, rows in enumerate(states.numpy().astype(np.float64 if double else np.float32, copy=False)):
            for fold in range(FOLDS):
                x, y = rows[trained[:, fold]], work.target[trained[:, fold]]
                for column in range(fold * len(PENALTIES), (fold + 1) * len(PENALTIES)):
                    model = LogisticRegression(C=1 / penalty[column], tol=tolerance, max_iter=10_000).fit(x, y)
                    directions[site, :, column] = torch.from_numpy(model.coef_[0])
                    biases[site, column] = float(model.intercept_[0])
        return directions, biases

    return fit


def held_out(work: Work, states: Tensor, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (site, fold, penalty) on the rows that choose, and on those that are tested."""
    directions, biases = found
    scores = (torch.bmm(states, directions) + biases.unsqueeze(1)).double().numpy()
    shape = (len(states), FOLDS, len(PENALTIES))
    chosen_on, tested_on = np.empty(shape), np.empty(shape)
    for site, fold, k in np.ndindex(shape):
        column = scores[site, :, fold * len(PENALTIES) + k]
        for rows, into in ((work.folds.validated(fold), chosen_on), (work.folds.tested(fold), tested_on)):
            into[site, fold, k] = float(auroc(column[rows], work.target[rows])[0])
    return chosen_on, tested_on


def require_agreement(work: Work, peers: Sequence[Peer]) -> list[str]:
    """Runs everyone once and compares them with scikit-learn run to convergence in float64; a line for each.

    Raises:
        SystemExit: when our AUROC is off, so that our time would mean nothing.
    """
    some = spread(work.states, min(CHECKED, len(work.states)))
    chosen_on, true = held_out(work, some, loop(work, tolerance=CONVERGED, double=True)(some))
    place = strongest_best(chosen_on)
    best = np.take_along_axis(true, place, -1)
    shares = ", ".join(f"{np.mean(place == k):.0%} at {p:g}" for k, p in enumerate(PENALTIES))
    lines = [f"converged, {len(some)} sites: AUROC {best.min():.3f} to {best.max():.3f}, penalties chosen: {shares}"]
    agreed = True
    for peer in peers:
        own_chosen_on, own = held_out(work, some, peer.fit(some))
        gap = np.abs(np.take_along_axis(own, place, -1) - best).max()
        other = np.abs(np.take_along_axis(own, strongest_best(own_chosen_on), -1) - best).max()
        lines.append(f"{peer.name}: largest AUROC difference {gap:.4f}, {other:.4f} with the penalty it chooses itself")
        agreed = agreed and (peer.name != OURS or gap <= LARGEST_GAP)
    if not agreed:
        raise SystemExit("\n".join([*lines, "No figures: our probes are not scikit-learn's."]))
    return lines


def strongest_best(values: np.ndarray) -> np.ndarray:
    """The place of the best penalty, the strongest of equals, kept as a last axis of one."""
    return values.shape[-1] - 1 - values[..., ::-1].argmax(-1, keepdims=True)


def spread(states: Tensor, count: int) -> Tensor:
    """Sites evenly spread over all of them."""
    places = torch.linspace(0, len(states) - 1, count).round().long()
    return states if count == len(states) else states[places]


def timed(work: Work, peer: Peer) -> tuple[float, float]:
    """Seconds of the clock and of the processor for all sites."""
    some = spread(work.states, peer.sites)
    gc.collect()
    with threadpool_limits(peer.threads) if peer.threads else nullcontext():
        wall, cpu = time.perf_counter(), time.process_time()
        peer.fit(some)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall * len(work.states) / len(some), cpu * len(work.states) / len(some)


def print_table(work: Work, peers: Sequence[Peer], repeats: int) -> None:
    """One line per peer; a ratio is the median, over the rounds, of its time to ours in the same round."""
    seconds: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in peers}
    for _ in range(repeats):
        for peer in peers:
            seconds[peer.name].append(timed(work, peer))
    print(f"\n{'':28}{'fits timed':>11}{'median s':>10}{'min - max s':>17}{'ratio':>8}{'cpu s':>8}{'ratio':>8}")
    for peer in peers:
        wall, cpu = (np.array(each) for each in zip(*seconds[peer.name], strict=True))
        own_wall, own_cpu = (np.array(each) for each in zip(*seconds[OURS], strict=True))
        ratio, cpu_ratio = statistics.median(wall / own_wall), statistics.median(cpu / own_cpu)
        span = f"{wall.min():.2f} - {wall.max():.2f}"
        fits = peer.sites * len(work.penalty)
        print(
            f"{peer.name:28}{fits:>11}{statistics.median(wall):>10.2f}{span:>17}{ratio:>8.2f}"
            f"{statistics.median(cpu):>8.2f}{cpu_ratio:>8.2f}"
        )
    if any(peer.sites < len(work.states) for peer in peers):
        print(f"Times are scaled up from the fits timed to all {len(work.states) * len(work.penalty)}.")
    print("Take the wall clock on a quiet machine; on a busy one compare cpu seconds, with --threads 1.")


def planted_work(sites: int, seed: int = 0) -> Work:
    """States with one massive coordinate, a power law along random axes, and a planted direction that grows with depth.

    Pairs share their group; an eighth of the labels are turned, so that no direction is perfect.
    """
    rng = torch.Generator().manual_seed(seed)
    signal = torch.tensor([1.0, -1.0]).repeat(PAIRS)
    turned = torch.rand(2 * PAIRS, generator=rng) < 1 / 8
    power = torch.arange(1, WIDTH) ** -DECAY
    power *= (1 - MASSIVE) / power.sum()
    states = torch.empty(sites, 2 * PAIRS, WIDTH)
    for site in range(sites):
        axes, _ = torch.linalg.qr(torch.randn(WIDTH - 1, WIDTH - 1, generator=rng))
        direction = torch.nn.functional.normalize(axes @ (power.sqrt() * torch.randn(WIDTH - 1, generator=rng)), dim=0)
        noise = torch.randn(2 * PAIRS, WIDTH - 1, generator=rng) * power.sqrt()
        depth = (site % LAYERS + 1) / LAYERS
        states[site, :, 1:] = noise @ axes.T + 0.15 * depth * signal[:, None] * direction
        states[site, :, 0] = MASSIVE**0.5 * torch.randn(2 * PAIRS, generator=rng)
    target = ((signal > 0) ^ turned).numpy()
    folds = by_group([f"pair {i // 2}" for i in range(2 * PAIRS)], FOLDS)
    return Work(standardised(states)[0], target, folds, f"synthetic states, {sites} sites")


def cached_work(run: str, labels: str) -> Work:
    """The states of a harvested run, every layer after the embedding at every position.

    Args:
        run: folder of the run.
        labels: "twins" for what was asked, or a .npy file of what the model did, one truth value per prompt.
    """
    cache = ActivationCache.open(run)
    prompts = cache.prompts
    target = (prompts["label"] == "harmful").to_numpy() if labels == "twins" else np.load(labels).astype(bool)
    if len(target) != len(prompts) or target.all() or not target.any():
        raise SystemExit(f"--labels {labels}: {target.sum()} of {len(target)} are true, for {len(prompts)} prompts.")
    kept = [k for k, layer in enumerate(cache.layers) if layer > 0]
    states = torch.cat([cache.residuals(position=p).transpose(0, 1)[kept] for p in cache.positions])
    groups = prompts["group"].fillna(prompts["id"]).tolist()
    return Work(standardised(states)[0], target, by_group(groups, FOLDS), f"{cache!r}, labels {labels}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times fitting probes with interp and scikit-learn, side by side.")
    parser.add_argument("--run", help="folder of a harvested run; synthetic states if left out")
    parser.add_argument("--labels", default="twins", help="twins, or a .npy file of one truth value per prompt")
    parser.add_argument("--sites", type=int, default=LAYERS * POSITIONS, help="layers times positions, if synthetic")
    parser.add_argument("--sample", type=int, default=6, help="sites that scikit-learn is timed on; 0 for all")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for as many as there are")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if args.threads:
        torch.set_num_threads(args.threads)
    work = cached_work(args.run, args.labels) if args.run else planted_work(args.sites)
    sites, rows, width = work.states.shape
    sample = min(args.sample or sites, sites)
    peers = [
        Peer(OURS, ours(work), args.threads, sites),
        Peer("scikit-learn", loop(work), args.threads, sample),
        Peer(f"scikit-learn, tol {TIGHT:g}", loop(work, tolerance=TIGHT), args.threads, sample),
        Peer("scikit-learn, one thread", loop(work), 1, sample),
    ]
    print(f"{work.name}: {sites} sites x {FOLDS} folds x {len(PENALTIES)} penalties, {rows} rows, {width} coordinates")
    print(f"{torch.get_num_threads()} threads,", *(f"{name} {version(name)}" for name in ("torch", "scikit-learn")))
    print(*require_agreement(work, peers[:3]), sep="\n")
    print_table(work, peers[: 3 if args.threads == 1 else 4], args.repeats)


if __name__ == "__main__":
    main()
