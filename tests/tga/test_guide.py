import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.tga.centring import RunningMean
from interp.tga.guide import cosine, guide_loss, masked_mean
from interp.tga.variants import VARIANTS, variant

GUIDED = [name for name, v in VARIANTS.items() if v.guides]


def states(seed=0, shape=(3, 4, 5), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3)]


def reference(image, caption, retrieved, name, t=0.0):
    """The published formulas, number by number in Python's float64."""

    def cos(a, b):
        return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))

    per_picture = []
    for i, c, r in zip(*(x.double().numpy() for x in (image, caption, retrieved)), strict=True):
        terms = []
        for j in range(len(i)):
            ic, rc = cos(i[j], c[j]), cos(r[j], c[j])
            if name == "released":
                terms.append(0.25 * (1 - t) * math.exp(-ic) + 0.1 * (1 - t) ** 2 * math.exp(rc - ic))
            else:
                terms.append(-ic + math.log(1 + math.exp(-(ic - rc))))
        per_picture.append(sum(terms) / len(terms) if name == "released" else sum(terms))
    return sum(per_picture) / len(per_picture)


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("done", [0.0, 0.3, 1.0])
def test_the_loss_is_the_published_formula(name, done):
    found = guide_loss(*states(), VARIANTS[name], done=done)
    assert found.loss.dtype == torch.float64
    assert float(found.loss) == pytest.approx(reference(*states(), name, done), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_arithmetic_is_in_float32_whatever_the_states_are_in(dtype):
    rounded = [x.to(dtype) for x in states()]
    found = guide_loss(*rounded, VARIANTS["paper"])
    assert found.loss.dtype == torch.float32
    assert float(found.loss) == pytest.approx(reference(*rounded, "paper"), rel=1e-5)
    same = rounded[0]
    assert torch.equal(cosine(same, same).round(decimals=5), torch.ones(same.shape[:-1]))


@pytest.mark.parametrize("name", ["paper", "centred"])
def test_the_gradient_agrees_with_finite_differences(name):
    image, caption, retrieved = states()
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: guide_loss(x, caption, retrieved, VARIANTS[name]).loss, image)
    # The exponential form has a gradient too, once it is not cut off.
    exponential = replace(VARIANTS["released"], has_gradient=True)
    assert torch.autograd.gradcheck(lambda x: guide_loss(x, caption, retrieved, exponential, done=0.4).loss, image)


def test_the_released_loss_has_no_gradient_and_no_guide_is_zero():
    image, caption, retrieved = states()
    image.requires_grad_()
    assert not guide_loss(image, caption, retrieved, VARIANTS["released"]).loss.requires_grad
    assert float(guide_loss(image, caption, retrieved, VARIANTS["no-guide"]).loss) == 0
    assert guide_loss(image, caption, retrieved, VARIANTS["paper"]).loss.requires_grad


@pytest.mark.parametrize("name", ["paper", "centred"])
def test_the_retrieved_text_weighs_the_pull_to_the_caption_and_turns_it_nowhere_else(name):
    """Of -x + log(1 + exp(r - x)) with r = cos(R, C), which no picture changes, the slope is -1 - sigmoid(r - x)."""
    image, caption, retrieved = states()
    image.requires_grad_()
    pulls = [
        torch.autograd.grad(guide_loss(image, caption, other, VARIANTS[name]).loss, image)[0]
        for other in (retrieved, caption + 0.1 * retrieved, -caption)
    ]
    lengths = [pull.norm(dim=-1) for pull in pulls]
    for pull in pulls[1:]:
        cosines = torch.nn.functional.cosine_similarity(pulls[0], pull, dim=-1)
        torch.testing.assert_close(cosines, torch.ones_like(cosines))
    assert (lengths[1] > lengths[0]).all() and (lengths[0] > lengths[2]).all(), "harder, the nearer the text"
    assert (lengths[1] < 2 * lengths[2]).all()


def test_going_down_the_gradient_moves_images_to_their_captions():
    image, caption, retrieved = states(dtype=torch.float32)
    image.requires_grad_()
    before = guide_loss(image, caption, retrieved, VARIANTS["paper"])
    for _ in range(200):
        (gradient,) = torch.autograd.grad(guide_loss(image, caption, retrieved, VARIANTS["paper"]).loss, image)
        image = (image - 0.5 * gradient).detach().requires_grad_()
    after = guide_loss(image, caption, retrieved, VARIANTS["paper"])
    assert (after.image_caption > before.image_caption).all() and after.image_caption.min() > 0.95
    torch.testing.assert_close(after.retrieved_caption, before.retrieved_caption)


