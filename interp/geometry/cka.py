"""Debiased linear CKA: whether two arms lay out the same concepts alike, whatever their coordinates.

CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with linear kernels (Kornblith et al. 2019, arXiv 1905.00414, eq.
4), and the unbiased HSIC of Song et al. (2012, eq. 5), without which states of more coordinates than concepts look
alike whatever they are (Nguyen et al. 2021; Davari et al. 2022). It is written here with U-centred kernels, of which
that HSIC is the mean product off the diagonal (Székely & Rizzo 2014): a permutation then costs one product.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.errors import UsageError
from interp.geometry.arms import ROUNDING, Arms
from interp.geometry.profile import Profile
from interp.geometry.variants import ROGUE, rogue_share
from interp.pair_stats import jackknife_interval, max_p
from interp.stats import PERMUTATIONS

FEWEST = 5
"""HSIC needs four concepts, and the interval leaves one out."""
Kernel = Float[ndarray, "concept concept"]


def cka(arms: Arms, variant: str = "raw", *, seed: int = 0, permutations: int = PERMUTATIONS) -> Profile:
    """Debiased CKA of the concept means of both arms, by layer.

    It centres by itself and looks at no pair in particular, so nothing is fitted on other folds.

    Args:
        arms: the pairs; every concept is one point.
        variant: ``raw``, or ``no_rogue`` without the coordinates that hold most of the squared norm and so would be
            most of the kernel.
        seed: of the permutations.
        permutations: of the captions over concepts.

    Returns:
        At most 1, about 0 for unrelated arms and then as often below; the floor is the mean of its permutations, the
        interval a jackknife's over concepts. NaN at a layer where the states of an arm do not differ.

    Raises:
        UsageError: for another variant, or fewer than five concepts.
    """
    n = len(arms.names)
    if variant not in ("raw", "no_rogue"):
        raise UsageError(f"variant {variant!r}: CKA is made for raw or no_rogue; it centres by itself.")
    if n < FEWEST:
        raise UsageError(f"{n} concepts: CKA needs {FEWEST} or more.")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n) for _ in range(permutations)]
    value, lo, hi, floor = np.full((4, len(arms.layers)), np.nan)
    permuted = np.zeros((permutations, len(arms.layers)))
    for i in range(len(arms.layers)):
        kernels = _kernels(arms, i, variant)
        if kernels is None:
            continue
        value[i] = _cka(*kernels)
        left_out = np.array([_cka(*(np.delete(np.delete(k, g, 0), g, 1) for k in kernels)) for g in range(n)])
        lo[i : i + 1], hi[i : i + 1] = jackknife_interval(value[i : i + 1], left_out[:, None])
        permuted[:, i] = _permuted(*kernels, orders)
        floor[i] = permuted[:, i].mean()
    p = max_p(np.nan_to_num(value), permuted)
    return Profile("CKA", variant, arms.layers, value, lo, np.minimum(hi, 1.0), floor, n, p=p)


def _kernels(arms: Arms, layer: int, variant: str) -> tuple[Kernel, Kernel] | None:
    """The linear kernels of both arms' centred concept means; None where an arm does not differ beyond rounding."""
    means = [arms.by_concept(arm[:, layer].double()) for arm in (arms.image, arms.caption)]
    if variant == "no_rogue":
        top = rogue_share(means[0], means[1]).topk(min(ROGUE, means[0].shape[1] - 1)).indices
        means = [rows.index_fill(1, top, 0.0) for rows in means]
    found = [_kernel(rows) for rows in means]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _kernel(rows: Float[Tensor, "concept d_model"]) -> Kernel | None:
    # HSIC needs no centring; in float64 it keeps what differs from being lost beside the mean.
    centred = rows - rows.mean(0)
    if centred.square().sum() <= ROUNDING**2 * rows.square().sum():
        return None
    return np.asarray((centred @ centred.T).numpy())


def u_centred(kernel: Kernel) -> Kernel:
    """The kernel with rows, columns and all taken off so that products off the diagonal are unbiased; diagonal 0."""
    n = len(kernel)
    bare = kernel - np.diag(np.diag(kernel))
    rows = bare.sum(0) / (n - 2)
    centred = bare - rows[:, None] - rows + bare.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return np.asarray(centred)


def _cka(image: Kernel, caption: Kernel) -> float:
    one, other = u_centred(image), u_centred(caption)
    size = (one**2).sum() * (other**2).sum()
    return float((one * other).sum() / np.sqrt(size)) if size > 0 else float("nan")


def _permuted(image: Kernel, caption: Kernel, orders: list[ndarray]) -> list[float]:
    """CKA with the captions in other orders; U-centring does not mind the order."""
    one, other = u_centred(image), u_centred(caption)
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return [float((one * other[np.ix_(order, order)]).sum() / size) if size > 0 else float("nan") for order in orders]
