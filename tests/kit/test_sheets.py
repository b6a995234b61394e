"""CSV in pieces, cells that are no formulas, and what is remembered of rows."""

import csv
import io
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.sheets import LONGEST_ROW, CsvRows, Fingerprints, Memory, UnreadableFile, plain, record

CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def rows(data, *, size=None):
    reader = CsvRows()
    found = []
    for at in range(0, len(data), size or len(data) or 1):
        found += reader.feed(data[at : at + (size or len(data))])
    return found + list(reader.end())


class TestCsv:
    @given(st.lists(st.lists(CELLS, min_size=2, max_size=3), max_size=5), st.integers(1, 7), st.booleans())
    def test_is_read_as_it_was_written_wherever_it_is_cut(self, table, size, bom):
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerows(table)
        data = text.getvalue().encode("utf-8-sig" if bom else "utf-8")
        reader, found = CsvRows(read_at_once=1), []
        for at in range(0, len(data), size):
            found += reader.feed(data[at : at + size])
        found += reader.end()
        assert [cells for _, cells in found] == [row for row in table if any(row)]

    def test_rows_longer_than_a_piece_come_whole(self):
        cell = 'a "quoted" cell\r\nof many lines, ' * 900
        text = io.StringIO(newline="")
        csv.writer(text).writerows([["x", cell], ["y", "z"]])
        assert rows(text.getvalue().encode(), size=1000) == [(1, ["x", cell]), (902, ["y", "z"])]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_lines_end_in_any_way(self, end):
        data = f'a,b{end}"1{end}2",3{end}{end}4,5'.encode()
        assert rows(data) == [(1, ["a", "b"]), (2, [f"1{end}2", "3"]), (5, ["4", "5"])]

    def test_separators_of_other_standards_are_text(self):
        assert rows("a\u2028b\x0bc,\x85\n".encode()) == [(1, ["a\u2028b\x0bc", "\x85"])]

    def test_what_follows_a_closing_quote_spoils_its_row_only(self):
        assert rows(b'a,b\n"x"y,1\nc,d\n') == [(1, ["a", "b"]), (2, None), (3, ["c", "d"])]

    @pytest.mark.parametrize(
        ("data", "line"),
        [(b"a,b\nx,\xff\n", 2), ("a,b\nx,ạ\n".encode("utf-16"), 1), (b"a\n" * 30_000 + b"\xc3", 30_001)],
    )
    def test_other_encodings_are_refused_with_the_line(self, data, line):
        with pytest.raises(UnreadableFile, match=f"^line {line} is not UTF-8"):
            rows(data, size=20_000)

    def test_a_quote_without_end_is_told_with_its_row(self):
        with pytest.raises(UnreadableFile, match="row that begins in line 2 has a quote without end"):
            rows(b'a,b\nx,"y\nz,1\n')

    @pytest.mark.parametrize("data", [b"a,b\n" + b"x" * 3 * LONGEST_ROW, b'a,b\n"' + b"x\n" * LONGEST_ROW])
    def test_a_row_is_not_kept_for_ever(self, data):
        with pytest.raises(UnreadableFile, match="line 2 has more than 32,768 characters"):
            rows(data, size=20_000)

    @pytest.mark.parametrize("blank", [b"\n", b",\n"])
    def test_rows_that_say_nothing_end_somewhere(self, blank):
        assert len(rows(b"a,b\n" + blank * 10_000)) == 1
        with pytest.raises(UnreadableFile, match="more than 10,000 rows are blank"):
            rows(b"a,b\n" + blank * 10_001)


class TestRecord:
    @given(st.lists(st.builds(str.__add__, st.text("'=+-@\t＝"), CELLS), min_size=2, max_size=3))
    @example(["=1", "'=1", "''=1", "'a", "-"])
    def test_is_read_as_it_was_written_and_no_cell_is_a_formula(self, cells):
        ((_, read),) = rows(record(cells)) or [(1, cells)]
        assert not any(one.startswith(tuple("=+-@\t\r\n＝＋－＠")) for one in read)
        assert [plain(one) for one in read] == cells

    def test_keeps_texts_as_they_are(self):
        assert record(["a", "'tis", "3-1", 'b"c']) == b'a,\'tis,3-1,"b""c"\r\n'


class TestMemory:
    @given(st.lists(st.text(max_size=5)), st.text(max_size=5))
    def test_fingerprints_know_what_they_were_given_and_nothing_else(self, texts, other):
        known = Fingerprints(width=1)
        for number, text in enumerate(texts):
            known.add(text, bytes([number % 256]))
        for text in texts:
            assert known.get(text) == bytes([texts.index(text) % 256])
        assert (known.get(other) is not None) == (other in texts)

    @pytest.mark.slow
    def test_of_fifty_thousand_rows_takes_less_than_their_texts(self):
        def use(count):
            tracemalloc.start()
            memory = Memory()
            for at in range(0, count, 1_000):
                for number in range(at, at + 1_000):
                    memory.note("email", f"somebody.with.a.name.{number}@school.example")
                memory.keep()
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return most

        assert use(50_000) - use(10_000) < 40_000 * 12

    def test_keeps_what_a_batch_did_and_forgets_what_was_undone(self):
        memory = Memory()
        memory.note("email", "a")
        memory.keep()
        memory.note("email", "b")
        assert memory.knows("email", "a")
        assert memory.knows("email", "b")
        memory.forget()
        assert (memory.knows("email", "a"), memory.knows("email", "b"), memory.knows("other", "a")) == (1, 0, 0)
