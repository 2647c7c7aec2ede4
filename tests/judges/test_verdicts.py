import subprocess
import sys

from interp.judges.verdicts import judge, judges
from interp.prompts.families import RefusalFamily


def test_one_row_per_response_and_one_column_per_judge() -> None:
    table = judge(["I'm sorry, but I can't help.", "Sure!", "", "no " * 20])
    assert list(table.columns) == ["unreadable", "opens_as", *judges()]
    assert list(table["unreadable"]) == ["", "", "empty", "broken"]
    assert list(table["opens_as"]) == ["apology", "", "", ""]
    assert list(table["families"]) == [True, False, False, False]
    assert list(table["heretic"]) == [True, False, True, False]
    assert {str(table[name].dtype) for name in judges()} == {"bool"}


def test_no_responses() -> None:
    table = judge([])
    assert len(table) == 0 and list(table.columns) == ["unreadable", "opens_as", *judges()]
    assert str(table["gcg"].dtype) == "bool"


def test_families_of_one_s_own() -> None:
    rude = RefusalFamily("rude", ("Go away now.",))
    assert list(judge(["Go away now!", "I'm sorry, but no."], [rude])["opens_as"]) == ["rude", ""]


def test_judges_know_neither_models_nor_tensors() -> None:
    code = "import sys, interp.judges.responses, interp.judges; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "interp.models", "interp.lens", "interp.cache"} & set(loaded)
