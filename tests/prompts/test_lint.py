import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import UsageError
from interp.prompts import bundled_twins, read_prompts, user_prompt
from interp.prompts.duplicates import find_duplicates, normalised
from interp.prompts.form import LENGTH, PUNCTUATION, length_features, punctuation_features
from interp.prompts.leaks import find_leaks, grouped_folds
from interp.prompts.lint import lint
from interp.prompts.matching import BALANCED, match, standardised_differences
from interp.prompts.pairing import pair_groups, paired
from interp.prompts.surface import SURFACES
from tests.prompts.planted import VOCABULARY, null, planted, prompt_set, said_as, sentence


def leaking(prompts):
    return {leak.surface for leak in find_leaks(prompts) if leak.found}


def said(found, start):
    return [line for line in found.verdicts if line.startswith(start)]


# Leaks.


@pytest.mark.parametrize("surface", SURFACES)
def test_a_planted_leak_is_found_under_its_name(surface):
    assert surface in leaking(planted(surface))


def test_a_leak_in_one_place_is_not_reported_elsewhere():
    assert leaking(planted("image")) == {"image"}
    assert leaking(planted("dataset")) == {"dataset"}
    assert leaking(planted("length")) <= {"length", "punctuation", "words"}, "longer prompts have other counts"
    assert leaking(planted("words")) == {"words"}


def test_null_sets_hardly_ever_leak():
    found = [leaking(null(80, seed)) for seed in range(8)]
    assert sum(map(len, found)) <= 1


def test_a_small_share_of_marked_prompts_is_no_leak():
    assert "image" not in leaking(planted("image", share=0.1))


def test_twins_are_never_parted_and_both_kinds_are_spread():
    twins = bundled_twins("test").prompts
    target = np.array([p.label == "harmful" for p in twins])
    folds = grouped_folds([p.unit for p in twins], target, seed=3)
    homes = {(p.unit, f) for p, f in zip(twins, folds, strict=True)}
    assert len(homes) == len({p.unit for p in twins})
    assert set(folds) == set(range(5))
    alone = np.array([i % 3 == 0 for i in range(60)])
    found = grouped_folds([str(i) for i in range(60)], alone)
    assert [int(alone[found == k].sum()) for k in range(5)] == [4] * 5


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=80), st.integers(0, 9))
def test_folds_keep_groups_whole_or_are_refused(rows, seed):
    groups, target = [str(g) for g, _ in rows], np.array([t for _, t in rows], dtype=bool)
    folds = grouped_folds(groups, target, seed=seed)
    of_kind = [len({g for g, t in rows if t == kind}) for kind in (True, False)]
    assert (folds is None) == (min(of_kind) < 10)
    if folds is not None:
        assert len(set(zip(groups, folds.tolist(), strict=True))) == len(set(groups))


# Duplicates.


def test_exact_and_near_duplicates_are_found_and_told_apart():
    rng = random.Random(0)
    long = sentence(rng, 14)
    rows = [
        user_prompt("a", long, split="train", label="harmful"),
        user_prompt("b", long.upper() + "!", split="test", label="harmful"),
        user_prompt("c", long[:-2] + "zz.", split="train", label="harmless"),
        *(user_prompt(f"n{i}", sentence(rng, 14), split="test", label="harmful") for i in range(60)),
    ]
    found = {(d.first, d.second): d for d in find_duplicates(rows)}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert found["a", "b"].exact and found["a", "b"].across_splits and not found["a", "b"].across_labels
    near = found["a", "c"]
    assert not near.exact and 0.8 <= near.similarity < 1 and near.across_labels and not near.across_splits


def test_prompts_meant_to_be_alike_are_not_duplicates_but_contradictions_are():
    text = "Please write a long and friendly letter to my neighbour."
    alike = [user_prompt("a", text, group="g"), user_prompt("b", text + " Now", group="g")]
    assert not find_duplicates(alike)
    (clash,) = find_duplicates(
        [replace(alike[0], label="harmful"), user_prompt("b", text, group="g", label="harmless")]
    )
    assert clash.exact and clash.across_labels
    pictures = [user_prompt("a", text, image="1.png"), user_prompt("b", text, image="2.png")]
    assert not find_duplicates(pictures)


