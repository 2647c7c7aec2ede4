"""What is kept beside a run comes back bit for bit, or not at all."""

import numpy as np
import pytest

from interp.cache.derived import keep_arrays, keep_json, kept_arrays, kept_json

STAMP = {"run": "abc", "code": 1}


def test_values_come_back_under_their_stamp_only(tmp_path):
    keep_json(tmp_path, "responses", STAMP, ["Ja.", "对不起"])
    assert kept_json(tmp_path, "responses", STAMP) == ["Ja.", "对不起"]
    assert kept_json(tmp_path, "responses", {**STAMP, "code": 2}) is None
    assert kept_json(tmp_path, "other", STAMP) is None


def test_arrays_come_back_bit_for_bit(tmp_path):
    arrays = {"a": np.array([[1.5, np.inf], [np.nan, -0.0]]), "b": np.arange(3)}
    keep_arrays(tmp_path, "readings", STAMP, arrays)
    found = kept_arrays(tmp_path, "readings", STAMP)
    assert found is not None
    assert all(found[k].tobytes() == v.tobytes() and found[k].dtype == v.dtype for k, v in arrays.items())


def test_a_newer_value_replaces_an_older_one(tmp_path):
    keep_json(tmp_path, "x", STAMP, 1)
    keep_json(tmp_path, "x", STAMP, 2)
    assert kept_json(tmp_path, "x", STAMP) == 2


@pytest.mark.parametrize("name", ["readings.json", "readings.safetensors"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_damaged_file_is_as_good_as_none(tmp_path, name, where):
    keep_arrays(tmp_path, "readings", STAMP, {"a": np.arange(50.0)})
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    assert kept_arrays(tmp_path, "readings", STAMP) is None
    path.unlink()
    assert kept_arrays(tmp_path, "readings", STAMP) is None
