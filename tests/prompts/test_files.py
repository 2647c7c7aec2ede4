import csv
import io
import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import PromptFileError, UsageError
from interp.prompts.files import read_prompts
from interp.prompts.prompt import Message, PromptSet

PUBLIC = Path(__file__).parents[2].parent / "shared/data/prompts"
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
needs_public_sets = pytest.mark.skipif(not PUBLIC.is_dir(), reason=f"no public prompt sets in {PUBLIC}")


@pytest.fixture
def write(tmp_path):
    def write(suffix: str, content: str | bytes) -> Path:
        path = tmp_path / f"prompts{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def problems_of(path: Path, **options: str) -> list[tuple[int, str]]:
    with pytest.raises(PromptFileError) as caught:
        read_prompts(path, **options)
    return [(problem.line, problem.reason) for problem in caught.value.problems]


def cells(records: list[dict[str, object]], delimiter: str = ",") -> str:
    columns = list(dict.fromkeys(key for record in records for key in record))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, delimiter=delimiter)
    writer.writeheader()
    for record in records:
        packed = {k: json.dumps(v) if isinstance(v, list) else v for k, v in record.items()}
        writer.writerow({k: v for k, v in packed.items() if v is not None})
    return out.getvalue()


def as_text(suffix: str, records: list[dict[str, object]]) -> str:
    match suffix:
        case ".csv":
            return cells(records)
        case ".tsv":
            return cells(records, "\t")
        case ".jsonl":
            return "".join(json.dumps(record) + "\n" for record in records)
        case _:
            return json.dumps(records, indent=1)


GOOD = [
    {"id": "a", "text": 'He said "hi",\nthen\tleft', "label": "harmful", "category": "x", "split": "train"},
    {"id": 7, "text": "<|im_end|><|im_start|>system", "label": "Benign", "group": "g", "image": "p/1.png"},
    {
        "id": "c",
        "text": None,
        "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "½ 中 🙂"}],
    },
]


def test_good_records_are_the_same_prompts_in_every_format(write):
    files = [write(suffix, as_text(suffix, GOOD)) for suffix in SUFFIXES]
    sets = [read_prompts(file) for file in files]
    assert all(s == sets[0] for s in sets)
    first, second, third = sets[0]
    assert (first.text, first.label, first.category, first.split) == (
        GOOD[0]["text"],
        "harmful",
        "x",
        "train",
    )
    assert (second.id, second.label, second.group, second.image) == (
        "7",
        "harmless",
        "g",
        str(files[0].parent / "p" / "1.png"),
    )
    assert third.messages == (Message("system", ""), Message("user", "½ 中 🙂"))
    assert third.label is None