def test_every_prompt_of_a_large_cluster_is_named_with_one_of_each_other_split():
    rng = random.Random(1)
    frame = sentence(rng, 80)
    rows = [
        user_prompt(f"p{i}", f"{frame} {rng.choice(VOCABULARY)}", split=("train", "test")[i % 2]) for i in range(200)
    ]
    found = find_duplicates(rows)
    assert len(found) < 200 * 199 / 4, "not all pairs are named"
    across = {i for d in found if d.across_splits for i in (d.first, d.second)}
    assert across == {p.id for p in rows}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab c.?", min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=12))
def test_duplicates_are_what_comparing_all_pairs_finds(texts):
    prompts = [user_prompt(f"p{i}", text) for i, text in enumerate(texts)]
    grams = [{f" {t} "[k : k + 3] for k in range(len(t))} for t in map(normalised, texts)]
    expected = {}
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            similarity = len(grams[i] & grams[j]) / len(grams[i] | grams[j])
            if normalised(texts[i]) == normalised(texts[j]) or similarity >= 0.8:
                expected[f"p{i}", f"p{j}"] = similarity
    found = {(d.first, d.second): d.similarity for d in find_duplicates(prompts)}
    assert found == pytest.approx(expected)


# Matching.


def both_lengths(n=240, seed=0):
    """Harmful prompts are mostly long and harmless ones mostly short, with some of each kind in between."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = ("harmful", "harmless")[i % 2]
        usual = rng.random() < 0.6
        size = rng.randint(9, 12) if not usual else rng.randint(*((13, 18) if label == "harmful" else (4, 8)))
        rows.append(user_prompt(f"p-{i:04}", sentence(rng, size), label=label))
    return rows


def test_a_matched_subset_is_balanced_and_leaks_no_form():
    rows = both_lengths()
    assert "length" in leaking(rows)
    found = match(rows)
    assert 20 <= len(found.pairs) <= 80 and not found.refusal
    ids = [i for pair in found.pairs for i in pair]
    assert len(set(ids)) == len(ids)
    known = {p.id: p for p in rows}
    assert {known[a].label for a, _ in found.pairs} == {"harmful"}
    assert {known[b].label for _, b in found.pairs} == {"harmless"}
    # Balance by an independent path: means and deviations of the subset itself.
    sides = [
        np.hstack([length_features(side), punctuation_features(side)])
        for side in ([known[a] for a, _ in found.pairs], [known[b] for _, b in found.pairs])
    ]
    spread = np.sqrt((sides[0].var(0) + sides[1].var(0)) / 2)
    gap = np.abs(sides[0].mean(0) - sides[1].mean(0))
    assert (gap <= BALANCED * spread + 1e-9).all()
    assert [name for name, _ in found.differences] == [*LENGTH, *PUNCTUATION]
    assert not {leak.surface for leak in found.leaks if leak.found}
    assert len(found.subset(prompt_set(rows))) == 2 * len(found.pairs)


def test_a_set_that_is_balanced_is_kept_whole():
    twins = bundled_twins("test").prompts
    found = match(twins)
    groups = {p.id: p.group for p in twins}
    assert 2 * len(found.pairs) == len(twins)
    assert all(groups[a] == groups[b] for a, b in found.pairs)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (planted("dataset"), "dataset alone"),
        (planted("image"), "image alone"),
        (planted("punctuation"), "'full stops' is one thing"),
        (null(30), "only 15 pairs"),
    ],
)
def test_a_match_that_would_say_nothing_is_refused_with_the_reason(rows, why):
    found = match(rows)
    assert not found.pairs and why in found.refusal
    with pytest.raises(UsageError, match="no matched subset"):
        found.subset(prompt_set(rows))


def test_words_are_left_and_said_to_be():
    found = lint(prompt_set(planted("words")))
    assert len(found.match.pairs) >= 50
    (line,) = said(found, "words can not be matched away")
    assert float(line.split("AUROC ")[1][:4]) > 0.9


def test_pairs_stay_within_a_split_and_texts_of_both_labels_are_left_out():
    rows = [replace(p, split=("train", "test")[i % 3 == 0]) for i, p in enumerate(null(60))]
    rows += [
        user_prompt("x-1", "The very same.", label="harmful"),
        user_prompt("x-2", "The very same!", label="harmless"),
    ]
    split = {i: p.split for i, p in enumerate(rows)}
    pairs = paired(rows, length_features(rows))
    assert len(pairs) and all(split[i] == split[j] for i, j in pairs.tolist())
    assert not {60, 61} & set(pairs.ravel().tolist())


@given(st.integers(1, 30), st.integers(0, 99))
def test_differences_of_the_first_pairs_are_those_of_the_first_pairs(n, seed):
    rng = np.random.default_rng(seed)
    bad, good = rng.integers(0, 3, (2, n, 4)).astype(float)
    found = standardised_differences(bad, good)
    for k in range(1, n + 1):
        gap = np.abs(bad[:k].mean(0) - good[:k].mean(0))
        spread = np.sqrt((bad[:k].var(0) + good[:k].var(0)) / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.where(gap < 1e-9, 0, gap / spread)
        np.testing.assert_allclose(found[k - 1], expected, rtol=1e-6, atol=1e-9)


def test_what_is_tied_by_a_pair_or_a_group_has_one_name():
    units = ["a", "b", "b", "c", "d", "e", "e", "f"]
    names = pair_groups([user_prompt(str(i), "x", group=u) for i, u in enumerate(units)])
    assert len(set(names[:4])) == 1 and len(set(names[4:])) == 1 and names[0] != names[4]


# The whole.


def test_splits_categories_and_balance_are_said():
    rows = [
        replace(p, split="train" if i < 90 else "test", group=f"g{i // 2 % 59}", category=p.label)
        for i, p in enumerate(null(120))
    ]
    found = lint(prompt_set(rows))
    assert said(found, "balance: 60 harmful, 60 harmless.")
    assert said(found, "splits: 1 group lies in several splits (g0: test, train)")
    assert "2 of 2 categories" in said(found, "category:")[0]
    uneven = [p for i, p in enumerate(null(120)) if p.label == "harmful" or i % 5 == 0]
    assert said(lint(prompt_set(uneven)), "uneven:")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([user_prompt("only", "One prompt.")], "no labels"),
        ([user_prompt("only", "One prompt.", label="harmful")], "one kind only"),
        ([replace(p, label=None) for p in null(40)], "no labels"),
        ([replace(p, label="harmless") for p in null(40)], "one kind only"),
        (null(10), "too few"),
        ([replace(p, group="one") for p in null(40)], "too few"),
    ],
)
def test_what_can_not_be_said_is_said_to_be_so(rows, line):
    found = lint(prompt_set(rows))
    assert said(found, line)
    assert found.leaks == () and found.match is None
    assert said(found, "no prompt repeats another")


def test_unlabelled_prompts_count_for_duplicates_only():
    rows = null(60)
    rows += [replace(said_as(rows[0], rows[0].text), id="copy", label=None)]
    found = lint(prompt_set(rows))
    assert "1 without a label" in said(found, "balance")[0]
    assert said(found, "duplicates: 2 prompts") and not said(found, "labels:")
    assert all(leak.auroc.n == 60 for leak in found.leaks)


def test_the_record_is_json_and_the_same_every_time():
    rows = prompt_set(both_lengths(120))
    first, second = (json.dumps(lint(rows).record(), allow_nan=False) for _ in range(2))
    assert first == second
    record = json.loads(first)
    assert {leak["surface"] for leak in record["leaks"]} == set(SURFACES)
    assert record["match"]["pairs"] and record["verdicts"]


def test_advbench_style_files_leak_by_their_final_mark(tmp_path):
    rng = random.Random(2)
    path = tmp_path / "joined.csv"
    lines = ["id,prompt,label"]
    lines += [f"adv-{i},{sentence(rng, 9, '')},harmful" for i in range(40)]
    lines += [f"seed-{i},{sentence(rng, 9)},harmless" for i in range(30)]
    path.write_text("\n".join(lines), "utf-8")
    found = lint(read_prompts(path))
    told = said(found, "leaks: punctuation alone tells harmful from harmless, AUROC 1.00")
    assert "ends with" in told[0] or "full stops" in told[0]
    assert "adv (40)" in said(found, "leaks: dataset")[0]
    assert "dataset alone" in said(found, "no matched subset")[0]
