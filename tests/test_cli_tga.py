"""`interp tga` in process, on a tiny LLaVA and a tiny sentence encoder."""

import json
import os
import socket
import subprocess
import sys

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from interp.cli import app
from interp.ledger import read_claims
from interp.models.projector_file import read_projector
from tests.models.encoders import save_clip
from tests.sights import picture, save_tiny_llava
from tests.test_laws import ROOT

pytestmark = pytest.mark.timeout(240)
VARIANTS = ("no-guide", "released", "paper")


def written(*arguments):
    return [str(a) for a in ("tga", *arguments, "--offline", "--dtype", "fp32")]


def run(*arguments):
    return CliRunner().invoke(app, written(*arguments))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, an encoder, and pairs of scenes and twins in three splits."""
    folder = tmp_path_factory.mktemp("tga")
    save_tiny_llava(folder / "llava")
    save_clip(folder / "clip")
    rows = ["id,image,caption,scene,twin_of,split"]
    for i in range(36):
        picture(folder / f"{i}.png", i, size=(16, 16))
        split = ("train", "test", "validation")[i // 2 % 3]
        rows.append(
            f"p{i},{i}.png,thing number {i},{'knife' if i < 18 else 'gun'},{f'p{i - 1}' if i % 2 else ''},{split}"
        )
    (folder / "pairs.csv").write_text("\n".join(rows), "utf-8")
    lines = (folder / "pairs.csv").read_text().splitlines()
    (folder / "test.csv").write_text("\n".join([lines[0], *(x for x in lines[1:] if x.endswith("test"))]), "utf-8")
    return folder


def training(place, variant, *more, out, runs="runs"):
    how = ("--variant", variant, "--texts", "", "--encoder", place / "clip", "--steps", 3, "--batch", 4)
    return ("train", place / "llava", place / "pairs.csv", *how, "--runs", place / runs, "-o", out, *more)


def trained(place, variant, *more, out=None):
    return run(*training(place, variant, *more, out=out or place / f"out-{variant}"))


@pytest.fixture(scope="module")
def trainings(place):
    for variant in VARIANTS:
        found = trained(place, variant, *(("--layers", "1-3") if variant == "released" else ()))
        assert found.exit_code == 0, found.output
    return [place / f"out-{variant}" for variant in VARIANTS]


def test_training_writes_a_projector_with_its_record_and_says_what_the_guide_did(place, trainings):
    record, tensors = read_projector(trainings[2] / "projector")
    assert record["variant"] == "paper" and record["about"]["arm"] == "captioned" and len(tensors) == 4
    retrieved = pd.read_parquet(trainings[2] / "retrieved.parquet")
    assert len(retrieved) == 24 and (retrieved["retrieved"] != retrieved["caption"]).all()
    again = trained(place, "paper")
    assert again.exit_code == 0 and "Share of the guide in the gradient" in again.stdout
    assert "Cross-entropy of validation captions" in again.stdout and "cos(image, caption)" in again.stdout
    runs = {f.name for f in (place / "runs").iterdir() if f.is_dir()}
    assert len(runs) == 2, "one run of features and one of texts serve all variants"


def test_released_moves_the_projector_as_no_guide_does_to_the_bit(trainings):
    none, released, paper = (read_projector(folder / "projector")[1] for folder in trainings)
    assert all((none[name] == released[name]).all() for name in none)
    assert any((none[name] != paper[name]).any() for name in none)


def test_two_processes_train_what_one_trains_and_harvest_once(place):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    uneven = ("--micro-batch", 3, "--layers", "1-2", "--learning-rate", 1e-2)
    two = training(place, "centred", *uneven, out=place / "two", runs="runs-of-two")
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "interp.cli", *written(*two)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(k), "LOCAL_RANK": str(k), **meeting},
            cwd=ROOT,
        )
        for k in range(2)
    ]
    alone = trained(place, "centred", *uneven, out=place / "one")
    assert alone.exit_code == 0, alone.output
    assert [process.wait(timeout=200) for process in running] == [0, 0]
    assert len([f for f in (place / "runs-of-two").iterdir() if f.is_dir()]) == 2
    assert (place / "two" / "retrieved.parquet").is_file()
    one, both = (read_projector(place / name / "projector")[1] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(both[name], one[name], atol=1e-4, rtol=1e-4)


def test_trainings_are_named_by_what_they_are(place):
    for more in ((), ("--weight", 2)):
        how = training(place, "paper", *more, out=place / "unused")
        found = run(*how[: how.index("-o")], *more)
        assert found.exit_code == 0, found.output
    found = trained(place, "paper", "--retrieve-by", 2, out=place / "by-states")
    assert found.exit_code == 0 and "at layer 2, to retrieve by" in found.output
    assert read_projector(place / "by-states" / "projector")[0]["about"]["data"]["retrieved_by"] == "states of layer 2"
    found = run(*how[: how.index("-o")], *more)
    made = sorted((place / "runs").glob("tga-paper-captioned-0-*"))
    assert len(made) == 2, "another weight is another folder"
    assert f"training: {made[0]}" in found.stdout.replace("\n", "") or f"training: {made[1]}" in found.stdout


def test_a_folder_of_another_training_is_refused_by_the_field(place, trainings):
    found = trained(place, "paper", "--weight", 2, out=trainings[2])
    assert found.exit_code == 4 and "variant.weight" in found.output


def test_evaluation_puts_every_training_in_one_table(place, trainings):
    arguments = ("eval", *trainings, "--model", place / "llava", "--pairs", place / "test.csv", "-o", place / "runs")
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    asked = [found.output.count(f"prompts of the {arm} arm") for arm in ("text", "caption", "image")]
    assert asked == [1, 1, len(VARIANTS)], "texts are read once; of pictures, the same projector is measured once"
    folder = next((place / "runs").glob("tga-eval-*"))
    table = pd.read_parquet(folder / "tables" / "variants.parquet")
    groups = ["before", *(f"{v}, captioned, 3 steps, batches of 4" for v in VARIANTS)]
    assert list(dict.fromkeys(table["group"])) == groups
    pictures = table[(table["arm"] == "image") & (table["judge"] == "")].set_index(["group", "measure"])["value"]
    # What has no gradient changes nothing that can be measured.
    for measure in ("captions named", "alignment excess"):
        assert pictures[groups[1], measure] == pictures[groups[2], measure]
    assert pictures[groups[3], "alignment excess"] != pictures[groups[1], "alignment excess"]
    (claim,) = read_claims(folder)
    assert not claim.established and "seeds" in claim.verdict, "one seed establishes nothing"
    page = (folder / "report.html").read_text("utf-8")
    assert all(f'id="{name}"' in page for name in ("refusals", "costs", "alignment", "gains"))
    assert "no model was loaded" in run(*arguments).output
    # Other words about the same pictures are another report.
    lines = (place / "test.csv").read_text("utf-8").splitlines()
    (place / "test.csv").write_text("\n".join([*lines[:-1], lines[-1].replace("thing", "another thing")]), "utf-8")
    assert "no model was loaded" not in run(*arguments).output
    (place / "test.csv").write_text("\n".join(lines), "utf-8")
    # The same bits under another name are another report.
    for own in (trainings[0], trainings[1]):
        assert own.name.removeprefix("out-") in run("eval", own, *arguments[4:]).output
    mapped = run(*arguments, "--transplants")
    assert mapped.exit_code == 0, mapped.output
    (transplants,) = (place / "runs").glob("tga-eval-*/tables/transplants.parquet")
    assert list(dict.fromkeys(pd.read_parquet(transplants)["group"])) == groups
    assert 'id="sufficiency_heatmap"' in (transplants.parent.parent / "report.html").read_text("utf-8")
    assert json.loads((folder / "study.json").read_text())["headlines"]


def test_what_is_no_training_is_refused(place, trainings):
    found = run("eval", place / "llava", "--model", place / "llava", "--pairs", place / "test.csv")
    assert found.exit_code == 2 and "holds no trained projector" in found.output
    found = run("eval", place / "out-paper", "--model", place / "llava", "--pairs", place / "pairs.csv")
    assert found.exit_code == 2 and "split train" in found.output
    # Whatever they are called, pictures that were trained on are known again.
    renamed = (place / "pairs.csv").read_text("utf-8").replace(",train", ",held-out")
    (place / "renamed.csv").write_text(renamed, "utf-8")
    found = run("eval", place / "out-paper", "--model", place / "llava", "--pairs", place / "renamed.csv")
    assert found.exit_code == 2 and "was trained on 12 of 36 pictures" in found.output
    found = trained(place, "paper", "--patience", 2, out=place / "patient")
    assert found.exit_code == 2 and "--evaluate-every" in found.output
    found = trained(place, "paper", "--retrieve-by", "pictures", out=place / "by")
    assert found.exit_code == 2 and "number of a layer" in found.output
    found = trained(place, "other")
    assert found.exit_code == 2 and "unknown variant" in found.output
    found = trained(place, "paper", "--arm", "none", out=place / "none")
    assert found.exit_code == 2 and "--arm 'none': choose one of left-out" in found.output


def test_a_trained_language_model_is_held_to_what_it_said_before(place):
    found = trained(place, "no-guide", "--lora", 2, out=place / "lora")
    assert found.exit_code == 0, found.output
    arguments = ("eval", place / "lora", "--model", place / "llava", "--pairs", place / "test.csv", "-o", place / "r")
    evaluated = run(*arguments)
    assert evaluated.exit_code == 0 and evaluated.output.count("prompts of the text arm") == 2
    table = pd.read_parquet(next((place / "r").glob("tga-eval-*")) / "tables" / "variants.parquet")
    kl = table[table["measure"] == "text KL (nats per token)"].set_index("group")
    assert kl.loc["before", "n"] == 0 and kl.loc["no-guide, captioned, 3 steps, batches of 4, LoRA", "value"] > 0
