"""Proto enums and the lower-case words they are stored as."""

from collections.abc import Iterable, Mapping
from typing import Any

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

    def __init__(self, values: Iterable[tuple[str, int]], prefix: str) -> None:
        self.word: Mapping[int, str] = {
            number: name.removeprefix(prefix).lower() if number else "" for name, number in values
        }
        # The generated types want their own enum where the runtime wants a number.
        self.number: Mapping[str, Any] = {word: number for number, word in self.word.items()}


COURSE_ORIGIN_KIND = Words(CourseOriginKind.items(), "COURSE_ORIGIN_KIND_")
COURSE_STATUS = Words(CourseStatus.items(), "COURSE_STATUS_")
LESSON_STATUS = Words(LessonStatus.items(), "LESSON_STATUS_")
STORY_STATUS = Words(StoryStatus.items(), "STORY_STATUS_")
CHUNK_KIND = Words(ChunkKind.items(), "CHUNK_KIND_")
SEGMENT_KIND = Words(SegmentKind.items(), "SEGMENT_KIND_")
PUBLICATION_OUTCOME = Words(PublicationOutcome.items(), "PUBLICATION_OUTCOME_")
PART_OF_SPEECH = Words(PartOfSpeech.items(), "PART_OF_SPEECH_")
SEARCH_TYPE = Words(SearchType.items(), "SEARCH_TYPE_")
WORD_STATUS = Words(WordStatus.items(), "WORD_STATUS_")
AUDIO_STATUS = Words(AudioStatus.items(), "AUDIO_STATUS_")
