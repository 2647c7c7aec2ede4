import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from interp.cache import shard as shard_module
from interp.cache.records import read_json
from interp.cache.shard import check_shard, data_name, write_shard
from interp.errors import CacheError, CorruptShard
from tests.cache.samples import names

TENSORS = {"resid_post.t_inst": torch.arange(24.0).reshape(2, 3, 4)}
OTHER = {"resid_post.t_inst": torch.arange(24.0).reshape(2, 3, 4) + 1e-6}
ABOUT = {"run": "a", "shard": 7, "rows": 2}


@pytest.fixture
def record_path(tmp_path):
    return tmp_path / "00007.json"


def data_of(record_path):
    return record_path.with_name(data_name(7, read_json(record_path)))


def test_a_shard_is_its_data_and_its_record(record_path):
    write_shard(record_path, TENSORS, ABOUT)
    data, record = data_of(record_path), read_json(record_path)
    assert record["data_sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert record["bytes"] == data.stat().st_size
    assert torch.equal(load_file(data)["resid_post.t_inst"], TENSORS["resid_post.t_inst"])
    check_shard(data, record)
    assert names(record_path.parent) == {data.name, record_path.name}


def test_the_same_again_changes_nothing(record_path):
    write_shard(record_path, TENSORS, ABOUT)
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in record_path.parent.iterdir()}
    write_shard(record_path, TENSORS, {**ABOUT, "seconds": 3})
    assert {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in record_path.parent.iterdir()} == before


def refuses_another(record_path, write):
    with pytest.raises(CacheError, match="two workers computed this shard differently") as error:
        write()
    committed = json.loads(record_path.read_text())["data_sha256"]
    assert committed in str(error.value)
    assert len(set(str(error.value).split()) & {f"{committed},"}) == 1
    assert torch.equal(load_file(data_of(record_path))["resid_post.t_inst"], TENSORS["resid_post.t_inst"])
    check_shard(data_of(record_path), read_json(record_path))
    assert len(names(record_path.parent)) == 2


def test_another_result_is_refused_and_the_committed_one_stays(record_path):
    write_shard(record_path, TENSORS, ABOUT)
    refuses_another(record_path, lambda: write_shard(record_path, OTHER, ABOUT))


@pytest.mark.parametrize("when", ["before its record", "before its data"])
def test_another_result_at_the_same_moment_is_refused_too(record_path, monkeypatch, when):
    """The other worker commits after this one has looked and found nothing."""
    name = "write_json" if when == "before its record" else "publishing"
    real = getattr(shard_module, name)

    def overtaken(*args, **options):
        monkeypatch.setattr(shard_module, name, real)
        write_shard(record_path, TENSORS, ABOUT)
        return real(*args, **options)

    monkeypatch.setattr(shard_module, name, overtaken)
    refuses_another(record_path, lambda: write_shard(record_path, OTHER, ABOUT))


def test_data_that_a_crash_left_without_a_record_goes_with_the_next_commit(record_path):
    write_shard(record_path, OTHER, ABOUT)
    record_path.unlink()
    write_shard(record_path, TENSORS, ABOUT)
    assert len(names(record_path.parent)) == 2
    check_shard(data_of(record_path), read_json(record_path))


def test_damaged_data_without_a_record_is_written_again(record_path):
    write_shard(record_path, TENSORS, ABOUT)
    data, record = data_of(record_path), read_json(record_path)
    record_path.unlink()
    data.unlink()
    data.write_bytes(b"damaged")
    write_shard(record_path, TENSORS, ABOUT)
    check_shard(data, record)


def test_damage_is_named_with_what_was_expected_and_found(record_path):
    write_shard(record_path, TENSORS, ABOUT)
    data, record = data_of(record_path), read_json(record_path)
    content = data.read_bytes()
    data.unlink()
    for damaged, message in (
        (content[:-1], rf"expected {len(content)} bytes, found {len(content) - 1} bytes"),
        (b"", "found 0 bytes"),
        (content[:-4] + b"\0\0\0\0", rf"expected sha256 {record['data_sha256']}, found sha256 [0-9a-f]{{64}}"),
    ):
        data.write_bytes(damaged)
        with pytest.raises(CorruptShard, match=message):
            check_shard(data, record)
    data.unlink()
    with pytest.raises(CorruptShard, match=r"memory://x: .*found no file"):
        check_shard(data, record, place="memory://x")
    data.mkdir()
    with pytest.raises(CorruptShard, match="no file"):
        check_shard(data, record)


def test_what_can_not_be_read_is_no_damage(record_path, monkeypatch):
    write_shard(record_path, TENSORS, ABOUT)

    def fail(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shard_module, "sha256_file", fail)
    with pytest.raises(CacheError, match=r"could not be read: .*Permission denied") as error:
        check_shard(data_of(record_path), read_json(record_path))
    assert not isinstance(error.value, CorruptShard)
