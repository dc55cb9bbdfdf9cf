"""The API in a browser: REST framework's pages with links, buttons and more forms.

JSON clients never see any of this. A view may define `resources(data)`, which lists what its page
shows with links and buttons, and `query_class`, the serializer of its query string.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from django.template import loader
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.fields import empty
from rest_framework.renderers import BrowsableAPIRenderer, HTMLFormRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.field_mapping import ClassLookupDict
from rest_framework.utils.html import is_html_input
from rest_framework.utils.serializer_helpers import ReturnDict

# --- Form fields ----------------------------------------------------------------------------


class LinesField(serializers.ListField):
    """A list; in a form, a text area with one item per line."""

    def get_value(self, dictionary: Any) -> Any:
        value = super().get_value(dictionary)
        if not is_html_input(dictionary) or value is empty or len(value) != 1:
            return value
        return [line for line in _with_plain_newlines(value[0]).split("\n") if line.strip()]


class CheckboxListField(serializers.ListField):
    """A list of choices; in a form, one checkbox per choice."""

    @property
    def choices(self) -> dict[Any, Any]:
        child: serializers.ChoiceField = self.child  # type: ignore[assignment]
        return dict(child.choices)


class MultilineTextField(serializers.CharField):
    """Text of several lines. Browsers send line breaks as CR LF; this field stores LF."""

    def get_value(self, dictionary: Any) -> Any:
        value = super().get_value(dictionary)
        if not is_html_input(dictionary) or value is empty:
            return value
        return _with_plain_newlines(value)


class OptionalTimeField(serializers.TimeField):
    """A time of day; an empty form input means none."""

    def get_value(self, dictionary: Any) -> Any:
        value = super().get_value(dictionary)
        return None if value == "" and is_html_input(dictionary) else value


def _with_plain_newlines(value: Any) -> Any:
    return value.replace("\r\n", "\n") if isinstance(value, str) else str(value)


class FormRenderer(HTMLFormRenderer):
    default_style = ClassLookupDict(
        {
            **HTMLFormRenderer.default_style.mapping,
            serializers.ChoiceField: {"template": "scribes/choice.html"},
            CheckboxListField: {"base_template": "checkbox_multiple.html"},
            LinesField: {"template": "scribes/lines.html"},
            # A browser's own date input sends no UTC offset.
            serializers.DateTimeField: {
                "base_template": "input.html",
                "input_type": "text",
                "placeholder": "2027-01-31T19:00:00+01:00",
            },
            # A select box would list every row.
            serializers.PrimaryKeyRelatedField: {
                "base_template": "input.html",
                "input_type": "number",
            },
        }
    )


# --- Pages ----------------------------------------------------------------------------------


class Resource(NamedTuple):
    """One item on a page, with its links and the buttons that POST to it."""

    name: str
    links: dict[str, str]
    """URLs by label."""
    buttons: dict[str, str]
    """URLs by label."""


class BrowsableAPI(BrowsableAPIRenderer):
    form_renderer_class = FormRenderer

    def get_context(
        self, data: Any, accepted_media_type: str | None, renderer_context: Any
    ) -> dict[str, Any]:
        context = super().get_context(data, accepted_media_type, renderer_context)
        view, request = renderer_context["view"], renderer_context["request"]
        response: Response = renderer_context["response"]
        has_result = data and request.method != "OPTIONS" and not response.exception
        # Data without a serializer of its own is not a row that a form could change.
        patch_form = hasattr(data, "serializer") and self.get_rendered_html_form(
            data, view, "PATCH", request
        )
        return context | {
            "resources": view.resources(data) if has_result and hasattr(view, "resources") else [],
            "patch_form": patch_form,
            "raw_data_patch_form": None if patch_form else context["raw_data_patch_form"],
            # A GET of an endpoint that only knows POST shows its form, not an error.
            "shows_only_form": request.method == "GET" and response.status_code == 405,
        }

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        if method == request.method:
            data = self._form_data(data, view, request)
        return super().get_rendered_html_form(data, view, method, request)

    def _form_data(self, data: Any, view: Any, request: Request) -> Any:
        """The data with the form's serializer, where REST framework would take the response's."""
        serializer = getattr(data, "serializer", None)
        if serializer is None or not hasattr(view, "get_serializer"):
            return data
        try:
            submitted = request.data
        except APIException:
            return None
        if isinstance(serializer, view.get_serializer_class()):
            return data
        return ReturnDict({}, serializer=_filled_in(view.get_serializer(), submitted))

    def get_filter_form(self, data: Any, view: Any, request: Request) -> str | None:
        if not hasattr(view, "query_class") or request.method != "GET":
            return None
        query = _filled_in(view.query_class(), request.query_params)
        fields = self.render_form_for_serializer(query)
        form = loader.get_template("scribes/filters.html").render({"fields": fields})
        return loader.get_template(self.filter_template).render({"elements": [form]})


def _filled_in(
    serializer: serializers.Serializer[Any], submitted: Any
) -> serializers.Serializer[Any]:
    """The form with the values as they were submitted, before validation."""
    for field in serializer.fields.values():
        value = field.get_value(submitted)
        if value is not empty:
            field.initial = value
    return serializer
