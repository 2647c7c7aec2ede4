"""Logistic regressions by the thousand: every layer, position, fold, penalty and label permutation in one descent.

The states of one layer and position are shared by all its folds, penalties and permutations, so their gradients are
one matrix product; a loop over single regressions reads the same states from memory again and again. They share the
few directions that hold most of the variance, too, and along these every column is rescaled by its own curvature: a
handful of descents is enough where plain gradients take dozens.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vecdot

ITERATIONS = 60
TOLERANCE = 2e-3
RANK = 48
"""Directions of each site that are rescaled one by one."""
SKETCH_ROWS = 1000
"""Rows from which these directions are found; they only speed up the descent."""
BLOCK = 2**17
"""Scores held at once; a block of sites that fits into the cache is finished before the next is begun."""
FARTHEST = 4.0
"""How far the second step of a line search may go beyond the first."""


def fit_logistic(
    states: Float[Tensor, "site row d"],
    targets: Float[Tensor, "#site row #column"],
    weights: Float[Tensor, "#site row #column"],
    penalty: Float[Tensor, " column"],
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, "site d column"], Float[Tensor, "site column"]]:
    """Fits one L2-penalised logistic regression per site and column.

    Minimises  sum_i w_i log(1 + exp(-+ (x_i v + b))) + penalty / 2 |v|^2  with an unpenalised bias b, by nonlinear
    conjugate gradients (Polak-Ribiere) with a line search that costs no further matrix product, preconditioned by the
    leading eigenvectors of the covariance (after Frangella, Tropp & Udell 2023, "Randomized Nystrom preconditioning").

    Args:
        states: one site is a layer at a position; centred and scaled by the caller, see `standardised`.
        targets: 1 for the target class, 0 for the other, in between for soft labels; one column is one regression.
        weights: how much every row counts in every regression; 0 leaves it out, such as the rows of a test fold.
        penalty: lambda of each column, above 0; sklearn's C is 1 / lambda.
        iterations: most descents.
        tolerance: a column stops where its gradient, in the preconditioned norm, has fallen to this share of what it
            was at 0.

    Returns:
        Directions v and biases b. A column whose weighted rows are all of one class gets a bias only in the limit of
        the iterations; its scores are constant and mean nothing.
    """
    sites, rows, width = states.shape
    directions = states.new_zeros(sites, width, len(penalty))
    biases = states.new_zeros(sites, len(penalty))
    block = max(1, BLOCK // max(1, rows * len(penalty)))
    for start in range(0, sites, block):
        here = slice(start, start + block)
        own_targets, own_weights = (t[here] if len(t) > 1 else t for t in (targets, weights))
        found = directions[here], biases[here]
        _descend(_Descent(states[here], own_targets, own_weights, penalty, found), iterations, tolerance)
    return directions, biases


def _descend(descent: "_Descent", iterations: int, tolerance: float) -> None:
    for _ in range(iterations):
        unfinished = descent.slope() > tolerance
        if not unfinished.any():
            break
        if 4 * unfinished.sum() <= 3 * len(unfinished):  # copying the others costs about as much as a quarter of them
            descent.keep(unfinished)
        descent.move()
    descent.store()


class _Descent:
    """The columns of a block of sites that are not yet finished, and where each stands.

    Scores have their rows last, and directions their coordinates: the product of residuals and states is fastest then.
    """

    def __init__(
        self,
        states: Tensor,
        targets: Tensor,
        weights: Tensor,
        penalty: Tensor,
        found: tuple[Tensor, Tensor],
    ) -> None:
        sites, rows, width = states.shape
        self.states, self.penalty = states, penalty
        self.found, self.found_biases = found
        self.columns = torch.arange(len(penalty), device=states.device)
        self.weights = weights.mT.contiguous()
        self.hits = self.weights * targets.mT
        self.directions = states.new_zeros(sites, len(penalty), width)
        self.biases = states.new_zeros(sites, len(penalty))
        self.scores = states.new_zeros(sites, len(penalty), rows)
        self.axes, self.spread = leading_axes(states, weights.mean(-1), RANK)
        self.tiny = torch.finfo(states.dtype).tiny ** 0.5
        self.first = states.new_zeros(0)
        self.last: tuple[Tensor, ...] | None = None

    def slope(self) -> Float[Tensor, " column"]:
        """Gradients at the present place; returns their norms relative to the first, the largest over sites."""
        p = torch.sigmoid(self.scores)
        expected = self.weights * p
        self.curvature = torch.addcmul(expected, expected, p, value=-1)
        residual = expected - self.hits
        self.gradient = torch.bmm(residual, self.states).addcmul_(self.penalty[:, None], self.directions)
        self.bias_gradient = residual.sum(-1)
        # The Hessian is near  mass * covariance + penalty,  with the covariance known along the leading axes.
        mass = self.curvature.sum(-1).clamp(min=self.tiny)
        rest = (mass * self.spread[:, :1] + self.penalty)[..., None]
        leading = mass[..., None] * self.spread[:, None] + self.penalty[:, None]
        along = torch.bmm(self.gradient, self.axes) * (rest / leading - 1)
        self.step = torch.baddbmm(self.gradient, along, self.axes.mT) / -rest
        self.bias_step = -self.bias_gradient / mass
        self.norm = -vecdot(self.gradient, self.step) - self.bias_gradient * self.bias_step
        if not len(self.first):
            self.first = self.norm.clamp(min=self.tiny)
        share: Tensor = (self.norm / self.first).amax(0)
        return share.clamp(min=0).sqrt()

    def keep(self, kept: Tensor) -> None:
        """Stores what was found and goes on with some of the columns only."""
        self.store()
        places = kept.nonzero()[:, 0]

        def of(t: Tensor) -> Tensor:
            return t if t.shape[1] == 1 else t.index_select(1, places)

        self.columns, self.penalty = self.columns[places], self.penalty[places]
        self.weights, self.hits, self.curvature, self.scores = map(
            of, (self.weights, self.hits, self.curvature, self.scores)
        )
        self.directions, self.gradient, self.step = map(of, (self.directions, self.gradient, self.step))
        self.biases, self.bias_gradient, self.bias_step = map(of, (self.biases, self.bias_gradient, self.bias_step))
        self.norm, self.first = of(self.norm), of(self.first)
        if self.last is not None:
            self.last = tuple(map(of, self.last))

    def store(self) -> None:
        self.found[..., self.columns] = self.directions.mT
        self.found_biases[..., self.columns] = self.biases

    def move(self) -> None:
        """One descent along a direction conjugate to the last."""
        step, bias_step = self.step, self.bias_step
        if self.last is not None:
            before, bias_before, search, bias_search, norm_before = self.last
            overlap = -vecdot(before, step) - bias_before * bias_step
            # Where a line search failed the overlap equals the norm, and the column starts afresh.
            beta = ((self.norm - overlap) / norm_before.clamp(min=self.tiny)).clamp(min=0)
            step = torch.addcmul(step, beta[..., None], search)
            bias_step = torch.addcmul(bias_step, beta, bias_search)
        # Turned round afterwards: with the columns first this product takes up to twice as long.
        change = torch.bmm(self.states, step.mT).mT.contiguous().add_(bias_step[..., None])
        length = self._length(change, step, bias_step)
        self.directions.addcmul_(length[..., None], step)
        self.biases.addcmul_(length, bias_step)
        self.scores.addcmul_(length[..., None], change)
        self.last = (self.gradient, self.bias_gradient, step, bias_step, self.norm)

    def _length(self, change: Tensor, step: Tensor, bias_step: Tensor) -> Tensor:
        """How far to go: a step of Newton's method in one variable, then one of the secant through its two ends."""
        slope = vecdot(self.gradient, step) + self.bias_gradient * bias_step
        bend = self.penalty * vecdot(step, step)
        length: Tensor = -slope / (vecdot(self.curvature * change, change) + bend).clamp(min=self.tiny)
        p = torch.sigmoid(torch.addcmul(self.scores, length[..., None], change))
        residual = torch.addcmul(self.hits, self.weights, p, value=-1)
        fallen = slope + vecdot(residual, change) - self.penalty * vecdot(self.directions, step) - length * bend
        share = torch.where(fallen == 0, 1.0, slope / fallen)
        return length * share.clamp(0, FARTHEST)


