"""The routes of the tests' Django project."""

from django.contrib.auth import aauthenticate, alogin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path


async def login(request: HttpRequest) -> HttpResponse:
    name = request.GET["name"]
    user = await aauthenticate(request, username=name, password=f"of {name}")
    if user is None:
        return HttpResponse(status=401)
    await alogin(request, user)
    return HttpResponse(status=204)


def own(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"own": True})


urlpatterns = [path("login", login), path("own", own)]
