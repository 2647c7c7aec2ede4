"""`interp align` in process, on a tiny LLaVA and a tiny sentence encoder."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.ledger import read_claims
from tests.models.encoders import save_clip
from tests.sights import picture, save_tiny_llava

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, an encoder, and pairs of ten scenes and ten twins."""
    folder = tmp_path_factory.mktemp("align")
    save_tiny_llava(folder / "llava")
    save_clip(folder / "clip")
    rows = ["id,image,caption,scene,twin_of"]
    for i in range(20):
        picture(folder / f"{i}.png", i, size=(16, 16))
        rows.append(f"p{i},{i}.png,thing number {i},knife,{'' if i < 10 else f'p{i - 10}'}")
    (folder / "pairs.csv").write_text("\n".join(rows), "utf-8")
    return folder


def interp(place, *more, interventions=False):
    arguments = ["align", place / "llava", place / "pairs.csv", "--encoder", place / "clip", "-o", place / "runs"]
    how = ["--interventions" if interventions else "--no-interventions", "--offline"]
    return CliRunner().invoke(app, [str(a) for a in (*arguments, *how, *more)])


def test_align_writes_a_report_with_claims_and_floors_and_does_nothing_twice(place):
    found = interp(place)
    assert found.exit_code == 0, found.output
    folder = next((place / "runs").glob("align-*"))
    assert "the raw cosine of a picture with its caption" in found.stdout and str(folder) in found.stdout
    claims = read_claims(folder)
    assert {c.locator for c in claims} == {"alignment_excess", "less_aligned", "separation"}
    references = {c.family for c in claims if c.locator == "less_aligned"}
    assert references == {"local", "local on pictures", "own description"}
    layers = pd.read_parquet(folder / "tables" / "layers.parquet")
    assert layers.loc[layers["locator"] == "cosine", "floor"].notna().all()
    said = pd.read_parquet(folder / "tables" / "descriptions.parquet")
    assert len(said) == 20 and (said["description"] != "").all()
    again = interp(place)
    assert "no model was loaded" in again.output
    other = interp(place, "--layers", "2-3")
    assert other.exit_code == 0 and "Loading local" not in other.output, other.output
    assert len(list((place / "runs").glob("align-*"))) == 2


def test_interventions_join_the_study_and_a_random_model_hears_nothing(place):
    found = interp(place, interventions=True)
    assert found.exit_code == 0, found.output
    folder = next(f for f in (place / "runs").glob("align-*") if (f / "tables" / "transplants.parquet").is_file())
    claims = read_claims(folder)
    assert {"alignment_excess", "separation"} < {c.locator for c in claims}
    assert not any(c.established for c in claims if c.locator.startswith("transplant"))
    assert {"ladder", "transfer", "placements", "layers"} <= {f.stem for f in (folder / "tables").glob("*.parquet")}
    assert "no model was loaded" in interp(place, interventions=True).output


def test_what_can_not_be_compared_is_refused(place):
    assert interp(place, "--layers", "all").exit_code == 2
    lone = place / "few.csv"
    lone.write_text("image,caption,scene\n" + "".join(f"{i}.png,thing {i},knife\n" for i in range(3)), "utf-8")
    found = CliRunner().invoke(app, ["align", str(place / "llava"), str(lone), "-o", str(place / "r"), "--offline"])
    assert found.exit_code == 2 and "3 concepts" in found.output
    found = CliRunner().invoke(app, ["align", str(place / "llava"), "scenes:other", "--offline"])
    assert found.exit_code == 2 and "choose one of train, validation, test, fresh, unknown" in found.output
