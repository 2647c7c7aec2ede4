import json
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.errors import PromptFileError, UsageError
from interp.prompts.hub import load_prompts, read_hub
from interp.prompts.prompt import Message, PromptSet, user_prompt

datasets = pytest.importorskip("datasets")
ROWS = [
    {"id": "a", "prompt": "one", "label": "safe", "type": "x"},
    {"id": "b", "prompt": "two", "label": None, "type": None},
]


@pytest.fixture(autouse=True)
def library_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    def folder(**splits: list[dict[str, object]]) -> str:
        place = tmp_path / "mine"
        place.mkdir()
        for split, rows in splits.items():
            (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"hf:{place}"

    return folder


def problems_of(dataset: str, **options: object) -> list[tuple[int, str]]:
    with pytest.raises(PromptFileError) as caught:
        read_hub(dataset, **options)
    return [(problem.line, problem.reason) for problem in caught.value.problems]


def test_a_dataset_folder(folder):
    where = folder(train=ROWS, test=ROWS[:1])
    prompts = read_hub(where, label="harmful", offline=True)
    assert prompts.name == where
    assert [(p.id, p.text, p.label, p.category) for p in prompts] == [
        ("a", "one", "harmless", "x"),
        ("b", "two", "harmful", None),
    ]
    assert len(read_hub(f"{where}::test")) == 1
    assert len(read_hub(f"{where}:default:train[:1]")) == 1


def test_the_split_is_train_or_the_only_one_or_asked_for(folder):
    assert len(read_hub(folder(test=ROWS))) == 2


def test_several_splits_without_train_are_listed(folder):
    where = folder(test=ROWS, validation=ROWS)
    [(line, reason)] = problems_of(where)
    assert line == 0
    assert "validation, test" in reason or "test, validation" in reason
    assert f"{where}::" in reason


def test_conversations_and_made_ids(folder):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    prompts = read_hub(folder(train=[{"messages": turns}])).prompts
    assert prompts[0].messages == (Message("system", "s"), Message("user", "u"))
    assert prompts[0].id == "mine-00001"


def test_every_bad_row_is_told(folder):
    rows = [
        {"id": "a", "text": "x", "label": "safe"},
        {"id": "a", "text": "y", "label": "safe"},
        {"id": "c", "text": " ", "label": "safe"},
        {"id": "d", "text": None, "label": "safe"},
        {"id": "e", "text": "z", "label": "grim"},
    ]
    found = problems_of(folder(train=rows))
    assert [line for line, _ in found] == [2, 3, 4, 5]
    expected = [
        "row 2: id 'a' is already that of row 1",
        "only whitespace",
        "missing or empty",
        "'grim' is none of",
    ]
    assert all(words in reason for (_, reason), words in zip(found, expected, strict=True))


def test_text_that_is_not_utf8_is_a_bad_row(tmp_path):
    place = tmp_path / "bytes"
    place.mkdir()
    texts = pa.array([b"good", b"\xff", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), place / "train.parquet")
    assert problems_of(f"hf:{place}") == [(2, "row 2: has text that is not UTF-8")]


@pytest.mark.parametrize(("part", "words"), [("none", "'none' not found"), (":none", 'Unknown split "none"')])
def test_a_config_or_split_that_is_not_there(folder, part, words):
    [(line, reason)] = problems_of(f"{folder(train=ROWS)}:{part}")
    assert line == 0
    assert words in reason


def test_the_text_column_is_chosen_as_in_files(folder):
    where = folder(train=[{"goal": "g", "question": "q"}])
    assert "--text-column" in problems_of(where)[0][1]
    assert read_hub(where, text_column="question").prompts[0].text == "q"


def test_broken_data_is_one_line(tmp_path):
    place = tmp_path / "broken"
    place.mkdir()
    (place / "train.jsonl").write_text('{"text": "a"}\n{"text"')
    [(line, reason)] = problems_of(f"hf:{place}")
    assert line == 0
    assert "\n" not in reason
    assert "JSON" in reason


def test_offline_asks_for_no_connection_and_no_address(monkeypatch):
    import huggingface_hub

    switches = (datasets.config, huggingface_hub.constants)
    for module in switches:
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *to, **_: asked.append(to))
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: asked.append(to))

    problems_of("hf:no-such-org/no-such-name", offline=False)
    assert asked, "without offline the network is asked, so the trap works"
    asked.clear()
    [(line, reason)] = problems_of("hf:no-such-org/no-such-name", offline=True)
    assert (line, asked) == (0, [])
    assert reason.startswith("is not in the local cache")
    assert [module.HF_HUB_OFFLINE for module in switches] == [False, False]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("no route\nto host"), "check the network"),
        (FileNotFoundError("Dataset 'org/name' doesn't exist"), "can not be loaded: Dataset 'org/name'"),
        (RuntimeError(), "can not be loaded: RuntimeError"),
    ],
)
def test_errors_of_the_library_are_one_line(monkeypatch, error, words):
    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    [(line, reason)] = problems_of("hf:org/name")
    assert (line, "\n" in reason) == (0, False)
    assert words in reason


@pytest.mark.parametrize("where", ["hf:", "hf:csv", "hf::a:b", "org/name"])
def test_what_names_no_dataset(where):
    with pytest.raises(UsageError, match="hf:org/name:config:split"):
        read_hub(where)


def test_load_prompts_knows_every_place(folder, tmp_path, monkeypatch):
    asked = []
    fake = lambda split: asked.append(split) or PromptSet("twins", (user_prompt("a", "b"),))  # noqa: E731
    monkeypatch.setattr("interp.prompts.twins.bundled_twins", fake)
    assert load_prompts("twins").name == load_prompts("twins:test").name == "twins"
    assert asked == [None, "test"]
    assert len(load_prompts(folder(train=ROWS), label="harmful", offline=True)) == 2
    path = Path(tmp_path / "twins.csv")
    path.write_text("goal,other\na,b\n")
    assert load_prompts(path, text_column="other", name="n").prompts[0].text == "b"
    with pytest.raises(PromptFileError, match="is not there"):
        load_prompts("nothing.csv")
