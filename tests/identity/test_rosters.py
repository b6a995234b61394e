"""What files of people say: CSV in pieces, the columns of both formats, and what is remembered of it."""

import csv
import io
import tracemalloc
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.rosters import Files, Fingerprints, Memory, Person, RoleAssignment
from services.identity.sheets import LONGEST_ROW, CsvRows, UnreadableFile
from tests.identity.importing import ROLES, USERS, roster, table

TODAY = date(2026, 11, 22)
CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def rows(data, *, size=None):
    reader = CsvRows()
    found = []
    for at in range(0, len(data), size or len(data) or 1):
        found += reader.feed(data[at : at + (size or len(data))])
    return found + list(reader.end())


def read(data, name="people.csv", **options):
    """The entries of one file, and what is said of it."""
    files = Files(oneroster=name in ("users.csv", "roles.csv"), today=TODAY, **options)
    entries = [*files.feed(name, data), *files.end()]
    return entries, files


def said(data, name="people.csv", **options):
    (entry,) = read(data, name, **options)[0]
    assert entry.problems == ()
    return entry.says


def problems(data, name="people.csv"):
    return [(one.line, bad.field, bad.sentence) for one in read(data, name)[0] for bad in one.problems]


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


class TestColumns:
    def test_are_found_by_name_whatever_the_case(self):
        data = b"Display_Name, EMAIL ,Attributes.Class\nLan,lan@x.example,5a\n"
        assert said(data) == Person("lan@x.example", "Lan", attributes={"class": "5a"})

    def test_that_are_not_known_are_told_once(self):
        entries, files = read(b"email,shoe size\na@x.example,1\nb@x.example,2\n")
        assert [entry.problems for entry in entries] == [(), ()]
        assert [(name, one.field) for name, one in files.notices] == [("people.csv", "shoe size")]

    def test_passwords_are_told_not_to_be_read(self):
        _, files = read(table([*USERS, "password"], {"sourcedId": "1", "password": "secret"}), "users.csv")
        assert [one.field for _, one in files.notices] == ["password"]

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"name\nx\n", "people.csv: the first row does not name the column email"),
            (b"email,EMAIL\nx,y\n", "people.csv: the first row names the column email twice"),
            (b"", "people.csv: the file is empty"),
        ],
    )
    def test_without_which_nothing_can_be_read_are_demanded(self, data, said):
        with pytest.raises(UnreadableFile, match=said):
            read(data)


class TestRows:
    def test_of_another_length_are_refused(self):
        assert problems(b"email,level\na@x.example\nb@x.example,B1,\n") == [
            (2, "", "has 1 cells instead of 2"),
            (3, "", "has 3 cells instead of 2"),
        ]

    def test_with_nul_are_refused(self):
        assert problems(b"email,level\na@x.example,\0\n") == [(2, "", "has a NUL character")]

    def test_that_look_like_formulas_are_text(self):
        person = said(b'email,display_name\na@x.example,"=HYPERLINK(""x"")"\n')
        assert person.display_name == '=HYPERLINK("x")'

    def test_name_roles_between_spaces_and_semicolons(self):
        assert said(b'email,roles\na@x.example," student;teacher  student "\n').roles == ("student", "teacher")

    def test_without_anything_in_them_are_no_rows(self):
        entries, files = read(b"email,level\n,\n\na@x.example,\n")
        assert [entry.line for entry in entries] == [4]
        assert files.rows == 1


