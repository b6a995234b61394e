"""What files of people say: the columns of both formats, and the order of the files."""

from datetime import date

import pytest

from kit.sheets import UnreadableFile
from services.identity.rosters import Files, Person, RoleAssignment
from tests.identity.importing import ROLES, USERS, roster, table

TODAY = date(2026, 11, 22)


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
