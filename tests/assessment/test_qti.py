"""QTI: what items say, in both of its spellings, what becomes of all in them, and questions out and in again."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.assessment import filing
from services.assessment.bodies import new_body, violations
from services.assessment.exchange import qti
from services.assessment.exchange.archives import Archive
from services.assessment.exchange.documents import parse
from services.assessment.exchange.drafts import LIMITS, Draft, choice, numbered
from services.assessment.exchange.formats import recognise
from services.assessment.exchange.report import Kind
from tests.assessment.drafts import drafts
from tests.assessment.packages import OLD, corners, findings, item, sources

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck])
DECLARED = "qti-response-declaration"
RESPONSE = f'<{DECLARED} identifier="RESPONSE" cardinality="{{}}" base-type="{{}}">{{}}</{DECLARED}>'
RIGHT = "<qti-correct-response><qti-value>{}</qti-value></qti-correct-response>"
TWO = '<qti-simple-choice identifier="a">A</qti-simple-choice><qti-simple-choice identifier="b">B</qti-simple-choice>'
PICK = "qti-choice-interaction"
CHOOSE = f'<p>Q</p><{PICK} response-identifier="RESPONSE" max-choices="1">{TWO}</{PICK}>'
ENTRY = '<qti-text-entry-interaction response-identifier="RESPONSE"/>'
TEMPLATE = '<qti-response-processing template="https://purl.imsglobal.org/spec/qti/v3p0/rptemplates/{}.xml"/>'


def one(data: bytes) -> Draft:
    """The only question of an item."""
    [draft] = qti.read(data).drafts
    return draft


def refused(draft: Draft) -> set[str]:
    return {found.element for found in draft.report.findings if found.kind is Kind.REFUSED}


@pytest.fixture(scope="module")
def read() -> dict[str, Draft]:
    return {draft.name: draft for draft in qti.read(corners()).drafts}


class TestRoundTrips:
    @pytest.mark.slow
    @given(made=st.lists(drafts(), min_size=1, max_size=3), title=st.sampled_from(["", "A title", 'é "<&>']))
    @QUICK
    def test_of_questions_of_every_type_change_nothing(self, made: list[Draft], title: str) -> None:
        """A percentage that the rule of the question gives anyway is the only thing that is not spelled out again."""
        again = qti.read(qti.write(made, title).data)
        assert again.title == title
        assert not [found for found in findings(again) if found.kind is not Kind.MAPPED]
        for before, after in zip(made, again.drafts, strict=True):
            if not any(part.get("percent") for part in before.body.get("choices", ())):
                assert after.content() == before.content()
            assert not list(violations(after.body))

    @pytest.mark.slow
    @given(made=st.lists(drafts(), min_size=1, max_size=3))
    @QUICK
    def test_of_what_was_read_once_change_no_byte(self, made: list[Draft]) -> None:
        once = qti.read(qti.write(made, "T").data)
        data = qti.write(once.drafts, once.title).data
        again = qti.read(data)
        assert [draft.content() for draft in again.drafts] == [draft.content() for draft in once.drafts]
        assert qti.write(again.drafts, again.title).data == data

    def test_of_the_corners_change_nothing(self) -> None:
        once = qti.read(corners())
        written = qti.write(once.drafts, once.title)
        again = qti.read(written.data)
        assert [draft.content() for draft in again.drafts] == [draft.content() for draft in once.drafts]
        assert not [found for found in findings(again) if found.kind is Kind.REFUSED]
        assert qti.write(again.drafts, again.title).data == written.data

    def test_tell_what_only_we_can_read_again(self) -> None:
        body = new_body("short_answer", "Q", accepted=[{"text": "a*", "percent": "", "feedback": ""}], wildcards=True)
        body |= {"most_typos": 1, "ignore_accents": True, "scoring": "all_or_nothing"}
        written = qti.write([Draft(body=body)])
        assert {found.element for found in written.report.findings} == {
            *("wildcards", "typos-1", "ignore-accents", "scoring")
        }
        assert qti.read(written.data).drafts[0].body == body

    def test_tell_what_xml_cannot_say(self) -> None:
        body = new_body("short_answer", "Q\x01", accepted=[{"text": "a", "percent": "", "feedback": ""}])
        assert {found.element for found in qti.write([Draft(body=body)]).report.findings} == {"text"}

    @pytest.mark.parametrize("name", ["", "Q", "Another"])
    def test_keep_names_and_their_absence(self, name: str) -> None:
        body = new_body("short_answer", "Q", accepted=[{"text": "a", "percent": "", "feedback": ""}])
        assert qti.read(qti.write([Draft(body=body, name=name)]).data).drafts[0].name == name

    def test_do_not_tell_an_order_by_places_or_identifiers(self) -> None:
        items = [{"id": str(n), "text": text} for n, text in enumerate("abcdef", 1)]
        written = qti.write([Draft(body=new_body("ordering", "Q", items=items))])
        root = parse(Archive(written.data, LIMITS).read("items/0001.xml"))
        shown = [part for part in root.walk() if part.name == "qti-simple-choice"]
        assert [part.attributes["identifier"] for part in shown] == [f"item-{n}" for n in range(1, 7)]
        assert [part.text() for part in shown] != list("abcdef")


class TestReports:
    def test_have_every_element_and_attribute(self) -> None:
        """Of all XML files of a package, by their paths, in the names that the file uses."""
        said = {(found.place.file, found.element) for found in findings(qti.read(corners()))}
        for file, data in sources().items():
            if not file.endswith(".xml"):
                assert (file, file) in said
                continue
            paths = [(parse(data), "")]
            while paths:
                element, above = paths.pop()
                path = f"{above}/{element.name}".lstrip("/")
                for wanted in (path, *(f"{path}/@{name}" for name in element.attributes)):
                    assert (file, wanted) in said, (file, wanted)
                paths += [(child, path) for child in element.elements]

    def test_count_each_as_one_thing_only(self) -> None:
        kinds: dict[tuple[str, int, str], set[Kind]] = {}
        for found in findings(qti.read(corners())):
            if "@" in found.element and "img" not in found.element:
                kinds.setdefault((found.place.file, found.place.line, found.element), set()).add(found.kind)
        several = {where for where, found in kinds.items() if len(found) > 1}
        # Lines with several elements of the same name, and a class of which a part is ours.
        assert {element.rpartition("/")[0].rpartition("/")[2] for _, _, element in several} <= {
            *("qti-item-body", "qti-inline-choice", "qti-outcome-declaration", "mapEntry", "qti-map-entry"),
            *("resource", "qti-gap-text", "qti-gap"),
        }

    def test_name_what_is_kept_and_what_is_lost(self, read: dict[str, Draft]) -> None:
        kinds = {found.element: found.kind for found in read["Capital"].report.findings}
        root, body = "qti-assessment-item", "qti-assessment-item/qti-item-body"
        assert kinds[f"{root}/qti-stylesheet/@href"] is Kind.REFUSED
        assert kinds[f"{root}/qti-companion-materials-info/qti-calculator"] is Kind.PRESERVED
        assert kinds[f"{body}/qti-rubric-block/@view"] is Kind.PRESERVED
        assert kinds[f"{body}/qti-choice-interaction/@shuffle"] is Kind.PRESERVED
        assert kinds[f"{body}/qti-choice-interaction/qti-simple-choice/@fixed"] is Kind.PRESERVED
        assert kinds[f"{body}/qti-feedback-block"] is Kind.REFUSED
        assert kinds[f"{root}/qti-response-processing/qti-exit-response"] is Kind.REFUSED
        assert kinds[f"{body}/qti-choice-interaction/qti-simple-choice"] is Kind.MAPPED

    def test_name_things_of_2_2_as_it_does(self, read: dict[str, Draft]) -> None:
        paths = {found.element for found in read["Animals"].report.findings}
        assert "assessmentItem/itemBody/matchInteraction/simpleMatchSet/simpleAssociableChoice/@matchMax" in paths
        assert not any("qti-" in path for path in paths)

    def test_of_items_that_are_no_questions_say_why(self) -> None:
        said = {found.place.file: found.message for found in qti.read(corners()).report.findings}
        assert "qti-extended-text-interaction" in said["items/essay.xml"]
        assert "several things" in said["items/two.xml"]
        assert said["images/map.png"] == "files beside the items and the test are not taken"


class TestCorners:
    def test_follow_the_order_and_the_weights_of_the_test(self) -> None:
        made = qti.read(corners())
        assert made.title == "Corners"
        assert [(draft.name, draft.points) for draft in made.drafts[:3]] == [
            ("Animals", "2"),
            ("Capital", "5"),
            ("Fruit", "8"),
        ]
        assert made.drafts[1].tags == ("geography", "cities")
        assert not [draft.name for draft in made.drafts if list(violations(draft.body))]

    def test_a_choice_with_everything(self, read: dict[str, Draft]) -> None:
        body = read["Capital"].body
        assert body["prompt"].split("\n") == [
            *("The capital of France is on the Seine.", "one river", "two banks", "A map the river", "Which is it?")
        ]
        assert [(part["text"], part["correct"], part["feedback"]) for part in body["choices"]] == [
            ("Paris", True, "Well done"),
            ("Lyon, x+1", False, ""),
            ("Rome", False, "That is Italy."),
        ]
        assert (body["explanation"], body["scoring"]) == ("Since 987.", "partial")

    def test_a_mapping_with_a_default_and_bounds(self, read: dict[str, Draft]) -> None:
        parts = read["Fruit"].body["choices"]
        assert [(part["percent"], part["correct"]) for part in parts] == [
            ("75", True),
            ("25", True),
            ("-25", False),
            ("0", False),
        ]

    def test_several_interactions_in_nested_blocks(self, read: dict[str, Draft]) -> None:
        body = read["Sentence"].body
        assert (body["type"], body["prompt"]) == ("fill_blank", "The cat ___ ___ the mat.")
        assert [[known["percent"] for known in blank["accepted"]] for blank in body["blanks"]] == [["", "50"], [""]]
        assert body["blanks"][1]["options"] == ["on", "in"]
        assert any("case-sensitive" in path for path in refused(read["Sentence"]))

    def test_pairs_of_sets(self, read: dict[str, Draft]) -> None:
        body = read["Animals"].body
        assert (body["pairs"], body["scoring"]) == ([["1", "3"], ["2", "1"]], "partial")

    def test_an_order(self, read: dict[str, Draft]) -> None:
        body = read["Days"].body
        assert [part["text"] for part in body["items"]] == ["Friday", "Saturday", "Sunday"]
        assert body["scoring"] == "all_or_nothing"

    def test_words_for_gaps(self, read: dict[str, Draft]) -> None:
        body = read["Drag"].body
        assert body["prompt"] == "Fill it.\nNow is the ___ of our discontent made glorious ___."
        assert {tuple(blank["options"]) for blank in body["blanks"]} == {("winter", "summer", "autumn")}
        assert [blank["accepted"][0]["text"] for blank in body["blanks"]] == ["winter", "summer"]

    def test_numbers_near_others(self, read: dict[str, Draft]) -> None:
        assert [(n["value"], n["tolerance"], n["percent"]) for n in read["Pi"].body["numbers"]] == [
            ("3.1416", "0.0001", ""),
            ("3", "0.15", "25"),
        ]

    def test_answers_one_by_one(self, read: dict[str, Draft]) -> None:
        body = read["Colour"].body
        assert [(part["text"], part["percent"], part["feedback"]) for part in body["accepted"]] == [
            ("grey", "", ""),
            ("gray", "75", "We write grey."),
        ]
        assert body["case_sensitive"] is False


class TestItems:
    def test_by_both_templates_and_by_none(self) -> None:
        declared = RESPONSE.format("single", "identifier", RIGHT.format("a"))
        bodies = [one(item(declared, CHOOSE, rest)).body for rest in (TEMPLATE.format("match_correct"), "")]
        assert bodies[0] == bodies[1]
        assert [part["correct"] for part in bodies[0]["choices"]] == [True, False]

    def test_by_the_inline_form_of_a_template(self) -> None:
        mapping = '<qti-mapping><qti-map-entry map-key="x" mapped-value="2"/></qti-mapping>'
        declared = RESPONSE.format("single", "string", mapping)
        inline = """<qti-response-processing><qti-response-condition>
            <qti-response-if><qti-is-null><qti-variable identifier="RESPONSE"/></qti-is-null>
              <qti-set-outcome-value identifier="SCORE"><qti-base-value base-type="float">0.0</qti-base-value>
              </qti-set-outcome-value></qti-response-if>
            <qti-response-else><qti-set-outcome-value identifier="SCORE"><qti-map-response identifier="RESPONSE"/>
              </qti-set-outcome-value></qti-response-else>
            </qti-response-condition></qti-response-processing>"""
        score = '<qti-outcome-declaration identifier="SCORE" cardinality="single" base-type="float"/>'
        rests = inline, TEMPLATE.format("map_response")
        found = [one(item(declared + score, f"<p>Q</p><p>{ENTRY}</p>", rest)) for rest in rests]
        assert found[0].content() == found[1].content()
        assert found[0].points == "2"
        assert not refused(found[0])

    def test_that_add_up_what_matches(self) -> None:
        names = "AB"
        declared = "".join(
            f'<qti-response-declaration identifier="{n}" cardinality="single" base-type="string">{RIGHT.format(n)}'
            "</qti-response-declaration>"
            for n in names
        )
        add = """<qti-response-condition><qti-response-if><qti-match><qti-variable identifier="{0}"/>
            <qti-correct identifier="{0}"/></qti-match><qti-set-outcome-value identifier="SCORE"><qti-sum>
            <qti-variable identifier="SCORE"/><qti-base-value base-type="float">1</qti-base-value></qti-sum>
            </qti-set-outcome-value></qti-response-if></qti-response-condition>"""
        rest = f"<qti-response-processing>{''.join(map(add.format, names))}</qti-response-processing>"
        body = "<p>1 " + " 2 ".join(ENTRY.replace("RESPONSE", n) for n in names) + "</p>"
        draft = one(item(declared, body, rest))
        assert (draft.body["scoring"], draft.points, refused(draft)) == ("partial", "2", set())
        whole = """<qti-response-processing><qti-response-condition><qti-response-if><qti-and>{}</qti-and>
            <qti-set-outcome-value identifier="SCORE"><qti-base-value base-type="float">1</qti-base-value>
            </qti-set-outcome-value></qti-response-if></qti-response-condition></qti-response-processing>"""
        match = '<qti-match><qti-variable identifier="{0}"/><qti-correct identifier="{0}"/></qti-match>'
        together = one(item(declared, body, whole.format("".join(map(match.format, names)))))
        assert together.body["scoring"] == "all_or_nothing"

    def test_of_2_2_and_2_1_are_those_of_3_0(self) -> None:
        old = f"""<assessmentItem {OLD}><responseDeclaration identifier="RESPONSE" cardinality="single"
            baseType="identifier"><correctResponse><value>a</value></correctResponse></responseDeclaration><itemBody>
            <p>Q</p><choiceInteraction responseIdentifier="RESPONSE" maxChoices="1"><simpleChoice identifier="a">A
            </simpleChoice><simpleChoice identifier="b">B</simpleChoice></choiceInteraction></itemBody>
            <responseProcessing template="http://www.imsglobal.org/question/qti_v2p1/rptemplates/match_correct"/>
            </assessmentItem>"""
        declared = RESPONSE.format("single", "identifier", RIGHT.format("a"))
        new = one(item(declared, CHOOSE, TEMPLATE.format("match_correct")))
        for text in (old, old.replace("imsqti_v2p2", "imsqti_v2p1"), f"<!-- x -->{old}"):
            assert one(text.encode()).content() == new.content()

    def test_of_choices_whose_shares_are_uneven(self) -> None:
        parts = [("a", True, "60"), ("b", True, "30"), ("c", False, "-12.5")]
        choices = [choice(text, correct=right, percent=percent) for text, right, percent in parts]
        body = numbered(new_body("multiple_choice", "Q", choices=choices, multiple=True))
        assert qti.read(qti.write([Draft(body=body)]).data).drafts[0].body == body

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            ("<p>Nothing</p>", "asks nothing"),
            (CHOOSE + CHOOSE, "several things"),
            (CHOOSE.replace("RESPONSE", "OTHER"), "not declared"),
            (CHOOSE.replace("choice-interaction", "hottext-interaction"), "no type of question"),
            (CHOOSE.replace("choice-interaction", "associate-interaction"), "no type of question"),
            (f"<p>___ {ENTRY} x</p>", "underscores"),
        ],
    )
    def test_that_no_question_can_be_are_refused_whole(self, body: str, why: str) -> None:
        declared = RESPONSE.format("single", "identifier", RIGHT.format("a"))
        made = qti.read(item(declared, body))
        assert not made.drafts
        assert {found.kind for found in made.report.findings} == {Kind.REFUSED}
        assert all(why in found.message for found in made.report.findings)

    @pytest.mark.parametrize("change", ['adaptive="true"', "template"])
    def test_that_vary_are_refused(self, change: str) -> None:
        declared = RESPONSE.format("single", "identifier", RIGHT.format("a"))
        data = item(declared, CHOOSE).replace(b'adaptive="false"', change.encode()) if "=" in change else item(
            declared + '<qti-template-declaration identifier="X" cardinality="single" base-type="float"/>', CHOOSE
        )
        assert not qti.read(data).drafts

    def test_with_one_side_nearer_than_the_other_are_refused(self) -> None:
        rest = """<qti-response-processing><qti-response-condition><qti-response-if><qti-equal tolerance-mode="absolute"
            tolerance="1 2"><qti-variable identifier="RESPONSE"/><qti-base-value base-type="float">3</qti-base-value>
            </qti-equal><qti-set-outcome-value identifier="SCORE"><qti-base-value base-type="float">1</qti-base-value>
            </qti-set-outcome-value></qti-response-if></qti-response-condition></qti-response-processing>"""
        assert not qti.read(item(RESPONSE.format("single", "float", RIGHT.format("3")), f"<p>{ENTRY}</p>", rest)).drafts

    def test_lose_original_marks_when_the_text_is_changed(self, read: dict[str, Draft]) -> None:
        draft = read["Capital"]
        changed = Draft(body={**draft.body, "prompt": "Another?"}, preserved=draft.preserved)
        data = qti.write([changed]).data
        assert b"<b>France</b>" not in data
        assert b"Italy</em>" in data
        assert qti.read(data).drafts[0].body["prompt"] == "Another?"

    def test_that_are_long_keep_what_fits(self) -> None:
        declared = RESPONSE.format("single", "identifier", RIGHT.format("a"))
        data = item(declared, f'<p class="{"x" * 30_000}"><b>Q</b></p>' + CHOOSE)
        draft = one(data)
        assert "qti-assessment-item/qti-item-body/p/b" in refused(draft)
        assert len(str(draft.preserved)) < LIMITS.preserved


class TestSpeed:
    @pytest.mark.slow
    def test_a_thousand_questions_take_five_seconds_at_most(self) -> None:
        kinds = qti.read(corners()).drafts
        data = qti.write([kinds[n % len(kinds)] for n in range(1_000)], "Many").data
        began = time.process_time()
        # With what became of them, which is told for each of the thousand files.
        assert len(filing.read_file(data, "qti").filed) == 1_000
        assert time.process_time() - began < 5

    def test_is_recognised(self) -> None:
        assert recognise(corners()) == recognise(item("", "")) == "qti"
        assert recognise(sources()["items/fruit.xml"].decode().encode("utf-16")) == "qti"
        assert recognise(b"PK\x03\x04 something else") == ""
