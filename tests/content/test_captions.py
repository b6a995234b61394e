"""Captions: what is read, refused, matched and written."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content import captions
from services.content.captions import CaptionError, Cue, Piece

VTT = """WEBVTT - a title
Kind: captions

NOTE not heard

STYLE
::cue { color: red }

1
00:00.000 --> 00:01.500 align:start
<v Lan>Xin <b>chào</b> &amp; tạm biệt

00:00:02.000 --> 01:00:03.250
- hai
- ba
"""
SRT = "\ufeff1\r\n00:00:00,000 --> 00:00:01,5\r\n{\\an8}<i>Xin</i> chào\r\n\r\n00:00:02.000-->00:00:03.000\r\nhai"


class TestRead:
    def test_webvtt(self) -> None:
        cues = captions.read(VTT)
        assert cues == [Cue(0, 1500, "Xin chào & tạm biệt"), Cue(2000, 3603250, "- hai - ba")]

    def test_srt_as_it_is_found(self) -> None:
        assert captions.read(SRT) == [Cue(0, 1500, "Xin chào"), Cue(2000, 3000, "hai")]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "no cue"),
            ("WEBVTT", "no cue"),
            ("WEBVTTX\n\n00:00.000 --> 00:01.000\na", "line 1"),
            ("1\n00:00:00,000 --> 00:00:01,000\nA\n\n2\n00:0x:01,000 --> 00:00:02,000\nB", "line 6"),
            ("1\n00:00:00,000 --> 00:00:01,000\nA\n00:00:01,000 --> 00:00:02,000\nB", "line 2: no blank line"),
            ("WEBVTT\n\nid\nanother\n00:00.000 --> 00:01.000\na", "line 4"),
            ("WEBVTT\n\n00:00.000 --> 00:61.000\na", "line 3"),
            (f"WEBVTT\n\n00:00.000 --> {'9' * 5000}:00:01.000\na", "line 3"),
            ("WEBVTT\n\n00:01.000 --> 00:01.000\na", "ends before it begins"),
            ("WEBVTT\n\n00:01.000 --> 00:02.000\na\n\n00:00.000 --> 00:02.000\nb", "begins before the one above"),
            ("WEBVTT\n\n00:01.000 --> 00:02.000\na\n\n00:01.000 --> 00:02.000\nb", "begins with the one above"),
        ],
    )
    def test_names_the_line_that_is_wrong(self, text: str, why: str) -> None:
        with pytest.raises(CaptionError, match=why):
            captions.read(text)

    def test_leaves_out_numbers_that_name_no_character(self) -> None:
        text = f"WEBVTT\n\n00:00.000 --> 00:02.000\na&#{'9' * 5000};&#98;"
        assert captions.read(text) == [Cue(0, 2000, "ab")]

    def test_cuts_cues_that_overlap(self) -> None:
        text = "WEBVTT\n\n00:00.000 --> 00:02.000\na\n\n00:01.900 --> 00:03.000\nb"
        assert [(one.start, one.end) for one in captions.read(text)] == [(0, 1900), (1900, 3000)]

    def test_takes_so_many_cues_and_no_more(self) -> None:
        block = "00:00:{:06.3f} --> 00:00:{:06.3f}\nx\n"
        text = "\n".join(block.format(n / 1000, (n + 1) / 1000).replace(".", ",") for n in range(captions.MOST_CUES))
        assert len(captions.read(text)) == captions.MOST_CUES
        with pytest.raises(CaptionError, match="more than 5000"):
            captions.read(f"{text}\n00:00:50,000 --> 00:00:51,000\nx")

    @given(st.text(alphabet=st.sampled_from("0123:,.-> \n\r\tWEBVTNO<>&{}\\aé"), max_size=200))
    def test_reads_or_refuses_anything(self, text: str) -> None:
        for vtt in (None, True, False):
            try:
                cues = captions.read(text, vtt=vtt)
            except CaptionError:
                continue
            assert all(one.start < one.end for one in cues)
            assert all(one.end <= later.start for one, later in pairwise(cues))


class TestWithin:
    def test_allows_players_to_round(self) -> None:
        assert captions.within([Cue(0, 1400, "a")], 1000) == [Cue(0, 1000, "a")]
        for late in (Cue(0, 1501, "a"), Cue(1000, 1400, "a")):
            with pytest.raises(CaptionError, match="cue 1 ends after"):
                captions.within([late], 1000)


class TestByText:
    def test_a_chunk_of_several_cues_is_heard_from_the_first_to_the_last(self) -> None:
        pieces = [Piece(1, "Một câu. Hai câu. "), Piece(2, "Ba")]
        found = captions.by_text(pieces, [Cue(0, 10, "một câu"), Cue(10, 30, "HAI CÂU"), Cue(40, 50, "ba!")])
        assert found.times == ((1, 0, 30), (2, 40, 50))
        assert (found.cues, found.positions) == ((), ())

    def test_explanations_are_heard_if_they_are_read_aloud(self) -> None:
        pieces = [Piece(1, "The cat"), Piece(2, "(con mèo)", explains=True), Piece(3, " sleeps")]
        aloud = captions.by_text(pieces, [Cue(0, 100, "The cat, con mèo, sleeps")])
        assert [one[0] for one in aloud.times] == [1, 2, 3]
        silent = captions.by_text(pieces, [Cue(0, 100, "The cat sleeps")])
        assert ([one[0] for one in silent.times], silent.positions) == ([1, 3], (2,))

    def test_compositions_of_the_same_letters_are_the_same(self) -> None:
        assert captions.by_text([Piece(1, "me\u0300o ngu\u0309")], [Cue(0, 5, "MÈO NGỦ")]).times == ((1, 0, 5),)

    def test_a_short_cue_that_is_missing_does_not_jump_ahead(self) -> None:
        long = "x" * 400
        pieces = [Piece(1, f"Lan đi chợ. {long} ạ. "), Piece(2, "Hết")]
        found = captions.by_text(pieces, [Cue(0, 1, "ạ"), Cue(1, 2, "Lan đi chợ")])
        assert (found.cues, found.times) == ((1,), ((1, 1, 2),))

    @settings(max_examples=60)
    @given(st.lists(st.text(alphabet="abcé .!", max_size=12), min_size=1, max_size=12), st.data())
    def test_captions_of_the_whole_text_time_every_letter_in_order(self, texts: list[str], data: st.DataObject) -> None:
        pieces = [Piece(position, text) for position, text in enumerate(texts, 1)]
        whole = "".join(texts)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=5)))
        parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        told = [part for part in parts if captions.letters(part)]
        if not told:
            return
        found = captions.by_text(pieces, [Cue(n * 1000, n * 1000 + 900, part) for n, part in enumerate(told)])
        assert (found.cues, found.positions) == ((), ())
        assert [one[0] for one in found.times] == [one.position for one in pieces if captions.letters(one.text)]
        assert all(one[1] < one[2] for one in found.times)
        assert all(one[1] <= later[1] for one, later in pairwise(found.times))


class TestWriteVtt:
    @given(
        st.lists(
            st.tuples(st.integers(1, 5000), st.integers(1, 900), st.text(max_size=20)), min_size=1, max_size=20
        )
    )
    def test_what_is_written_is_read_with_the_same_times(self, drawn: list[tuple[int, int, str]]) -> None:
        cues: list[tuple[int, Cue]] = []
        at = 0
        for gap, length, text in drawn:
            cues.append((len(cues) + 1, Cue(at + gap, at + gap + length, text)))
            at += gap + length
        read = captions.read(captions.write_vtt(cues))
        assert [(one.start, one.end) for one in read] == [(one.start, one.end) for _, one in cues]
