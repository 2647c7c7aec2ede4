import torch

from interp.tga.processes import Processes


def test_one_process_is_alone():
    alone = Processes()
    assert (alone.count, alone.rank, alone.device) == (1, 0, None)
    x = torch.ones(2)
    assert alone.total(x) is x
    assert alone.any(True) and not alone.any(False)
    with alone.one_first():
        alone.wait()
