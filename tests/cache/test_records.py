import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.cache.identity import run_key
from interp.cache.records import parse_json, read_json, require_manifest, require_record, write_json
from interp.errors import CacheError, CorruptShard

DIGEST = "0" * 64


def test_what_is_written_is_read(tmp_path):
    value = {"b": [1, 2.5, None], "a": "é 漢"}
    assert write_json(tmp_path / "r.json", value)
    assert read_json(tmp_path / "r.json") == value
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == 0o444


def test_a_record_is_never_replaced(tmp_path):
    write_json(tmp_path / "r.json", {"a": 1})
    assert not write_json(tmp_path / "r.json", {"a": 2})
    assert read_json(tmp_path / "r.json") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_every_single_bit_of_a_record_matters(tmp_path):
    write_json(tmp_path / "r.json", {"rows": 4, "host": "é", "seconds": 0.25, "none": None, "list": [1, {}]})
    data = (tmp_path / "r.json").read_bytes()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptShard):
            parse_json(bytes(flipped), "r.json")


def test_every_truncation_of_a_record_is_noticed(tmp_path):
    write_json(tmp_path / "r.json", {"rows": 4})
    data = (tmp_path / "r.json").read_bytes()
    for end in range(len(data)):
        with pytest.raises(CorruptShard):
            parse_json(data[:end], "r.json")


@given(st.binary() | st.text().map(str.encode) | st.recursive(st.none() | st.integers(), st.lists).map(json.dumps))
def test_anything_else_is_corrupt_and_no_traceback(data):
    with pytest.raises(CorruptShard, match=r"r\.json"):
        parse_json(data if isinstance(data, bytes) else data.encode(), "r.json")


@pytest.mark.parametrize("data", [b"[]", b"null", b"{}", b'{"sha256":1}', b"[" * 100_000, b'{"sha256":NaN}'])
def test_json_that_is_no_record_is_corrupt(data):
    with pytest.raises(CorruptShard):
        parse_json(data, "r.json")


def test_a_missing_record_is_corrupt_and_a_folder_unreadable(tmp_path):
    with pytest.raises(CorruptShard, match="no file"):
        read_json(tmp_path / "r.json")
    with pytest.raises(CacheError, match="could not be read"):
        read_json(tmp_path)


def test_a_manifest_is_of_its_own_identity_and_format():
    identity = {"format": 1, "model.name": "a"}
    assert require_manifest({"identity": identity, "key": run_key(identity)}, "m")
    for key in ("0" * 16, None):
        with pytest.raises(CorruptShard, match=run_key(identity)):
            require_manifest({"identity": identity, "key": key}, "m")
    with pytest.raises(CorruptShard):
        require_manifest({"run": "a", "shard": 3}, "m")
    with pytest.raises(CacheError, match="cache format 2, this version reads 1; update"):
        require_manifest({"identity": {"format": 2}, "key": "anything"}, "m")


def test_a_commit_record_is_of_its_own_run_and_shard():
    assert require_record({"run": "a", "shard": 3, "data_sha256": DIGEST}, "r", run="a", shard=3)
    for other in ({"run": "b", "shard": 3}, {"run": "a", "shard": 4}, {}):
        with pytest.raises(CorruptShard, match="expected run a shard 3"):
            require_record({**other, "data_sha256": DIGEST}, "r", run="a", shard=3)


@pytest.mark.parametrize("digest", ["", None, "../" * 21 + ".", "/etc/passwd", DIGEST + "\n", DIGEST.replace("0", "G")])
def test_a_digest_that_would_lead_out_of_the_folder_is_refused(digest):
    with pytest.raises(CorruptShard, match="digest"):
        require_record({"run": "a", "shard": 3, "data_sha256": digest}, "r", run="a", shard=3)