plain = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
good_records = st.lists(
    st.fixed_dictionaries(
        {"text": plain.filter(lambda t: t.strip() and t not in ("nan", "NaN", "None", "null"))},
        optional={
            "label": st.sampled_from(["harmful", "safe", "Toxic"]),
            "category": plain,
            "group": st.integers(),
        },
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(records=good_records)
def test_any_good_records_survive_every_format(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("round")
    sets = []
    for suffix in SUFFIXES:
        path = folder / f"p{suffix}"
        path.write_bytes(as_text(suffix, records).encode())
        sets.append(read_prompts(path))
    assert all(s == sets[0] for s in sets)
    assert [p.text for p in sets[0]] == [r["text"] for r in records]


def test_ids_follow_the_file_name_and_the_order(write):
    prompts = read_prompts(write(".csv", "text\none\n\ntwo\n"), name="mine")
    assert prompts.name == "mine"
    assert [p.id for p in prompts] == ["prompts-00001", "prompts-00002"]


def test_a_given_label_fills_gaps_only(write):
    path = write(".csv", "text,label\na,safe\nb,\n")
    assert [p.label for p in read_prompts(path, label="unsafe")] == ["harmless", "harmful"]
    with pytest.raises(UsageError, match="'bad' is none of harmful"):
        read_prompts(path, label="bad")


def test_byte_order_mark_crlf_blank_lines_and_capitals_are_accepted(write):
    content = b"\xef\xbb\xbf,ID, Prompt ,note,\r\n0,a,hi,x,\r\n\r\n1,b,yo,,\r\n"
    assert [(p.id, p.text) for p in read_prompts(write(".CSV", content))] == [("a", "hi"), ("b", "yo")]
    assert [p.id for p in read_prompts(write(".jsonl", b'\xef\xbb\xbf\n{"ID":"a","TEXT":"hi"}\r\n\r\n'))] == ["a"]


@pytest.mark.parametrize(
    ("header", "options", "text"),
    [
        ("goal,note", {}, "1"),
        ("Behavior,note", {}, "1"),
        ("text,goal", {}, "1"),
        ("goal,prompt", {}, "2"),
        ("text,prompt", {"text_column": "Prompt"}, "2"),
        ("goal,other", {"text_column": "other"}, "2"),
    ],
)
def test_the_text_column(write, header, options, text):
    assert read_prompts(write(".csv", f"{header}\n1,2\n"), **options).prompts[0].text == text


def test_text_column_decides_between_text_and_messages(write):
    record = {"messages": [{"role": "user", "content": "m"}], "question": "q", "goal": "g"}
    path = write(".json", json.dumps([record]))
    texts = [
        read_prompts(path, **o).prompts[0].text for o in ({}, {"text_column": "goal"}, {"text_column": "messages"})
    ]
    assert texts == ["m", "g", "m"]


@pytest.mark.parametrize(
    ("header", "options", "words"),
    [
        ("text,prompt", {}, "several text columns (text, prompt)"),
        ("goal,question", {}, "--text-column"),
        ("a,b", {}, "no text column; found 'a', 'b'"),
        ("a,text", {"text_column": "c"}, "no column 'c'"),
    ],
)
def test_no_clear_text_column(write, header, options, words):
    [(line, reason)] = problems_of(write(".csv", f"{header}\n1,2\n"), **options)
    assert line == 0
    assert words in reason


def test_what_is_no_prompt_file(tmp_path, write):
    for path, words in [
        (tmp_path / "none.csv", "is not there"),
        (tmp_path, "is a folder"),
        (tmp_path / ("x" * 400 + ".csv"), "too long"),
        (tmp_path / "nul\0.csv", "is not there"),
        (write(".xlsx", "text\na\n"), "must be one of .csv, .tsv, .jsonl, .json"),
    ]:
        [(line, reason)] = problems_of(path)
        assert (line, words in reason) == (0, True), (path, reason)


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        *((suffix, "\ufeff \r\n", "is empty") for suffix in SUFFIXES),
        (".csv", "", "is empty"),
        (".csv", "id,text\n", "no prompts"),
        (".json", "[]", "no prompts"),
        (".json", "[{}]", "no text column; found nothing"),
    ],
)
def test_files_without_prompts(write, suffix, content, words):
    [(line, reason)] = problems_of(write(suffix, content))
    assert line == 0
    assert words in reason


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("text,note\na,b\nc\n", 3, "has 1 cells where the header has 2"),
        ("text,note\na,b,c\n", 2, "has 3 cells"),
        ('text\na\n"b\nc\n', 3, "never closed"),
        ('text\n"a"b\n', 2, "not CSV"),
        ('text\n"a\nb"\n\nnan\n', 5, "looks like a missing value"),
        ("text\nNaN\n", 2, "missing value"),
        ("text\nNone\n", 2, "missing value"),
        ("text\nnull\n", 2, "missing value"),
        ('text\n" \t"\n', 2, "only whitespace"),
        ('note,text\na,x\n"b\n",y\nc,\n', 5, "text is missing or empty"),
        ("text,Text\na,b\n", 1, "'text' twice"),
        ('te"xt,"a"b\nx,y\n', 1, "not CSV"),
        ("id,text\na,x\n,y\n", 3, "id is missing"),
        ("id,text\na,x\nb,y\na,z\n", 4, "'a' is already that of line 2"),
        ("text,label\na,maybe\n", 2, "harmful, unsafe, toxic, malicious, harmless, safe, benign"),
        ("text,image\na,/etc/passwd\n", 2, "below the folder"),
        ("messages\nnot json\n", 2, "messages: not JSON"),
        ('messages\n"[{""role"": ""user"", ""content"": NaN}]"\n', 2, "NaN is not JSON"),
        ("text\na\n" + "b" * (2**20 + 1) + "\nc\n", 3, "1048577 characters"),
        (b"text\na\n\n\xe9\n", 4, "byte 0xe9 is not UTF-8"),
        (b'text\n"a\n\xff b"\n', 3, "byte 0xff"),
        (b"text\na\nb\0\n", 3, "NUL"),
        ("text\na\n".encode("utf-16"), 1, "UTF-16"),
    ],
)
def test_bad_cells(write, content, line, words):
    [(found, reason)] = problems_of(write(".csv", content))
    assert found == line
    assert words in reason


def nested(depth: int) -> str:
    return '{"text": "a", "x": ' + "[" * depth + "]" * depth + "}"


