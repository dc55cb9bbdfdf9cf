"""Search by meaning and by words, in the form that it has now.

Passages are dropped and not converted: they are made of the notes, and become due again.
"""

import django.db.models.deletion
import pgvector.django.halfvec
from django.conf import settings
from django.db import migrations, models

from notes.scripture import references


# Everything a note can be found by in words, its fields before its text. One more lexeme names
# the user: with it, the index finds a user's notes without looking at those of others, which
# a plain index on the words would have to. It has a space, so no text has it.
# A tsvector holds at most 1 MB. Only a huge note with hardly a word twice has more, and of that
# the first part is indexed.
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

# A search reads the index of passages alone where PostgreSQL knows that all transactions see a
# page's rows, which vacuum notes. By default it waits until a fifth of the table is new.
VACUUM_SOON = """
ALTER TABLE passages SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.02
);
"""

# The text of every note is to be embedded again.
ALL_DUE = """
UPDATE notes SET has_text = false WHERE content !~ '\\S';
INSERT INTO embeddings_due (note_id, since) SELECT id, now() FROM notes;
"""


def find_references(apps, schema_editor):
    reference = apps.get_model("notes", "ScriptureReference")
    for note in apps.get_model("notes", "Note").objects.iterator(chunk_size=100):
        reference.objects.bulk_create(
            reference(note=note, user_id=note.user_id, start_verse=start, end_verse=end)
            for start, end in references(note.scripture_refs, note.content)
        )


class Migration(migrations.Migration):

    dependencies = [
        ('notes', '0001_initial'),
        ('scribes', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.DeleteModel("Passage"),
        migrations.AddField(
            model_name="note",
            name="has_text",
            field=models.BooleanField(db_default=True, editable=False),
        ),
        migrations.CreateModel(
            name='EmbeddingModel',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('version', models.CharField(help_text='Its name, and the fingerprint of its weights.', max_length=150, unique=True)),
                ('path', models.TextField(blank=True, help_text='Its folder; empty: the one in the package.')),
            ],
            options={
                'db_table': 'embedding_models',
            },
        ),
        migrations.CreateModel(
            name='EmbeddingDue',
            fields=[
                ('note', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='due', serialize=False, to='notes.note')),
                ('since', models.DateTimeField()),
                ('handed_over_at', models.DateTimeField(help_text='When a job was made of it, since nothing came of the message.', null=True)),
            ],
            options={
                'db_table': 'embeddings_due',
                'indexes': [models.Index(fields=['since'], name='embeddings_due_longest')],
            },
        ),
        migrations.CreateModel(
            name='ServedModel',
            fields=[
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='served_model', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='notes.embeddingmodel')),
                ('next', models.ForeignKey(help_text='Its vectors are being made; searches go over to it once it has all of them.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='notes.embeddingmodel')),
                ('previous', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='notes.embeddingmodel')),
            ],
            options={
                'db_table': 'served_models',
            },
        ),
        migrations.CreateModel(
            name='Passage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('current', models.BooleanField(help_text='Whether it was made from the text the note has now.')),
                ('ordinal', models.PositiveIntegerField()),
                ('char_start', models.PositiveIntegerField()),
                ('char_end', models.PositiveIntegerField()),
                ('text_hash', models.CharField(help_text='Of the text that was embedded.', max_length=64)),
                ('vector', pgvector.django.halfvec.HalfVectorField()),
                ('model', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to='notes.embeddingmodel')),
                ('note', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='passages', to='notes.note')),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'passages',
                'ordering': ('note', 'ordinal'),
                'indexes': [models.Index(fields=['user', 'model', 'current'], include=('note', 'vector'), name='passages_of_user')],
                'constraints': [models.UniqueConstraint(fields=('note', 'model', 'ordinal'), name='one_passage_per_ordinal'), models.CheckConstraint(condition=models.Q(('char_end__gt', models.F('char_start'))), name='passage_has_text')],
            },
        ),
        migrations.CreateModel(
            name='ScriptureReference',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('start_verse', models.PositiveIntegerField()),
                ('end_verse', models.PositiveIntegerField()),
                ('note', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='references', to='notes.note')),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'db_table': 'scripture_references',
                'indexes': [models.Index(fields=['user', 'start_verse', 'end_verse'], include=('note',), name='references_of_user')],
                'constraints': [models.CheckConstraint(condition=models.Q(('end_verse__gte', models.F('start_verse'))), name='reference_has_verses')],
            },
        ),
        migrations.RunSQL(WORDS, NO_WORDS),
        migrations.RunSQL(VACUUM_SOON, migrations.RunSQL.noop),
        migrations.RunPython(find_references, migrations.RunPython.noop),
        migrations.RunSQL(ALL_DUE, migrations.RunSQL.noop),
    ]
