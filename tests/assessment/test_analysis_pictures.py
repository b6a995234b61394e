"""The picture of an analysis shows what was told, and nothing that was told could be anything but text in it."""

from typing import Any
from xml.etree import ElementTree

from tools.plot_analysis import draw

SVG = "{http://www.w3.org/2000/svg}"
ITEM = {"facility": "0.5", "discrimination": "0.31"}
TOLD: dict[str, Any] = {
    "attemptCount": 3,
    "distribution": [0, 0, 1, 0, 0, 0, 0, 2, 0, 0],
    "mean": "56.25",
    "items": [ITEM, {"facility": "1"}, {**ITEM, "discrimination": "-0.2"}],
}


def drawn(told: dict[str, Any], title: str = "Quiz") -> ElementTree.Element:
    return ElementTree.fromstring(draw(told, title))  # noqa: S314  # our own


class TestPicture:
    def test_has_a_bar_for_each_tenth_and_a_point_for_each_question_with_figures(self) -> None:
        picture = drawn(TOLD)
        heights = [float(one.get("height", "0")) for one in picture.iter(f"{SVG}rect")]
        assert [height > 0 for height in heights] == [False, False, True, *[False] * 4, True, False, False]
        assert [one.get("class") for one in picture.iter(f"{SVG}circle")] == ["good", "weak"]

    def test_says_what_is_not_defined(self) -> None:
        texts = [one.text or "" for one in drawn(TOLD).iter(f"{SVG}text")]
        assert any("mean 56.2 %" in text and "reliability –" in text for text in texts)

    def test_of_nothing_is_a_picture(self) -> None:
        assert drawn({}).tag == f"{SVG}svg"

    def test_takes_titles_as_text(self) -> None:
        texts = [one.text or "" for one in drawn(TOLD, "<b>&").iter(f"{SVG}text")]
        assert "<b>&: 3 attempts" in texts