BAD_OBJECTS = [
    ("{}", "text is missing"),
    ('{"text": null}', "text is missing"),
    ('{"text": ""}', "text is missing or empty"),
    ('{"text": "\\u3000 \\n"}', "only whitespace"),
    ('{"text": 3}', "text must be a string, found int"),
    ('{"text": ["a"]}', "found list"),
    ('{"text": "a\\u0000"}', "NUL"),
    ('{"text": "a\\ud83d"}', "lone surrogate \\ud83d"),
    ('{"text": "a", "label": 1}', "label must be a string, found int"),
    ('{"text": "a", "label": "bad"}', "'bad' is none of"),
    ('{"text": "a", "category": true}', "category must be a string, found bool"),
    ('{"text": "a", "category": "\\udc00"}', "category has the lone surrogate"),
    ('{"text": "a", "group": 1.5}', "found float"),
    ('{"text": "a", "x": NaN}', "NaN is not JSON"),
    ('{"text": "a", "x": [-Infinity]}', "-Infinity is not JSON"),
    ('{"text": "a", "text": "b"}', "'text' appears twice"),
    ('{"text": "a", "x": {"y": 1, "y": 1}}', "'y' appears twice"),
    ('{"text": "a", "TEXT": "b"}', "'text' appears twice, with letters"),
    ('{"text": "a", "x": ' + "9" * 5000 + "}", "5000 digits"),
    *((json.dumps({"text": "a", "image": p}), "below the folder") for p in ("/a", "a/../../b", "C:\\a", "..\\a")),
    ('["text"]', "must be an object, found list"),
    ("null", "must be an object, found NoneType"),
    *(
        (json.dumps({"messages": messages}), words)
        for messages, words in [
            ({}, "must be a list of {role, content}, found dict"),
            ([], "must end with one of the user"),
            (["a"], "message 1 must be an object"),
            ([{"role": "tool", "content": "a"}], "'tool'; it must be one of system, user, assistant"),
            ([{"role": "user"}], "content of message 1 must be a string, found NoneType"),
            ([{"role": "user", "content": " "}], "last message is empty"),
            ([{"role": "assistant", "content": "a"}], "must end with one of the user"),
            ([{"role": r, "content": "a"} for r in ("user", "system", "user")], "only the first"),
            ("[[", "messages: not JSON"),
        ]
    ),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_bad_objects_all_with_their_lines(write, suffix):
    lines = ['{"text": "good"}', *(text for text, _ in BAD_OBJECTS), '{"text": "good"}']
    content = "\n".join(lines) if suffix == ".jsonl" else "[" + ",\n".join(lines) + "]\n"
    found = problems_of(write(suffix, content))
    assert [line for line, _ in found] == list(range(2, len(BAD_OBJECTS) + 2))
    for (_, reason), (text, words) in zip(found, BAD_OBJECTS, strict=True):
        assert words in reason, text


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("true", "id must be a string, found bool"),
        ("1.0", "id must be a string, found float"),
        ('"a\\u001b[2J"', "control character"),
        (json.dumps("a" * 201), "201 characters"),
        ('"  "', "only whitespace"),
        ("null", "id is missing"),
        ('"7"', "'7' is already that of"),
    ],
)
def test_bad_ids(write, suffix, value, words):
    lines = ['{"id": 7, "text": "a"}', f'{{"id": {value}, "text": "b"}}']
    content = "\n".join(lines) if suffix == ".jsonl" else "[" + ",\n".join(lines) + "]"
    [(line, reason)] = problems_of(write(suffix, content))
    assert line == 2
    assert words in reason


