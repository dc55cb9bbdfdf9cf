"""Which model a user's searches use, and how a user switches to another one without a gap.

A user's first vectors determine the active model. A job that embeds all notes with another model
makes that one the next model: its vectors are stored beside those of the active model, and edited
notes are embedded with both. As soon as no note lacks them, the next model becomes the active one, in
one transaction. The old vectors are kept for a rollback until they are dropped.

    start_rollout --> all notes have vectors of the next model: promote --> roll_back
          '---------> cancel_rollout
"""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import F

from notes.embeddings.encoder import Encoder, ModelUnavailable, encoder
from notes.models import EmbeddingModel, Note, Passage, UserEmbeddingModel
from notes.pending_embeddings import PendingEmbedding
from scribes.models import User

# --- Models ---------------------------------------------------------------------------------


def default_model() -> EmbeddingModel:
    """The model that EMBEDDING_MODEL names. Raises ModelUnavailable."""
    return register_model(settings.EMBEDDING_MODEL)


def register_model(folder: str) -> EmbeddingModel:
    """The row of the model in this folder, which is created if needed. Raises ModelUnavailable."""
    folder = str(Path(folder).resolve()) if folder else ""
    version = encoder(folder).version
    model, _ = EmbeddingModel.objects.get_or_create(version=version, defaults={"path": folder})
    if model.path != folder:  # the folder was moved
        model.path = folder
        model.save()
    return model


def encoder_of(model: EmbeddingModel) -> Encoder:
    """Raises ModelUnavailable, also if the model's folder now contains another model."""
    found = encoder(model.path)
    if found.version != model.version:
        raise ModelUnavailable(f"{found.path} contains {found.version} instead of {model}.")
    return found


# --- The models of a user -------------------------------------------------------------------


def active_model(user: User) -> EmbeddingModel:
    """The model whose vectors the user's searches use. Raises ModelUnavailable."""
    models = _models_of(user)
    return models.active_model if models else default_model()


def model_name(user: User, version: str | None = None) -> str:
    """The name in this version, or the name of the user's active model. Loads no model."""
    if version is None:
        models = _models_of(user)
        version = models.active_model.version if models else encoder(settings.EMBEDDING_MODEL).name
    return version.split("@")[0]


def target_models(user: User) -> list[EmbeddingModel]:
    """The models to embed a note with: the active and the next one. Raises ModelUnavailable."""
    models = _models_of(user)
    if models is None:
        return [default_model()]
    return [model for model in (models.active_model, models.next_model) if model]


def target_model_ids(user_id: int, model: EmbeddingModel) -> list[int]:
    """The ids of the models to embed the user's notes with, if `model` is one of them; else empty.

    A user without any model gets this one. Locks the user's models until the transaction ends.
    """
    models = _lock_models(user_id, model)
    ids = [pk for pk in (models.active_model_id, models.next_model_id) if pk]
    return ids if model.pk in ids else []


def _models_of(user: User) -> UserEmbeddingModel | None:
    rows = UserEmbeddingModel.objects.select_related("active_model", "next_model")
    return rows.filter(user=user).first()


def _lock_models(user_id: int, model: EmbeddingModel) -> UserEmbeddingModel:
    UserEmbeddingModel.objects.get_or_create(user_id=user_id, defaults={"active_model": model})
    return UserEmbeddingModel.objects.select_for_update(no_key=True).get(user=user_id)


# --- Switching ------------------------------------------------------------------------------


def start_rollout(user: User, model: EmbeddingModel) -> None:
    """Make `model` the user's next model, in the caller's transaction, unless it is the active one.

    Nothing else sets the next model.
    """
    models = _lock_models(user.pk, model)
    if models.active_model_id != model.pk:
        UserEmbeddingModel.objects.filter(user=user).update(next_model=model)


def cancel_rollout(user: User) -> bool:
    """Keep the active model; False if there is no next one. Its vectors stay until drop_unused."""
    switching = UserEmbeddingModel.objects.filter(user=user).exclude(next_model=None)
    return bool(switching.update(next_model=None))


def promote(user: User) -> bool:
    """Make the next model the active one, if all notes have its vectors; whether it did."""
    with transaction.atomic():
        rows = UserEmbeddingModel.objects.select_for_update(no_key=True, of=("self",))
        models = rows.select_related("next_model").filter(user=user).first()
        if models is None or models.next_model is None:
            return False
        if _lacks_vectors(user, models.next_model):
            return False
        UserEmbeddingModel.objects.filter(user=user).update(
            active_model=F("next_model"), previous_model=F("active_model"), next_model=None
        )
    return True


def _lacks_vectors(user: User, model: EmbeddingModel) -> bool:
    """Whether some note has no vectors of this model, except for notes that failed by themselves."""
    stale = Note.objects.for_user(user).stale(model)
    # If the model cannot be loaded, the error is not in the note.
    failed = Note.objects.failed().exclude(pending_embedding__error_class=ModelUnavailable.__name__)
    return stale.exclude(pk__in=failed).exists()


def roll_back(user: User) -> bool:
    """Make the previous model the active one again; False if there is none or it was dropped.

    Notes that lack its vectors, since they were edited after the switch, become pending.
    """
    with transaction.atomic():
        switched = UserEmbeddingModel.objects.filter(user=user).exclude(previous_model=None)
        swapped = {"active_model": F("previous_model"), "previous_model": F("active_model")}
        is_done = bool(switched.update(**swapped, next_model=None))
        if is_done:
            stale = Note.objects.for_user(user).stale(active_model(user))
            PendingEmbedding.objects.add_all(stale)
    return is_done


def drop_unused(user: User) -> int:
    """Delete the vectors of all but the user's active and next model; the number of passages."""
    with transaction.atomic():
        rows = UserEmbeddingModel.objects.select_for_update(no_key=True).filter(user=user)
        models = rows.first()
        if models is None:
            return 0
        rows.update(previous_model=None)
        used = [pk for pk in (models.active_model_id, models.next_model_id) if pk]
        return Passage.objects.filter(user=user).exclude(model__in=used).delete()[0]