def leading_axes(
    states: Float[Tensor, "site row d"], weights: Float[Tensor, "#site row"], rank: int
) -> tuple[Float[Tensor, "site d axis"], Float[Tensor, "site axis"]]:
    """Orthonormal axes near the leading eigenvectors of the second moments of weighted rows, from a random sketch.

    One power iteration on a random basis, then the eigenvectors of the second moments within its range (Halko,
    Martinsson & Tropp 2011, sections 4.5 and 5.3).

    Args:
        states: rows.
        weights: how much every row counts, at least 0.
        rank: most axes; fewer where ``d`` is smaller.

    Returns:
        The axes and the second moments along them, ascending, at least 0; only 0 where no row counts.
    """
    _, rows, width = states.shape
    drawn = torch.Generator().manual_seed(0)
    if rows > SKETCH_ROWS:  # at random, since every second row may be of one class
        some = torch.randperm(rows, generator=drawn)[:SKETCH_ROWS].sort().values.to(states.device)
        states, weights = states[:, some], weights[:, some]
    weights = weights[..., None]
    basis = torch.randn(width, min(rank, width), generator=drawn, dtype=states.dtype)
    sketch = torch.bmm(states, basis.to(states.device).expand(len(states), -1, -1))
    inside, _ = torch.linalg.qr(torch.bmm(states.mT, weights * sketch))
    along = torch.bmm(states, inside)
    total = weights.sum(1, keepdim=True).clamp(min=torch.finfo(states.dtype).tiny)
    moments, turn = torch.linalg.eigh(torch.bmm(along.mT, weights * along) / total)
    return inside @ turn, moments.clamp(min=0)
