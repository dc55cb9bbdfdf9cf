"""The API in a browser: REST framework's pages, with links, buttons and more forms.

Programs never see any of this. A view may say `places(data)`: what its page shows, and where one
can go from there; and `query_class`: the serializer of its query string.
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

# --- Fields of forms ------------------------------------------------------------------------


class Lines(serializers.ListField):
    """In a form one text, with an item a line."""

    def get_value(self, dictionary: Any) -> Any:
        value = super().get_value(dictionary)
        if not is_html_input(dictionary) or value is empty or len(value) != 1:
            return value
        return [line for line in _lines(value[0]).split("\n") if line.strip()]


class Choices(serializers.ListField):
    """In a form a box to tick for each."""

    @property
    def choices(self) -> dict[Any, Any]:
        child: serializers.ChoiceField = self.child  # type: ignore[assignment]
        return dict(child.choices)


class Text(serializers.CharField):
    """Of several lines. A browser sends them with carriage returns that nobody has typed."""

    def get_value(self, dictionary: Any) -> Any:
        value = super().get_value(dictionary)
        return _lines(value) if is_html_input(dictionary) and value is not empty else value


class OptionalTimeField(serializers.TimeField):
    """A form's empty input is none at all."""

    def get_value(self, dictionary: Any) -> Any:
        value = super().get_value(dictionary)
        return None if value == "" and is_html_input(dictionary) else value


def _lines(value: Any) -> Any:
    return value.replace("\r\n", "\n") if isinstance(value, str) else str(value)


class Forms(HTMLFormRenderer):
    default_style = ClassLookupDict(
        {
            **HTMLFormRenderer.default_style.mapping,
            serializers.ChoiceField: {"template": "scribes/choice.html"},
            Choices: {"base_template": "checkbox_multiple.html"},
            Lines: {"template": "scribes/lines.html"},
            # A browser's own input for these says no offset from UTC.
            serializers.DateTimeField: {
                "base_template": "input.html",
                "input_type": "text",
                "placeholder": "2027-01-31T19:00:00+01:00",
            },
            # Not one option for each row.
            serializers.PrimaryKeyRelatedField: {
                "base_template": "input.html",
                "input_type": "number",
            },
        }
    )


# --- Pages ----------------------------------------------------------------------------------


class Place(NamedTuple):
    """A thing on a page: where one can go from it, and what its buttons POST to."""

    name: str
    links: dict[str, str]
    buttons: dict[str, str]


class BrowsableAPI(BrowsableAPIRenderer):
    form_renderer_class = Forms

    def get_context(
        self, data: Any, accepted_media_type: str | None, renderer_context: Any
    ) -> dict[str, Any]:
        context = super().get_context(data, accepted_media_type, renderer_context)
        view, request = renderer_context["view"], renderer_context["request"]
        response: Response = renderer_context["response"]
        shows = data and request.method != "OPTIONS" and not response.exception
        # Without its own serializer a page shows no row that could be changed.
        patch_form = hasattr(data, "serializer") and self.get_rendered_html_form(
            data, view, "PATCH", request
        )
        return context | {
            "places": view.places(data) if shows and hasattr(view, "places") else [],
            "patch_form": patch_form,
            "raw_data_patch_form": None if patch_form else context["raw_data_patch_form"],
            # What can only be POSTed to is not at fault when somebody comes to fill in its form.
            "only_a_form": request.method == "GET" and response.status_code == 405,
        }

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        if method == request.method:
            data = self._data_of_form(data, view, request)
        return super().get_rendered_html_form(data, view, method, request)

    def _data_of_form(self, data: Any, view: Any, request: Request) -> Any:
        """With the serializer of the form: DRF takes the one of the answer for it."""
        serializer = getattr(data, "serializer", None)
        if serializer is None or not hasattr(view, "get_serializer"):
            return data
        try:
            sent = request.data
        except APIException:
            return None
        if isinstance(serializer, view.get_serializer_class()):
            return data
        return ReturnDict({}, serializer=_filled_in(view.get_serializer(), sent))

    def get_filter_form(self, data: Any, view: Any, request: Request) -> str | None:
        if not hasattr(view, "query_class") or request.method != "GET":
            return None
        query = _filled_in(view.query_class(), request.query_params)
        fields = self.render_form_for_serializer(query)
        form = loader.get_template("scribes/filters.html").render({"fields": fields})
        return loader.get_template(self.filter_template).render({"elements": [form]})


def _filled_in(serializer: serializers.Serializer[Any], sent: Any) -> serializers.Serializer[Any]:
    """As it was sent, not as it was understood."""
    for field in serializer.fields.values():
        value = field.get_value(sent)
        if value is not empty:
            field.initial = value
    return serializer
