"""Which model's vectors a user's searches use, and how that changes without a gap.

A user's first vectors decide it. When a job embeds all notes with another model, that one is the
user's next: its vectors stand beside those in use, an edited note is embedded for both, and once
no note lacks them the user goes over, in one transaction. The old vectors stay, so that the user
can go back, until they are dropped.
"""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from notes.embedding import Encoder, ModelUnavailable, encoder
from notes.models import EmbeddingModel, Note, Passage, ServedModel
from scribes.models import User


def default() -> EmbeddingModel:
    """The one that EMBEDDING_MODEL names. Raises ModelUnavailable."""
    return registered(settings.EMBEDDING_MODEL)


def registered(folder: str) -> EmbeddingModel:
    """The row of the model in this folder. Raises ModelUnavailable."""
    folder = str(Path(folder).resolve()) if folder else ""
    version = encoder(folder).version
    model, _ = EmbeddingModel.objects.get_or_create(version=version, defaults={"path": folder})
    if model.path != folder:  # it has moved
        model.path = folder
        model.save()
    return model


def encoder_of(model: EmbeddingModel) -> Encoder:
    """Raises ModelUnavailable, also where its folder holds another model by now."""
    found = encoder(model.path)
    if found.version != model.version:
        raise ModelUnavailable(f"{found.path} holds {found.version} and no more {model}.")
    return found


# Every search asks for it: written out, it takes 0.3 ms instead of 0.7.
SERVED = """
SELECT embedding_models.* FROM embedding_models JOIN served_models ON model_id = id
WHERE user_id = %s
"""


def of(user: User) -> EmbeddingModel:
    """The model that the user's searches use. Raises ModelUnavailable."""
    return _served(user) or default()


def name_of(user: User, version: str | None = None) -> str:
    """The name of this model, or of the one the user's searches use. Loads nothing."""
    if version is None:
        served = _served(user)
        version = served.version if served else encoder(settings.EMBEDDING_MODEL).name
    return version.split("@")[0]


def _served(user: User) -> EmbeddingModel | None:
    return next(iter(EmbeddingModel.objects.raw(SERVED, [user.pk])), None)


def targets(user: User) -> list[EmbeddingModel]:
    """The models to embed a note with: the one in use, and the next. Raises ModelUnavailable."""
    served = ServedModel.objects.filter(user=user).select_related("model", "next").first()
    if served is None:
        return [default()]
    return [served.model, served.next] if served.next else [served.model]


def begin(user: User, model: EmbeddingModel) -> None:
    """Vectors of all the user's notes are to be made with this model, in the caller's transaction.

    The only place that gives a user a next model.
    """
    served = _locked(user.pk, model)
    if served.model_id != model.pk:
        ServedModel.objects.filter(user=user).update(next=model)


def wanted(user_id: int, model: EmbeddingModel) -> list[int]:
    """The models that this user's notes are embedded with, if this one is among them, or the first;
    empty if not: the user has gone over to another since. Locks that until the transaction ends."""
    served = _locked(user_id, model)
    models = [pk for pk in (served.model_id, served.next_id) if pk]
    return models if model.pk in models else []


def _locked(user_id: int, model: EmbeddingModel) -> ServedModel:
    ServedModel.objects.get_or_create(user_id=user_id, defaults={"model": model})
    return ServedModel.objects.select_for_update(no_key=True).get(user=user_id)


def abandon(user: User) -> bool:
    """Stay with the model in use. What was made with the next one stays until drop_unused."""
    return bool(ServedModel.objects.filter(user=user).exclude(next=None).update(next=None))


def go_over(user: User) -> bool:
    """Serve the next model, if it has vectors of all notes but those that failed by themselves."""
    with transaction.atomic():
        rows = ServedModel.objects.select_for_update(no_key=True).select_related("next")
        served = rows.filter(user=user).exclude(next=None).first()
        if served is None or served.next is None:
            return False
        stale = Note.objects.for_user(user).stale(served.next)
        # Where the model cannot be loaded, it is not the note that failed.
        failed = Note.objects.failed().exclude(due__error_class=ModelUnavailable.__name__)
        if stale.exclude(pk__in=failed).exists():
            return False
        ServedModel.objects.filter(user=user).update(
            model=F("next"), previous=F("model"), next=None
        )
    return True


def go_back(user: User) -> bool:
    """Serve the model of before again, if there is one and its vectors were not dropped.

    Notes that were edited since lack its vectors.
    """
    gone_over = ServedModel.objects.filter(user=user).exclude(previous=None)
    return bool(gone_over.update(model=F("previous"), previous=F("model"), next=None))


def drop_unused(user: User) -> int:
    """Delete the vectors of models that the user neither uses nor is going over to; how many."""
    with transaction.atomic():
        rows = ServedModel.objects.select_for_update(no_key=True).filter(user=user)
        served = rows.first()
        if served is None:
            return 0
        rows.update(previous=None)
        used = Q(model=served.model_id) | Q(model=served.next_id)
        return Passage.objects.filter(~used, user=user).delete()[0]
