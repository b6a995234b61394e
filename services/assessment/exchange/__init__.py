"""Files of questions: what other systems write becomes drafts of questions, and questions become such files. Pure.

`drafts.py` says what a module of a format has to offer, `report.py` how it tells of everything that it finds."""
