import os
import socket
import subprocess
import sys

import torch
from safetensors.torch import load_file

from interp.models.identity import TRAINED_PROJECTOR
from interp.tga.processes import Processes
from tests.test_laws import ROOT

SCRIPT = """
import sys
from pathlib import Path
from interp.tga.recipe import Recipe
from interp.tga.trainer import train
from interp.tga.variants import variant
from tests.tga.seeing import tiny_llava, tiny_training

out, data = (Path(a) for a in sys.argv[1:])
recipe = Recipe(variant("centred", layers=(1, 2)), steps=3, batch=8, micro_batch=5, learning_rate=1e-2)
train(tiny_llava(), tiny_training(data), recipe, out)
"""


def start(out, data, **environment):
    """One process of a training; what it imports is the code under test."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), str(data)], env=env, cwd=ROOT)


def test_one_process_is_alone():
    alone = Processes()
    assert (alone.count, alone.rank, alone.device) == (1, 0, None)
    x = torch.ones(2)
    assert alone.total(x) is x
    alone.wait()


def test_two_processes_train_what_one_trains(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        start(tmp_path / "two", tmp_path / f"data{k}", RANK=str(k), LOCAL_RANK=str(k), **meeting) for k in range(2)
    ]
    running.append(start(tmp_path / "one", tmp_path / "data"))
    assert [process.wait(timeout=280) for process in running] == [0, 0, 0]
    one, two = (load_file(tmp_path / k / TRAINED_PROJECTOR / "projector.safetensors") for k in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-4, rtol=1e-4)
