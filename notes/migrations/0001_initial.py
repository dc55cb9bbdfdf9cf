import django.contrib.postgres.fields
import django.db.models.deletion
import pgvector.django
from django.conf import settings
from django.db import migrations, models

# All words that keyword search finds a note by, those of its fields before those of its text. One
# more lexeme identifies the user, so that the index finds the notes of one user without looking at
# those of others. It contains a space, so it never comes from a text.
# A tsvector is limited to 1 MB. A very long note with hardly a word twice exceeds that; then the
# first part of it is indexed.
WORDS = """
CREATE FUNCTION note_words(
    user_id bigint, title text, preacher text, tags text[], scripture_refs text, content text
) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    fields tsvector := array_to_tsvector(ARRAY['user ' || user_id])
        || setweight(to_tsvector('pg_catalog.english', title), 'A')
        || setweight(to_tsvector('pg_catalog.english',
            preacher || ' ' || scripture_refs || ' ' || array_to_string(tags, ' ')), 'B');
BEGIN
    RETURN fields || to_tsvector('pg_catalog.english', content);
EXCEPTION WHEN program_limit_exceeded THEN
    RETURN fields || to_tsvector('pg_catalog.english', left(content, 100000));
END $$;
ALTER TABLE notes ADD COLUMN words tsvector GENERATED ALWAYS AS (
    note_words(user_id, title, preacher, tags::text[], scripture_refs, content)
) STORED;
CREATE INDEX notes_words ON notes USING gin (words) WITH (fastupdate = off);
"""
NO_WORDS = "ALTER TABLE notes DROP COLUMN words; DROP FUNCTION note_words;"

# A search reads only the index of passages where PostgreSQL knows that every transaction sees all
# rows of a page. Vacuum records that. By default it waits until a fifth of the table has changed.
VACUUM_OFTEN = """
ALTER TABLE passages SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.02
);
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        pgvector.django.VectorExtension(),
        migrations.CreateModel(
            name="Note",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="notes", to=settings.AUTH_USER_MODEL)),
                ("title", models.CharField(max_length=300)),
                ("content", models.TextField(blank=True, default="", help_text="Markdown.")),
                ("preacher", models.CharField(blank=True, default="", max_length=200)),
                ("tags", django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=100), blank=True, default=list, size=None)),
                ("scripture_refs", models.TextField(blank=True, default="", help_text="As typed: “Jn 3:14-21; Rom 8.28”.", max_length=2000)),
                ("text_hash", models.CharField(editable=False, max_length=64)),
                ("has_text", models.BooleanField(db_default=True, editable=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "db_table": "notes",
                "ordering": ("-updated_at", "-id"),
                "indexes": [models.Index(fields=["user", "-updated_at", "-id"], name="notes_newest_of_user")],
            },
        ),
        migrations.CreateModel(
            name="EmbeddingModel",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("version", models.CharField(help_text="Name and fingerprint of the weights.", max_length=150, unique=True)),
                ("path", models.TextField(blank=True, help_text="Folder of the model; empty for the packaged one.")),
            ],
            options={"db_table": "embedding_models"},
        ),
        migrations.CreateModel(
            name="UserEmbeddingModel",
            fields=[
                ("user", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name="user_embedding_model", serialize=False, to=settings.AUTH_USER_MODEL)),
                ("active_model", models.ForeignKey(help_text="Searches use its vectors.", on_delete=django.db.models.deletion.PROTECT, related_name="+", to="notes.embeddingmodel")),
                ("next_model", models.ForeignKey(help_text="Becomes the active model once all notes have its vectors.", null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="notes.embeddingmodel")),
                ("previous_model", models.ForeignKey(help_text="Was the active model before. Its vectors are kept for a rollback.", null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="notes.embeddingmodel")),
            ],
            options={"db_table": "user_embedding_models"},
        ),
        migrations.CreateModel(
            name="Passage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("note", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="passages", to="notes.note")),
                ("user", models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
                ("model", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="notes.embeddingmodel")),
                ("ordinal", models.PositiveIntegerField()),
                ("char_start", models.PositiveIntegerField()),
                ("char_end", models.PositiveIntegerField()),
                ("current", models.BooleanField(help_text="Whether it was made from the note's current text.")),
                ("text_hash", models.CharField(help_text="Hash of the text that was embedded.", max_length=64)),
                ("vector", pgvector.django.HalfVectorField()),
            ],
            options={
                "db_table": "passages",
                "ordering": ("note", "ordinal"),
                "indexes": [models.Index(fields=["user", "model", "current"], include=("note", "vector"), name="passages_of_user")],
                "constraints": [
                    models.UniqueConstraint(fields=("note", "model", "ordinal"), name="one_passage_per_ordinal"),
                    models.CheckConstraint(condition=models.Q(("char_end__gt", models.F("char_start"))), name="passage_has_text"),
                ],
            },
        ),
        migrations.CreateModel(
            name="PendingEmbedding",
            fields=[
                ("note", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name="pending_embedding", serialize=False, to="notes.note")),
                ("since", models.DateTimeField()),
                ("enqueued_at", models.DateTimeField(help_text="When a job was enqueued for it, because the message seemed to be lost.", null=True)),
                ("error_class", models.CharField(default="", help_text="Class of the error in the latest job.", max_length=200)),
                ("error", models.TextField(default="", help_text="Message of the error in the latest job.")),
            ],
            options={
                "db_table": "pending_embeddings",
                "indexes": [models.Index(fields=["since"], name="pending_embeddings_oldest")],
            },
        ),
        migrations.CreateModel(
            name="ScriptureReference",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("note", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="references", to="notes.note")),
                ("user", models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
                ("start_verse", models.PositiveIntegerField()),
                ("end_verse", models.PositiveIntegerField()),
            ],
            options={
                "db_table": "scripture_references",
                "indexes": [models.Index(fields=["user", "start_verse", "end_verse"], include=("note",), name="references_of_user")],
                "constraints": [models.CheckConstraint(condition=models.Q(("end_verse__gte", models.F("start_verse"))), name="reference_has_verses")],
            },
        ),
        migrations.RunSQL(WORDS, NO_WORDS),
        migrations.RunSQL(VACUUM_OFTEN, migrations.RunSQL.noop),
    ]
