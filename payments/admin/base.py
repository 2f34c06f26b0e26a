"""What every page of the console has in common: read-only, bounded lists, one detail page, actions behind confirmation pages."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from django.apps import apps
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from payonce.orders.conf import get_settings
from payonce.payments.admin import confirm, search
from payonce.payments.admin.actions import Action, Operator, Tool

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin

COUNT_MAX = 10_000


class CappedCount(int):
    """A count that was given up: shown as `10,000+`."""

    def __str__(self) -> str:
        return f"{int(self):,}+"

    __repr__ = __str__


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts at most 10,000 rows: an exact count of a large table costs more than its page."""

    @cached_property
    def count(self) -> int:
        """Rows, or `CappedCount` when there are more than can be paged through."""
        rows: Any = self.object_list
        if not isinstance(rows, models.QuerySet):
            return len(rows)
        found = rows.order_by().values("pk")[: COUNT_MAX + 1].count()
        return found if found <= COUNT_MAX else CappedCount(COUNT_MAX)


class ConsoleAdmin(_ModelAdmin):
    """A read-only page of the console. Nobody adds, changes or deletes a row here, not even a superuser."""

    actions: Sequence[Any] | None = None
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    search_fields: ClassVar[tuple[str, ...]] = ("pk",)
    search_help_text = _("Order, reference, stream, refund or channel number; paste up to 200")
    page_template = "payonce/admin/record.html"
    object_actions: ClassVar[tuple[Action, ...]] = ()

    class Media:
        css = {"all": ["payonce/admin.css"]}

    # Who may do what.

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        """Nobody: rows are made by steps."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: rows change by steps."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: nothing is ever deleted."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever has the model's own view permission."""
        return request.user.has_perm(f"{self.opts.app_label}.view_{self.opts.model_name}")

    # Lists.

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Any]":
        """Rows of the list, from the database that every step uses."""
        return self.all_rows()

    def all_rows(self) -> "models.QuerySet[Any]":
        """Every row of the model with what its page shows: a queue's page stays when the row leaves the queue."""
        rows: models.QuerySet[Any] = self.model._default_manager.using(get_settings().DATABASE)
        joined = self.list_select_related
        return rows.select_related(*joined) if isinstance(joined, list | tuple) and joined else rows

    def get_search_results(
        self, request: HttpRequest, queryset: "models.QuerySet[Any]", search_term: str
    ) -> "tuple[models.QuerySet[Any], bool]":
        """Exact look-ups, each by its own index."""
        if not search_term.strip():
            return queryset, False
        return self.filter_found(queryset, search.find_once(request, search_term)), False

    def filter_found(self, queryset: "models.QuerySet[Any]", found: search.Found) -> "models.QuerySet[Any]":
        """Rows of this list that belong to what was found."""
        return queryset.none()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list. A search with exactly one hit goes to its page; "select all across pages" is refused."""
        if request.method == "POST" and request.POST.get("select_across") == "1":
            self.message_user(
                request, gettext("Only rows of this page can be acted on. Nothing was done."), messages.ERROR
            )
            return HttpResponseRedirect(request.get_full_path())
        term = request.GET.get("q", "").strip()
        if request.method == "GET" and term and self.has_view_permission(request):
            target = search.jump(search.find_once(request, term), request.user, self.admin_site.name)
            if target:
                return HttpResponseRedirect(target)
            if len(search.terms_of(term)) > search.TERMS_MAX:
                self.message_user(request, gettext("Only the first 200 numbers were looked up."), messages.WARNING)
        return super().changelist_view(request, extra_context)

    # One row's page.

    def get_urls(self) -> list[URLPattern]:
        """The confirmation pages come before Django's own catch-all. They run steps, so no transaction may be open."""
        view = transaction.non_atomic_requests(using=get_settings().DATABASE)(
            self.admin_site.admin_view(self.action_view)
        )
        route = path("<int:object_id>/do/<slug:action>/", view, name=self.url_name("do"))
        return [route, *self.extra_urls(), *super().get_urls()]

    def extra_urls(self) -> list[URLPattern]:
        """Further views of this page."""
        return []

    def url_name(self, name: str) -> str:
        """The name of one of this model's addresses, without the site's namespace."""
        return f"{self.opts.app_label}_{self.opts.model_name}_{name}"

    def link(self, name: str, *args: Any) -> str:
        """The address of one of this model's views."""
        return reverse(f"{self.admin_site.name}:{self.url_name(name)}", args=args)

    def link_to(self, row: models.Model) -> str:
        """The page of another row, or an empty text when it has none here."""
        meta = row._meta
        try:
            return reverse(f"{self.admin_site.name}:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
        except NoReverseMatch:
            return ""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """One row, for reading. It accepts no POST."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        row = self.row_or_404(request, object_id)
        context = {
            **self.page_context(request, row, title=str(row)),
            "tools": self.tools(request, row),
            **self.page(request, row),
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.page_template, context)

    def row_or_404(self, request: HttpRequest, object_id: str | int) -> Any:
        """The row, after the permission to see it was checked. Raises PermissionDenied or Http404."""
        confirm.require(self.has_view_permission(request))
        row = (
            self.all_rows().filter(pk=object_id).first()
            if str(object_id).isascii() and str(object_id).isdigit()
            else None
        )
        if row is None:
            raise Http404
        return row

    def page(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the page's template shows."""
        return {}

    def page_context(self, request: HttpRequest, row: Any = None, **extra: Any) -> dict[str, Any]:
        """What every template needs: the site's own context, the breadcrumbs and the style sheet."""
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "page": self,
            "row": row,
            "media": self.media,
            "index_url": reverse(f"{self.admin_site.name}:index"),
            "list_url": self.link("changelist"),
            "row_url": self.link("change", row.pk) if row is not None else "",
            "history_url": self.link("history", row.pk) if row is not None else "",
            **extra,
        }

    def tools(self, request: HttpRequest, row: Any) -> list[Tool]:
        """The row's actions as links, each with the reason where it cannot be taken now."""
        operator = Operator.of(request)
        return [
            action.tool(row, operator, self.link("do", row.pk, action.name), request.user.has_perm(action.permission))
            for action in self.object_actions
        ]

    def action_view(self, request: HttpRequest, object_id: int, action: str) -> HttpResponse:
        """GET shows what the action would do; POST does it once."""
        found = next((item for item in self.object_actions if item.name == action), None)
        if found is None:
            raise Http404
        row = self.row_or_404(request, object_id)
        confirm.require(request.user.has_perm(found.permission))
        return confirm.respond(self, request, row, found)


def with_theme(admin_class: type[ConsoleAdmin]) -> type[ConsoleAdmin]:
    """The class on the ModelAdmin base that `PAYONCE["UNFOLD"]` asks for: unfold's, or Django's own."""
    if not is_unfold_wanted():
        return admin_class
    from unfold.admin import ModelAdmin as UnfoldModelAdmin

    return type(admin_class.__name__, (admin_class, UnfoldModelAdmin), {"__module__": admin_class.__module__})


def is_unfold_wanted() -> bool:
    """`auto` takes django-unfold where it is one of the installed apps."""
    wanted = get_settings().UNFOLD
    return apps.is_installed("unfold") if wanted == "auto" else wanted is True


def display(description: Any, *, ordering: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Name a list's column; only indexed columns give `ordering`."""
    return admin.display(description=description, ordering=ordering)
