"""What is allowed whatever the user's roles are. Handlers give `course.status` of units and `user.course_ids`."""

from kit.access import All, AnyOf, Compare, Ref, Rule

READ = frozenset({"read", "list"})
OWN_STORY = Compare("story.author_id", "eq", Ref("user.id"))

RULES = (
    Rule("anyone reads published courses", "course", READ, Compare("course.status", "eq", "published")),
    Rule(
        "learners read the courses they take, to the end",
        "course",
        frozenset({"read"}),
        All((Compare("course.status", "ne", "draft"), Compare("course.id", "in", Ref("user.course_ids")))),
    ),
    Rule(
        "whoever reads a course reads its units",
        "unit",
        READ,
        AnyOf((Compare("course.status", "eq", "published"), Compare("unit.course_id", "in", Ref("user.course_ids")))),
    ),
    # Only published courses are taken, and none goes back to being a draft.
    Rule(
        "learners read the published lessons of the courses they take",
        "lesson",
        READ,
        All((Compare("lesson.status", "eq", "published"), Compare("lesson.course_id", "in", Ref("user.course_ids")))),
    ),
    Rule("anyone reads published stories", "story", READ, Compare("story.status", "eq", "published")),
    Rule("authors read their stories", "story", READ, OWN_STORY),
    # Handlers see to it besides that what is recorded is there for the caller to see.
    Rule("anyone hears published recordings", "audio", READ, Compare("audio.status", "eq", "published")),
    Rule("authors hear their recordings", "audio", READ, Compare("audio.author_id", "eq", Ref("user.id"))),
    Rule(
        "authors change their stories until these are published",
        "story",
        frozenset({"update", "weave", "delete"}),
        All((OWN_STORY, Compare("story.status", "ne", "published"))),
    ),
)
