"""The life of a recording, of the story that was last made."""

from base64 import b64encode

from tests.content.recording import sha256, tone
from tests.e2e.steps import Step, create, on, purge, update

SOUND = tone(0.5)
ANNOUNCED = {"audio_id": "{audio}", "size_bytes": len(SOUND), "sha256": sha256(SOUND)}
FILE = {"content_type": "audio/wav", "data": b64encode(SOUND).decode()}
CUE = {"id": "{audio}", "captions": "1\n00:00:00,000 --> 00:00:00,400\nCon mèo"}
SENDING = {**ANNOUNCED, "mime_type": "audio/wav"}
AUDIOS = (
    create("audio", "teacher", {"story_id": "{story}", "version_id": "{first}", "title": "t"}),
    update("audio", "teacher", {"voice": "v"}),
    Step("CreateAudioUpload", "teacher", SENDING, "begin_upload", "audio", entity="{audio}"),
    Step("UploadAudio", "teacher", {**ANNOUNCED, "file": FILE}, "upload", "audio"),
    Step("SetAudioTimestamps", "teacher", CUE, "set_timestamps", "audio", entity="{audio}"),
    *on("audio", "teacher", "Publish", "Delete", "Undelete"),
    *purge("audio", "{audio}"),
)
