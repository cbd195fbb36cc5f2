"""A Django project with its own login, and the server under ``/ai`` around it."""

from __future__ import annotations

import os
from importlib import import_module

from django.conf import settings
from django.contrib.auth import aget_user
from django.core.asgi import get_asgi_application
from django.http import HttpRequest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from support.hosts.serving import live_of, run

os.environ["DJANGO_SETTINGS_MODULE"] = "support.hosts.django_settings"


async def who(connection: HTTPConnection) -> str | None:
    request = HttpRequest()
    store = import_module(settings.SESSION_ENGINE).SessionStore
    request.session = store(connection.cookies.get(settings.SESSION_COOKIE_NAME))
    user = await aget_user(request)
    if "barred" in connection.query_params:
        raise HTTPException(403, "you are barred")
    return user.get_username() if user.is_authenticated else None


live = live_of(user=who)
application = live.wrap(get_asgi_application(), prefix="/ai")


def make_users() -> None:
    """The database, and two people."""
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for name in ("ann", "bob"):
        get_user_model().objects.create_user(name, password=f"of {name}")


if __name__ == "__main__":
    make_users()
    run(application)
