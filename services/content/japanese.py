"""Where Japanese words begin and end, by a morphological analyser that is loaded when it is first needed."""

from functools import cache
from threading import Lock
from typing import Any, Literal

Name = Literal["", "person", "other"]
# The analyser takes 49,149 bytes at once; a character of Japanese has three, some rare ones four.
LONGEST = 10_000
HONORIFICS = frozenset(("さん", "くん", "君", "ちゃん", "様", "さま", "氏", "殿", "先生"))
POLITE = frozenset(("お", "御", "ご"))
# Who is so called without being named.
RELATIONS = frozenset(
    (
        *("爺", "婆", "父", "母", "兄", "姉", "弟", "妹", "叔父", "叔母", "伯父", "伯母", "祖父", "祖母"),
        *("孫", "娘", "息子", "奥", "嫁", "婿", "赤", "客", "医者", "社長", "部長", "店員", "皆", "みな"),
        *("神", "仏", "王", "王子", "姫"),
    )
)
# Its tokenizer must not be used by two threads at once.
_TURN = Lock()


def analyse(text: str) -> list[tuple[int, int, Name]]:
    """Spans [start, end) of the words of `text`, which is in NFC and holds no white space, and what each is a name of.
    Longer texts are cut after LONGEST characters, wherever that is."""
    found: list[tuple[int, int, Name]] = []
    with _TURN:
        tokenizer = _tokenizer()
        for start in range(0, len(text), LONGEST):
            words = list(tokenizer.tokenize(text[start : start + LONGEST]))
            for before, word, after in zip([None, *words], words, [*words[1:], None], strict=False):
                kind = "person" if _is_addressed(before, word, after) else _name(word)
                found.append((start + word.begin(), start + word.end(), kind))
    return found


def _name(word: Any) -> Name:
    _, kind, detail, *_ = word.part_of_speech()
    if kind != "固有名詞":
        return ""
    return "person" if detail == "人名" else "other"


def _is_addressed(before: Any, word: Any, after: Any) -> bool:
    """Whether the word is a noun that an honorific makes a name, 森 in 森さん but not 爺 in お爺さん."""
    if after is None or after.surface() not in HONORIFICS or word.part_of_speech()[0] != "名詞":
        return False
    if before is not None and before.surface() in POLITE:
        return False
    return word.surface() not in RELATIONS and not word.surface().endswith("屋")


@cache
def _tokenizer() -> Any:
    # 50 MB, of which 45 are pages of the dictionary's file: not for those who write no Japanese.
    from sudachipy import Dictionary, SplitMode

    return Dictionary(dict="small").tokenizer(mode=SplitMode.C)