class TestOneRosterUsers:
    def one(self, **cells):
        return table(USERS, {"sourcedId": "s1", "givenName": "Lan", "familyName": "Nguyễn", **cells})

    def test_become_persons(self):
        person = said(self.one(middleName="Thị", email="lan@x.example", grades="05", enabledUser="true"), "users.csv")
        attributes = {"sourced_id": "s1", "grades": "05"}
        assert person == Person("lan@x.example", "Lan Thị Nguyễn", attributes=attributes, sourced_id="s1")

    def test_may_have_their_family_name_first(self):
        person = said(self.one(middleName="Thị"), "users.csv", family_name_first=True)
        assert person.display_name == "Nguyễn Thị Lan"

    def test_have_their_address_as_username_when_they_have_no_other(self):
        assert said(self.one(username="lan@x.example"), "users.csv").email == "lan@x.example"
        assert said(self.one(username="lan"), "users.csv").email == ""

    def test_may_be_barred_or_removed(self):
        assert said(self.one(enabledUser="false"), "users.csv").barred
        assert said(self.one(status="tobedeleted"), "users.csv").removed

    def test_say_what_is_wrong_with_every_cell(self):
        wrong = self.one(sourcedId="", enabledUser="yes", status="gone")
        assert problems(wrong, "users.csv") == [
            (2, "sourcedId", "is required"),
            (2, "enabledUser", "is neither true nor false"),
            (2, "status", "is neither active nor tobedeleted"),
        ]


class TestOneRosterRoles:
    def one(self, **cells):
        return table(ROLES, {"userSourcedId": "s1", "role": "teacher", **cells})

    @pytest.mark.parametrize(
        ("name", "slug"),
        [
            ("student", "student"),
            ("teacher", "teacher"),
            ("siteAdministrator", "admin"),
            ("districtAdministrator", "admin"),
            ("systemAdministrator", "admin"),
            ("aide", "aide"),
        ],
    )
    def test_have_the_slugs_of_the_tenant(self, name, slug):
        assert said(self.one(role=name), "roles.csv") == RoleAssignment("s1", slug)

    @pytest.mark.parametrize(
        ("begin", "end", "in_force"),
        [
            ("", "", True),
            ("2026-11-22", "2026-11-22", True),
            ("2026-11-23", "", False),
            ("", "2026-11-21", False),
        ],
    )
    def test_are_in_force_between_their_dates(self, begin, end, in_force):
        assert said(self.one(beginDate=begin, endDate=end), "roles.csv").in_force == in_force

    def test_say_what_is_no_date(self):
        assert problems(self.one(endDate="tomorrow"), "roles.csv") == [(2, "endDate", "is no date such as 2027-01-31")]


class TestFiles:
    def test_of_a_roster_come_in_their_order(self):
        files = Files(oneroster=True, today=TODAY)
        list(files.feed("roles.csv", roster([], [])["roles.csv"]))
        with pytest.raises(UnreadableFile, match=r"users\.csv: must come before roles\.csv"):
            list(files.feed("users.csv", b"x"))

    def test_that_are_not_used_are_told(self):
        files = Files(oneroster=True, today=TODAY)
        assert [*files.feed("orgs.csv", b"\xff\0"), *files.end()] == []
        assert [(name, one.sentence) for name, one in files.notices] == [("orgs.csv", "The file is not used.")]

    def test_come_once(self):
        files = Files(oneroster=True, today=TODAY)
        for name in ("orgs.csv", "classes.csv"):
            list(files.feed(name, b"x"))
        with pytest.raises(UnreadableFile, match=r"orgs\.csv: the file comes twice"):
            list(files.feed("orgs.csv", b"x"))

    def test_of_the_plain_format_are_one(self):
        files = Files(oneroster=False, today=TODAY)
        list(files.feed("a.csv", b"email\n"))
        with pytest.raises(UnreadableFile, match="a plain import has one file"):
            list(files.feed("b.csv", b"email\n"))


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
    def test_of_fifty_thousand_rows_takes_less_than_their_addresses(self):
        def use(count):
            tracemalloc.start()
            files, memory = Files(oneroster=False, today=TODAY), Memory()
            list(files.feed("people.csv", b"email,display_name\n"))
            for at in range(0, count, 1_000):
                rows = (f"somebody.with.a.name.{n}@school.example,Somebody {n}\n" for n in range(at, at + 1_000))
                for entry in files.feed("people.csv", "".join(rows).encode()):
                    memory.note("email", entry.says.email)
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
