from __future__ import annotations

from django.urls import path

from notes import views

urlpatterns = [
    path("notes", views.NoteList.as_view(), name="note-list"),
    path("notes/<int:pk>", views.NoteDetail.as_view(), name="note-detail"),
    path(
        "semantic/regenerate-embeddings",
        views.RegenerateEmbeddings.as_view(),
        name="regenerate-embeddings",
    ),
    path("semantic/search", views.SearchNotes.as_view(), name="semantic-search"),
    path("semantic/similar/<int:pk>", views.SimilarNotes.as_view(), name="semantic-similar"),
    path("scripture/coverage", views.ScriptureCoverage.as_view(), name="scripture-coverage"),
    path("scripture/parse", views.ParseScripture.as_view(), name="scripture-parse"),
    path("semantic/status", views.EmbeddingStatus.as_view(), name="semantic-status"),
]
