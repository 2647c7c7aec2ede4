"""Pictures from the command line: a CSV with an image column, harvested from a folder."""

import pytest
import torch
from typer.testing import CliRunner

from interp.cache import ActivationCache
from interp.cli import app
from tests.sights import picture, save_tiny_llava


def interp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp("llava"))


def harvested(folder, tmp_path, rows, positions):
    (tmp_path / "pictures").mkdir(exist_ok=True)
    for i in range(3):
        picture(tmp_path / "pictures" / f"{i}.png", i)
    (tmp_path / "p.csv").write_text("id,text,image,caption\n" + rows)
    return interp("harvest", folder, tmp_path / "p.csv", "--positions", positions, "-o", tmp_path / "runs", "--offline")


def test_harvest_of_a_file_with_pictures(folder, tmp_path):
    rows = "".join(f"p{i},Describe this scene.,pictures/{i}.png,\n" for i in range(3))
    result = harvested(folder, tmp_path, rows, "image_mean,t_post")
    assert result.exit_code == 0, result.output
    cache = ActivationCache.open(result.stdout.split()[-1])
    assert cache.positions == ("image_mean", "t_post")
    assert torch.pdist(cache.residuals(position="image_mean", layer=0)).min() > 0.01
    again = harvested(folder, tmp_path, rows, "image_mean,t_post")
    assert again.stdout == result.stdout


def test_captions_and_pictures_in_one_file(folder, tmp_path):
    rows = "a,Describe this scene.,pictures/0.png,\nb,Describe this scene.,,a kitchen knife\n"
    assert harvested(folder, tmp_path, rows, "t_inst,t_post").exit_code == 0
    refused = harvested(folder, tmp_path, rows, "caption_mean")
    assert refused.exit_code == 2 and "prompt 'a' has no caption in its slot" in refused.stderr


def test_a_picture_that_is_not_there_ends_with_its_path(folder, tmp_path):
    result = harvested(folder, tmp_path, "a,Describe this scene.,pictures/9.png,\n", "t_post")
    assert result.exit_code == 3
    assert f"{tmp_path}/pictures/9.png: is not there" in result.stderr


def test_a_model_of_text_refuses_pictures(tiny_folder, tmp_path):
    result = harvested(tiny_folder, tmp_path, "a,Describe this scene.,pictures/0.png,\n", "t_post")
    assert result.exit_code == 2 and "prompt 'a' has a picture" in result.stderr
