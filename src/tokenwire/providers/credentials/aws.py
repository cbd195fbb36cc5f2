"""AWS credentials of every kind that botocore finds, as signatures (SigV4) of Bedrock's requests.

Always true: botocore refreshes its credentials itself; each request is signed with those of its
moment, and a request that has a key is not signed.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tokenwire.errors import AuthenticationError
from tokenwire.providers.base import Call, Target
from tokenwire.providers.credentials.credential import KeyCredential, Token, in_daemon

__all__ = ["AwsCredential"]

_REGION = re.compile(r"//bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


class AwsCredential:
    """The chain of botocore: environment, files, SSO, web identity, containers, instances.
    ``region``: of the signature, where the address does not say it."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._source: Any = None
        self._frozen: Any = None
        # It has the bounds, the errors and the one refresh at a time of every credential.
        self._cell = KeyCredential("the credentials of AWS (botocore)", self._fetch)

    async def ready(self, target: Target, *, rejected: bool = False) -> Target:
        """``target`` as it is, once there are credentials to sign with."""
        if rejected:
            self._source = None  # looked for anew
        await self._cell.ready(target)
        return target

    def sign(self, call: Call, target: Target) -> Call:
        """The call with the headers of its signature."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        match = _REGION.search(call.url)
        region = match[1] if match else self._region
        headers = {"content-type": call.headers.get("content-type", "application/json")}
        request = AWSRequest(method=call.method, url=call.url, data=call.body, headers=headers)
        SigV4Auth(self._frozen, "bedrock", region).add_auth(request)
        signed = {name.lower(): str(value) for name, value in request.headers.items()}
        return msgspec.structs.replace(call, headers={**call.headers, **signed})

    async def _fetch(self) -> Token:
        self._frozen = await in_daemon(self._load)
        return Token("signed")

    def _load(self) -> Any:
        if self._source is None:
            import botocore.session

            self._source = botocore.session.get_session().get_credentials()
        if self._source is None:
            raise AuthenticationError(
                "no key for the provider: botocore found no AWS credentials; set "
                "AWS_BEARER_TOKEN_BEDROCK, AWS_ACCESS_KEY_ID and its like, or a role"
            )
        return self._source.get_frozen_credentials()
