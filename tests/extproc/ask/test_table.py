from extproc.ask.table import plain, shortened, table


def test_words_are_aligned_to_the_left_and_figures_to_the_right():
    assert table(["pod", "n", "age"], [["default/a", "7", "0.1 s"], ["b", "1024", "-"]], 80) == [
        "pod           n    age",
        "default/a     7  0.1 s",
        "b          1024      -",
    ]


def test_words_at_the_end_have_no_blanks_behind_them():
    assert table(["pod", "reason"], [["a", "x"]], 80, words=2) == ["pod  reason", "a    x"]


def test_what_is_too_long_for_the_width_loses_its_end():
    assert table(["pod", "reason"], [["a", "asleep or paused"]], 10, words=2) == ["pod  reas…", "a    asle…"]


def test_a_table_without_rows_is_its_header():
    assert table(["a", "b"], [], 80) == ["a  b"]


def test_a_width_of_nothing_is_survived():
    assert shortened("abc", 0) == "…"
    assert shortened("abc", 3) == "abc"


def test_nothing_steers_the_terminal():
    assert plain("\x1b[31mred\x07\n\u202e") == "�[31mred���"
    assert table(["pod"], [["a\x1b[2J"]], 80) == ["pod", "a�[2J"]
