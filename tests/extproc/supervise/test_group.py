import pytest

from extproc.supervise import check_group


@pytest.mark.parametrize("text", ["default", "team-1.eu_2", "a" * 63, "7"])
def test_groups(text):
    check_group(text)


@pytest.mark.parametrize(
    "text", ["", "{a}", "a}b", "a/b", "a:b", "a b", "-a", "a" * 64, "a\n", "é", "\udcff"]
)
def test_what_is_no_group(text):
    with pytest.raises(ValueError, match="is no group: write at most 63 letters"):
        check_group(text)
