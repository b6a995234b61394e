"""Forms of words that were there before forms had translations."""

import asyncio
import json
from uuid import UUID

from alembic import command

from kit import migrations
from tests.contract import databases
from tests.postgres import Cluster

BEFORE, AFTER = "202611221520", "202611221530"
INSERT = """
INSERT INTO content.vocabularies (tenant_id, id, term, term_key, translation, part_of_speech, sense, level, explanation,
                                  forms, language, learning_language)
VALUES ($1, $1, 'a', 'a' || $2, 'b', 'noun', 1, '', '', $3, 'vi', 'en')
"""
FORMS = "SELECT id, forms FROM content.vocabularies ORDER BY id"


class TestForms:
    async def test_keep_their_order_and_get_the_terms_translation(self, cluster: Cluster) -> None:
        scratch = await databases.create(cluster, "translated_forms")
        await asyncio.to_thread(migrations.upgrade, "content", scratch.owner_url, BEFORE)
        texts = {UUID(int=1): [], UUID(int=2): ["mèo con", 'a "quoted", one', "a"]}
        async with scratch.connected() as database:
            for one, forms in texts.items():
                await database.execute(INSERT, one, str(one), forms)
        await asyncio.to_thread(migrations.upgrade, "content", scratch.owner_url, AFTER)
        async with scratch.connected() as database:
            found = {row["id"]: json.loads(row["forms"]) for row in await database.fetch(FORMS)}
        assert found == {one: [[form, ""] for form in forms] for one, forms in texts.items()}
        config = migrations.config("content", scratch.owner_url)
        await asyncio.to_thread(command.downgrade, config, BEFORE)
        async with scratch.connected() as database:
            assert {row["id"]: row["forms"] for row in await database.fetch(FORMS)} == texts
