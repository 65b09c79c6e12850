"""What was measured, as JSON and Markdown, whatever the values and the names."""

import json

from jobs.tables import Table, as_json


def test_names_of_classes_end_no_cell_of_a_table():
    table = Table({"fid": {"cat|dog": 1.0, "two\nlines": 2.0}}, rows_are="class")
    assert table.markdown().splitlines()[2:] == [r"| `cat\|dog` | 1 |", "| `two lines` | 2 |"]


def test_arrows_tell_which_way_a_metric_is_better():
    table = Table(
        {"a": {"judge_fid": 2.0, "judge_kid_std": 1.0}, "b": {"judge_fid": 3.0}}, models=2
    )
    names = [line.split("  ")[0] for line in table.text().splitlines()]
    assert names == ["", "judge_fid ↓", "judge_kid_std"]
    assert table.legend() == "↓: less is better, ↑: more is; *: the best of the models"
    assert Table({"a": {"psnr": 30.0}}).legend() == ""
    by_class = Table({"gan_test": {"swd": 1.0}}, rows_are="class")  # a class of that name
    assert by_class.markdown().endswith("| `swd` | 1 |")


def test_what_is_no_finite_number_is_null_in_json():
    tree = {"psnr": float("inf"), "beside": {"a": [float("nan"), 1.5]}, "split": "test", "n": 3}
    told = json.loads(as_json(tree))
    assert told == {"psnr": None, "beside": {"a": [None, 1.5]}, "split": "test", "n": 3}
