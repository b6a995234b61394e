"""Proto enums and the lower-case words they are stored as."""

from collections.abc import Mapping
from typing import Any

from kit.enums import stored_name
from storyloom.content.v1.audios_pb2 import AudioStatus
from storyloom.content.v1.course_copies_pb2 import CourseOriginKind
from storyloom.content.v1.courses_pb2 import CourseStatus
from storyloom.content.v1.lessons_pb2 import LessonStatus
from storyloom.content.v1.publications_pb2 import PublicationOutcome
from storyloom.content.v1.search_pb2 import SearchType
from storyloom.content.v1.stories_pb2 import StoryStatus
from storyloom.content.v1.story_versions_pb2 import ChunkKind, SegmentKind
from storyloom.content.v1.vocabularies_pb2 import PartOfSpeech
from storyloom.content.v1.weaves_pb2 import WordStatus


class Words:
    """The words of one enum: `word[number]`, `number[word]`. The unspecified value is the empty word."""

    def __init__(self, enum: Any) -> None:
        self.word: Mapping[int, str] = {number: stored_name(enum, number) for number in enum.values()}
        # The generated types want their own enum where the runtime wants a number.
        self.number: Mapping[str, Any] = {word: number for number, word in self.word.items()}


COURSE_ORIGIN_KIND = Words(CourseOriginKind)
COURSE_STATUS = Words(CourseStatus)
LESSON_STATUS = Words(LessonStatus)
STORY_STATUS = Words(StoryStatus)
CHUNK_KIND = Words(ChunkKind)
SEGMENT_KIND = Words(SegmentKind)
PUBLICATION_OUTCOME = Words(PublicationOutcome)
PART_OF_SPEECH = Words(PartOfSpeech)
SEARCH_TYPE = Words(SearchType)
WORD_STATUS = Words(WordStatus)
AUDIO_STATUS = Words(AudioStatus)
