"""How providers name their failures: codes, numbers and words, each with one of our error classes.

Always true: these are tables and nothing else; in each the first row that matches counts.
"""

from __future__ import annotations

import re

from tokenwire.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextOverflowError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderError,
    RateLimitError,
)

__all__ = [
    "BY_CODE",
    "BY_NUMBER",
    "BY_PROSE",
    "BY_STATUS",
    "BY_WORDS",
    "OVERFLOW",
    "PER_TIME",
    "SAYS",
]

#: The first row of which a word occurs in the provider's codes or (where it says so) its prose.
BY_CODE: tuple[tuple[type[ProviderError], tuple[str, ...]], ...] = (
    (
        ContextOverflowError,
        (
            "context_length",
            "contextlength",
            "context_window",
            "contextwindow",
            "context_size",
            "context_overflow",
            "context_limit",
            "prompt_too_long",
            "input_too_long",
            "prompt_tokens_exceeded",
        ),
    ),
    (ContentFilterError, ("content_filter", "content_policy", "responsibleai", "moderation")),
    (
        AuthenticationError,
        (
            "authentication",
            "invalid_api_key",
            "api_key_invalid",
            "unauthenticated",
            "unauthorized",
            "unrecognizedclient",
            "invalidsignature",
            "expiredtoken",
            "authfailure",
            "invalidapikey",
            "invalidaccesskey",
            "signaturedoesnotmatch",
        ),
    ),
    (
        RateLimitError,
        (
            "rate_limit",
            "resource_exhausted",
            "throttling",
            "too_many_requests",
            "quota",
            "toomanyrequests",
            "ratelimit",
            "requestlimitexceeded",
        ),
    ),
    (
        OverloadedError,
        (
            *("overloaded", "unavailable", "engine_overloaded", "modelnotready"),
            *("insufficient_system_resource", "system_busy"),
        ),
    ),
    (
        ModelNotFoundError,
        ("model_not_found", "not_found", "resourcenotfound", "invalid_model", "unknown_model"),
    ),
    (
        PermissionDeniedError,
        ("permission", "accessdenied", "forbidden", "billing", "payment", "balance"),
    ),
    (OverloadedError, ("server_error", "api_error", "internal", "timeout", "deadline_exceeded")),
    (BadRequestError, ("invalid_request", "invalid_argument", "validation", "failed_precondition")),
)
#: How gateways and servers say that a conversation is too long for the model.
OVERFLOW = re.compile(
    r"maximum context length|context[ _-]?(?:window|length|size|limit)"
    r"|prompt (?:is )?too (?:long|large)|prompt length .{0,60}exceed|maximum prompt length"
    r"|input (?:is |was )?too (?:long|large)|too many (?:input |prompt |total )?tokens"
    r"|input (?:tokens?|length)\b.{0,60}(?:exceed|longer than|too (?:long|large)|limit|maximum)"
    r"|(?:prompt|input|token)s? (?:token )?count\b.{0,60}exceed"
    r"|exceed(?:s|ed|ing)? (?:the |your |its )?(?:model(?:'s)? )?(?:token limit|max(?:imum)? "
    r"(?:allowed )?(?:number of )?(?:input |prompt |model )?(?:tokens|length|context))"
    r"|maximum number of (?:input |prompt )?tokens|max(?:imum)?[ _]model[ _]len"
    r"|longer than the (?:maximum )?(?:model|context)|range of input length"
    r"|inputs`? tokens|must have less than \d+ tokens|exceeds? the (?:available )?context"
    r"|reduce the length of (?:the |your )?(?:messages|prompt|input|conversation)",
    re.I,
)
#: Says of tokens that they are too many for a span of time, not for a context.
PER_TIME = re.compile(
    r"per (?:minute|second|hour|day)|rate.?limit|throttl|\b[TR]P[MDS]\b|please wait|try again in",
    re.I,
)
BY_PROSE: tuple[tuple[type[ProviderError], re.Pattern[str]], ...] = (
    (ContentFilterError, re.compile(r"content (?:filter|management|policy)|was flagged", re.I)),
    (AuthenticationError, re.compile(r"api key (?:is )?(?:not valid|invalid|expired)", re.I)),
    (
        ModelNotFoundError,
        re.compile(r"model\b.{0,120}(?:does not exist|not found|is not a valid model)", re.I),
    ),
)
#: Read only where there is neither a status nor a code with a meaning.
BY_WORDS: tuple[tuple[type[ProviderError], re.Pattern[str]], ...] = (
    (
        PermissionDeniedError,
        re.compile(
            r"balance|insufficient (?:credit|fund|quota)|arrear|billing|payment|current quota"
            r"|no permission|not allowed|access denied|forbidden|not authori[sz]ed to"
            r"|余额|欠费|权限",
            re.I,
        ),
    ),
    (
        RateLimitError,
        re.compile(
            r"rate.?limit|too many requests|request limit|requests per|\bqps\b|\b[tr]pm\b|quota"
            r"|throttl|slow down|\b429\b|error code: 1015|限流|速率|频率|并发",
            re.I,
        ),
    ),
    (
        AuthenticationError,
        re.compile(
            r"api.?key|unauthori[sz]ed|authenticat|access token|invalid token|token (?:invalid"
            r"|expired)|\btoken\b.{0,60}\b(?:invalid|expired|malformed)|login fail"
            r"|credential|not logged in|鉴权|认证|密钥",
            re.I,
        ),
    ),
    (ContentFilterError, re.compile(r"sensitive|inappropriate|safety|敏感|不安全|违规", re.I)),
    (
        OverloadedError,
        re.compile(
            r"overload|busy|try again|unavailable|time?d? ?-?out|capacity|internal|server error"
            r"|bad gateway|upstream|gateway error|connection (?:reset|refused|closed)"
            r"|繁忙|稍后|超时",
            re.I,
        ),
    ),
    (BadRequestError, re.compile(r"invalid (?:param|request|arg|input)|参数", re.I)),
)
#: Numbers of MiniMax (``base_resp.status_code``) and Baidu (``error_code``).
BY_NUMBER: dict[str, dict[int, type[ProviderError]]] = {
    "status_code": {
        1001: OverloadedError,
        1002: RateLimitError,
        1004: AuthenticationError,
        1008: PermissionDeniedError,
        1013: OverloadedError,
        1024: OverloadedError,
        1026: ContentFilterError,
        1027: ContentFilterError,
        1033: OverloadedError,
        1039: RateLimitError,
        1041: RateLimitError,
        2013: BadRequestError,
        2049: AuthenticationError,
        2056: RateLimitError,
    },
    "error_code": {
        2: OverloadedError,
        4: RateLimitError,
        6: PermissionDeniedError,
        14: AuthenticationError,
        17: RateLimitError,
        18: RateLimitError,
        19: RateLimitError,
        100: BadRequestError,
        110: AuthenticationError,
        111: AuthenticationError,
        336003: BadRequestError,
        336007: ContextOverflowError,
        336100: OverloadedError,
        336501: RateLimitError,
    },
}
BY_STATUS: dict[int, type[ProviderError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PermissionDeniedError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    408: OverloadedError,
    409: OverloadedError,
    413: BadRequestError,
    415: BadRequestError,
    422: BadRequestError,
    424: OverloadedError,
    425: OverloadedError,
    429: RateLimitError,
    498: OverloadedError,
    529: OverloadedError,
}
SAYS: dict[type[ProviderError], str] = {
    ContextOverflowError: "the conversation is longer than the model's context; shorten it",
    ContentFilterError: "the provider's content filter refused the request or the answer",
    AuthenticationError: "the provider refused the API key; check the configured key",
    RateLimitError: "the provider's rate limit or quota is used up; try again later",
    OverloadedError: "the provider is overloaded or down; try again later",
    ModelNotFoundError: "the provider has no such model or address; check the model's name",
    PermissionDeniedError: "the API key may not use this model, or its account needs attention",
    BadRequestError: "the provider refused the request",
    ProtocolError: "the provider's answer is not the promised stream",
    ProviderError: "the provider reported an error",
}