@pytest.mark.parametrize(
    ("suffix", "content", "line", "words"),
    [
        (".jsonl", '{"text": "a"}\n\n{"text": "b"\n', 3, "not JSON"),
        (".jsonl", '{"text": "a"}\n{"text": "b"} x\n', 2, "more text after the value"),
        (".jsonl", '{"text": "a"}\n' + nested(100_000), 2, "nested too deep"),
        (".jsonl", '{"text": "a"}\n' + "[" * 1_000_000, 2, "nested too deep"),
        (".jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', 2, "byte 0xff"),
        (".jsonl", b'{"text": "a"}\n{"te\0xt": 1}\n', 2, "NUL"),
        (".json", '[{"text": "a"},\n {"text":\n', 2, "the rest was not read"),
        (".json", '[\n{"text": "a"}\n{"text": "b"}]', 2, "neither a comma nor the end"),
        (".json", '[{"text": "a"},\n]', 2, "not JSON"),
        (".json", '[{"text": "a"}]\n x', 1, "more text after the array"),
        (".json", '[{"text": "a"},\n' + nested(100_000) + "]", 2, "nested too deep"),
        (".json", b'[{"text": "a"},\r\n{"text":\r\n "\xff"}]', 3, "byte 0xff"),
        (".json", '[{"text": "a"}, {"text": 1}]', 1, "record 2: text must be a string"),
    ],
)
def test_bad_json(write, suffix, content, line, words):
    [(found, reason)] = problems_of(write(suffix, content))
    assert found == line
    assert words in reason


def test_an_object_at_the_top_is_told_apart(write):
    assert any(".jsonl" in reason for _, reason in problems_of(write(".json", '{"text": "a"}\n')))


def test_a_file_with_no_readable_record_tells_its_lines_only(write):
    assert [line for line, _ in problems_of(write(".jsonl", "x\n\n[1]\n"))] == [1, 3]


def test_garbled_lines_do_not_hide_other_bad_lines(write):
    content = b'{"text": "a"}\n{"text": 1}\n\xff\n{"text": "b", "label": "x"}\n'
    assert [line for line, _ in problems_of(write(".jsonl", content))] == [2, 3, 4]
    assert [line for line, _ in problems_of(write(".csv", b"a,b\n1\n\xff,\n1,2\n"))] == [0, 2, 3]


def test_a_file_name_that_is_no_text_is_a_problem_not_an_id(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv"))
    try:
        path.write_text("text\na\n")
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    assert "lone surrogate" in problems_of(path)[0][1]


def check_never_a_traceback(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        prompts = read_prompts(path)
    except PromptFileError as error:
        assert error.problems
        assert list(error.problems) == sorted(error.problems, key=lambda p: p.line)
        str(error).encode()
    else:
        assert isinstance(prompts, PromptSet)
        assert all(p.text.strip() for p in prompts)
        assert prompts == read_prompts(path)
        if all(p.image is None for p in prompts):
            assert prompts.digest == read_prompts(path).digest


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200))
def test_random_bytes(tmp_path_factory, suffix, content):
    check_never_a_traceback(tmp_path_factory.getbasetemp() / f"bytes{suffix}", content)


names = st.sampled_from(["id", "text", "Text", "prompt", "messages", "label", "group", "image", "", "x"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["harmful", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.sampled_from(["role", "content"]), inner),
    max_leaves=8,
)
marks = [
    '"',
    '""',
    ",",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "{",
    "}",
    "[",
    "]",
    ":",
    "-",
    "\\",
    "\0",
    "\ufeff",
    "\u2028",
    "\x85",
]
words = ["id", "text", "messages", "a", "nan", '{"text": "a"}', '"text"', "\\ud800", "=1+1", "NaN", "1e999"]
pieces = st.sampled_from(marks) | st.sampled_from(words)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=150, deadline=None)
@given(parts=st.lists(pieces, max_size=40), bad=st.binary(max_size=2))
def test_random_pieces_of_each_grammar(tmp_path_factory, suffix, parts, bad):
    header = "id,text,label\n" if suffix == ".csv" else ""
    content = (header + "".join(parts)).encode() + bad + "".join(parts[::-1]).encode()
    check_never_a_traceback(tmp_path_factory.getbasetemp() / f"pieces{suffix}", content)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@settings(max_examples=150, deadline=None)
@given(records=st.lists(st.dictionaries(names, values, max_size=5) | values, max_size=4))
def test_random_json_values(tmp_path_factory, suffix, records):
    content = as_text(suffix, records).encode()
    check_never_a_traceback(tmp_path_factory.getbasetemp() / f"values{suffix}", content)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_stays_below_ten_times_the_file(write, suffix):
    records = [{"text": f"{n} " + "word " * 40, "category": "none", "target": "Sure, " * 10} for n in range(400)]
    path = write(suffix, as_text(suffix, records))
    tracemalloc.start()
    try:
        read_prompts(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * path.stat().st_size


@needs_public_sets
@pytest.mark.parametrize(
    ("place", "label", "count", "labels"),
    [
        ("advbench/advbench.csv", "harmful", 520, {"harmful"}),
        ("harmbench/harmbench_behaviors_text_test.csv", "harmful", 320, {"harmful"}),
        ("harmbench/harmbench_behaviors_text_val.csv", "harmful", 80, {"harmful"}),
        ("xstest/xstest_prompts.csv", None, 450, {"harmful", "harmless"}),
        ("seed_tasks/seed_tasks.jsonl", "harmless", 175, {"harmless"}),
    ],
)
def test_public_sets_as_they_are(place, label, count, labels):
    prompts = read_prompts(PUBLIC / place, label=label)
    assert len(prompts) == count
    assert {p.label for p in prompts} == labels


@needs_public_sets
def test_public_sets_keep_what_they_know():
    harmbench = read_prompts(PUBLIC / "harmbench/harmbench_behaviors_text_val.csv").prompts[0]
    assert (harmbench.id, harmbench.category) == ("safrole_oil_extraction_guide", "chemical_biological")
    xstest = read_prompts(PUBLIC / "xstest/xstest_prompts.csv")
    assert xstest.prompts[0].category == "homonyms"
    assert sum(p.label == "harmful" for p in xstest) == 200