def test_zero_vectors_count_as_cosine_zero_and_get_no_gradient():
    image, caption, retrieved = states(dtype=torch.float32)
    image[0, 0] = 0
    caption[1, 2] = 0
    image.requires_grad_()
    found = guide_loss(image, caption, retrieved, VARIANTS["paper"])
    (gradient,) = torch.autograd.grad(found.loss, image)
    assert gradient.isfinite().all()
    assert (gradient[0, 0] == 0).all() and (gradient[1, 2] == 0).all() and (gradient[2] != 0).any()
    assert float(cosine(torch.zeros(3), torch.ones(3))) == 0


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_a_cosine_is_bounded_and_knows_no_length(seed, scale):
    a, b, _ = states(seed, dtype=torch.float32)
    assert (cosine(a, b).abs() <= 1).all()
    torch.testing.assert_close(cosine(a * scale, b), cosine(a, b), atol=1e-5, rtol=1e-4)


def test_layers_are_added_up_or_averaged_and_pictures_averaged():
    image, caption, retrieved = states()
    twice = [torch.cat([x, x]) for x in (image, caption, retrieved)]
    layered = [torch.cat([x, x], dim=1) for x in (image, caption, retrieved)]
    for name, factor in (("paper", 2), ("released", 1)):
        once = float(guide_loss(image, caption, retrieved, VARIANTS[name]).loss)
        assert float(guide_loss(*twice, VARIANTS[name]).loss) == pytest.approx(once)
        assert float(guide_loss(*layered, VARIANTS[name]).loss) == pytest.approx(once * factor)


@given(st.integers(0, 100), st.integers(0, 3))
def test_means_count_the_tokens_of_the_mask_alone(seed, padding):
    generator = torch.Generator().manual_seed(seed)
    x, mask = torch.randn(2, 6, 3, generator=generator), torch.rand(2, 6, generator=generator) < 0.5
    found = masked_mean(x, mask)
    for row in range(2):
        kept = x[row][mask[row]]
        expected = kept.mean(0) if len(kept) else torch.zeros(3)
        torch.testing.assert_close(found[row], expected)
    padded = torch.cat([x, torch.full((2, padding, 3), 1e9)], dim=1)
    wider = torch.cat([mask, torch.zeros(2, padding, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(masked_mean(padded, wider), found)
    torch.testing.assert_close(masked_mean(x[:, :, None], mask)[:, 0], found)


def test_centring_takes_off_what_all_pictures_share():
    shared = 100 * torch.ones(4, 5)
    image, caption, retrieved = states(dtype=torch.float32)
    running = RunningMean.empty(4, 5)
    running.update((image + shared).mean(0))
    torch.testing.assert_close(running.mean, image.mean(0) + shared)
    raw = guide_loss(image + shared, caption + shared, retrieved + shared, VARIANTS["paper"])
    assert raw.image_caption.min() > 0.99, "an offset alone makes the raw cosine one"
    centred = guide_loss(image + shared - running.mean, caption, retrieved, VARIANTS["centred"])
    assert centred.image_caption.abs().max() < 0.99


def test_the_running_mean_is_plain_for_20_batches_and_follows_after():
    batches = [torch.randn(1, 3, requires_grad=True) for _ in range(20)]
    running = RunningMean.empty(1, 3)
    for batch in batches:
        running.update(batch)
    torch.testing.assert_close(running.mean, torch.stack(batches).mean(0).detach())
    for _ in range(200):
        running.update(torch.full((1, 3), 7.0))
    torch.testing.assert_close(running.mean, torch.full((1, 3), 7.0), atol=1e-3, rtol=0)
    assert not running.mean.requires_grad


def test_variants_are_what_they_are_called():
    assert VARIANTS["paper"].layers_of(4) == (1, 2, 3, 4)
    assert VARIANTS["released"].layers_of(30) == tuple(range(10, 19))
    assert VARIANTS["no-guide"].layers_of(4) == ()
    with pytest.raises(UsageError, match="10, 11"):
        VARIANTS["released"].layers_of(4)
    assert variant("paper", layers=(2, 3), weight=0.5).layers_of(4) == (2, 3)
    assert variant("released", retrieved_in_prompt=True).retrieved_in_prompt
    assert variant("released", layers=None).layers_of(4) == (1, 2, 3, 4)
    with pytest.raises(UsageError, match="no-guide"):
        variant("tga")
    in_prompt = {name for name, v in VARIANTS.items() if v.retrieved_in_prompt}
    assert in_prompt == {"paper", "retrieved-text-only", "centred"}
