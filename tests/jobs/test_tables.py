"""What was measured, as JSON and Markdown, whatever the values and the names."""

import json

from jobs.tables import Table, as_json


def test_names_of_classes_end_no_cell_of_a_table():
    table = Table({"fid": {"cat|dog": 1.0, "two\nlines": 2.0}}, rows_are="class")
    assert table.markdown().splitlines()[2:] == [r"| `cat\|dog` | 1 |", "| `two lines` | 2 |"]


def test_what_is_no_finite_number_is_null_in_json():
    tree = {"psnr": float("inf"), "beside": {"a": [float("nan"), 1.5]}, "split": "test", "n": 3}
    told = json.loads(as_json(tree))
    assert told == {"psnr": None, "beside": {"a": [None, 1.5]}, "split": "test", "n": 3}
