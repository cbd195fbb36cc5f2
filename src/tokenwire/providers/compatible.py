"""Who speaks which wire: a table of providers, and a table of what some of them do differently.

Always true: a quirk has a name and one sentence; a provider is one row; a base URL holds only what
the configuration gives (``{NAME}`` is an environment variable, ``{NAME:default}`` one with a
default).
"""

from __future__ import annotations

import msgspec

__all__ = ["PROVIDERS", "QUIRKS", "Provider"]

#: Named switches of servers that are almost compatible.
QUIRKS: dict[str, str] = {
    "api_key_header": "the key goes into the header 'api-key' instead of 'authorization'",
    "bearer": "the key goes into 'authorization: Bearer' where the wire's own way is another",
    "bedrock": "the wire is spoken by way of Amazon Bedrock",
    "call_by_schema": "a forced tool call uses a JSON schema; the text is the call",
    "cumulative_deltas": "each delta repeats the whole text so far",
    "developer_role": "system messages have the role 'developer'",
    "json_object_only": "structured output is any JSON object, without a schema",
    "max_completion_tokens": "the output limit is called 'max_completion_tokens'",
    "no_stream_options": "usage must not be asked for with 'stream_options'",
    "random_seed": "the seed is called 'random_seed'",
    "reasoning_content": "the reasoning of a turn with tool calls must be sent back",
    "reasoning_details": "reasoning details, with their signatures, are sent back as they came",
    "reasoning_object": "reasoning is an object: effort or a number of tokens",
    "short_call_ids": "ids of tool calls have nine letters or digits; others are mapped",
    "think_tags": "reasoning comes inside the text between <think> and </think>, and is split off",
    "think_open": "the answer begins with reasoning, without <think>, up to the first </think>",
    "tool_choice_any": "a required tool call is 'any'",
    "tool_result_name": "a tool result must repeat the tool's name",
    "tools_in_prompt": "the model is not told of tools; a forced call tells of them in words",
    "vertex": "the wire is spoken by way of Google Vertex AI",
}


class Provider(msgspec.Struct, kw_only=True, frozen=True):
    """One provider: the prefix of its model names, its wire, where it is and which key it takes."""

    name: str
    title: str
    base_url: str
    dialect: str = "openai-chat"
    #: Environment variables that may hold the key, the first that is set counts.
    keys: tuple[str, ...] = ()
    #: Environment variables that may replace ``base_url``; ``NAME_BASE_URL`` always may.
    urls: tuple[str, ...] = ()
    #: Added to an address from ``urls``, where people write it without.
    suffix: str = ""
    quirks: frozenset[str] = frozenset()
    headers: dict[str, str] = {}
    #: Deadlines of its models in place of the usual ones: clock -> seconds (`providers.clocks`).
    clocks: dict[str, float] = {}
    #: A model that exists there, for help texts.
    example: str = "MODEL"


def _row(name: str, title: str, base_url: str, *keys: str, **more: object) -> Provider:
    quirks = frozenset(str(more.pop("quirks", "")).split())
    return Provider(
        name=name,
        title=title,
        base_url=base_url,
        keys=keys,
        quirks=quirks,
        **more,  # type: ignore[arg-type]
    )


_OPENAI = "https://api.openai.com/v1"
_AZURE = "{AZURE_OPENAI_ENDPOINT}/openai/v1"
_VERTEX = (
    "https://{GOOGLE_CLOUD_LOCATION:us-central1}-aiplatform.googleapis.com/v1/projects/"
    "{GOOGLE_CLOUD_PROJECT}/locations/{GOOGLE_CLOUD_LOCATION:us-central1}/publishers/"
)
_BEDROCK = "https://bedrock-runtime.{AWS_REGION:us-east-1}.amazonaws.com"
_ANTHROPIC = "https://api.anthropic.com/v1"
_GEMINI = "https://generativelanguage.googleapis.com/v1beta"

_ROWS = (
    _row("openai", "OpenAI", _OPENAI, "OPENAI_API_KEY",
         quirks="max_completion_tokens", example="gpt-5-mini"),
    _row("openai-responses", "OpenAI Responses", _OPENAI, "OPENAI_API_KEY",
         dialect="openai-responses", urls=("OPENAI_BASE_URL",), example="gpt-5-mini"),
    _row("openai-completions", "OpenAI legacy completions", _OPENAI, "OPENAI_API_KEY",
         dialect="completions", urls=("OPENAI_BASE_URL",), example="gpt-3.5-turbo-instruct"),
    _row("azure", "Azure OpenAI", _AZURE, "AZURE_OPENAI_API_KEY",
         quirks="api_key_header max_completion_tokens", example="DEPLOYMENT"),
    _row("azure-responses", "Azure OpenAI Responses", _AZURE, "AZURE_OPENAI_API_KEY",
         dialect="openai-responses", quirks="api_key_header", example="DEPLOYMENT"),
    _row("anthropic", "Anthropic", _ANTHROPIC, "ANTHROPIC_API_KEY",
         dialect="anthropic", example="claude-sonnet-4-5"),
    _row("vertex-anthropic", "Anthropic on Vertex AI", _VERTEX + "anthropic", "GOOGLE_ACCESS_TOKEN",
         dialect="anthropic", quirks="vertex", example="claude-sonnet-4-5"),
    _row("bedrock-anthropic", "Anthropic on Bedrock", _BEDROCK, "AWS_BEARER_TOKEN_BEDROCK",
         dialect="anthropic", quirks="bedrock", example="anthropic.claude-sonnet-4-5-v1:0"),
    _row("gemini", "Google Gemini", _GEMINI, "GEMINI_API_KEY", "GOOGLE_API_KEY",
         dialect="gemini", example="gemini-3-flash"),
    _row("gemini-interactions", "Google Gemini Interactions", _GEMINI, "GEMINI_API_KEY",
         "GOOGLE_API_KEY", dialect="gemini-interactions", urls=("GEMINI_BASE_URL",),
         example="gemini-3-flash"),
    _row("vertex", "Google Vertex AI", _VERTEX + "google", "GOOGLE_ACCESS_TOKEN",
         dialect="gemini", quirks="vertex", example="gemini-3-flash"),
    _row("bedrock", "Amazon Bedrock Converse", _BEDROCK, "AWS_BEARER_TOKEN_BEDROCK",
         dialect="bedrock-converse", example="amazon.nova-lite-v1:0"),
    _row("cohere", "Cohere", "https://api.cohere.com/v2", "CO_API_KEY", "COHERE_API_KEY",
         dialect="cohere", example="command-a-03-2025"),
    _row("ollama", "Ollama", "http://127.0.0.1:11434", dialect="ollama", urls=("OLLAMA_HOST",),
         example="qwen3"),
    _row("mistral", "Mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY",
         quirks="random_seed tool_choice_any short_call_ids tool_result_name no_stream_options",
         example="mistral-small-latest"),
    _row("groq", "Groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY",
         example="openai/gpt-oss-120b"),
    _row("deepseek", "DeepSeek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY",
         quirks="json_object_only reasoning_content", example="deepseek-chat"),
    _row("xai", "xAI", "https://api.x.ai/v1", "XAI_API_KEY", example="grok-4"),
    _row("xai-responses", "xAI Responses", "https://api.x.ai/v1", "XAI_API_KEY",
         dialect="openai-responses", urls=("XAI_BASE_URL",), example="grok-4"),
    _row("openrouter", "OpenRouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY",
         quirks="reasoning_object reasoning_details", example="anthropic/claude-sonnet-4.5"),
    _row("together", "Together AI", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    _row("fireworks", "Fireworks AI", "https://api.fireworks.ai/inference/v1",
         "FIREWORKS_API_KEY"),
    _row("perplexity", "Perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY",
         "PPLX_API_KEY", quirks="no_stream_options", example="sonar"),
    _row("cerebras", "Cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    _row("nvidia", "NVIDIA NIM", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    _row("huggingface", "Hugging Face", "https://router.huggingface.co/v1", "HF_TOKEN"),
    _row("moonshot", "Moonshot AI", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY",
         quirks="reasoning_content", example="kimi-k2-turbo-preview"),
    _row("zai", "Z.AI", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", example="glm-4.7"),
    _row("alibaba", "Alibaba Model Studio",
         "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY",
         example="qwen3-max"),
    _row("cloudflare", "Cloudflare Workers AI",
         "https://api.cloudflare.com/client/v4/accounts/{CLOUDFLARE_ACCOUNT_ID}/ai/v1",
         "CLOUDFLARE_API_TOKEN", example="@cf/openai/gpt-oss-120b"),
    _row("github", "GitHub Models", "https://models.github.ai/inference", "GITHUB_TOKEN",
         example="openai/gpt-4.1-mini"),
    _row("copilot", "GitHub Copilot", "https://api.githubcopilot.com", "GITHUB_COPILOT_TOKEN",
         example="gpt-4.1"),
    _row("vercel", "Vercel AI Gateway", "https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY",
         quirks="reasoning_object reasoning_details", example="anthropic/claude-sonnet-4"),
    _row("databricks", "Databricks", "{DATABRICKS_HOST}/serving-endpoints", "DATABRICKS_TOKEN"),
    _row("snowflake", "Snowflake Cortex", "{SNOWFLAKE_HOST}/api/v2/cortex/v1", "SNOWFLAKE_TOKEN"),
    _row("venice", "Venice AI", "https://api.venice.ai/api/v1", "VENICE_API_KEY"),
    _row("writer", "Writer", "https://api.writer.com/v1", "WRITER_API_KEY", example="palmyra-x5"),
    _row("avian", "Avian", "https://api.avian.io/v1", "AVIAN_API_KEY"),
    _row("sambanova", "SambaNova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    _row("llamacpp", "llama.cpp server", "http://127.0.0.1:8080/v1"),
    _row("vllm", "vLLM", "http://127.0.0.1:8000/v1"),
    _row("lmstudio", "LM Studio", "http://127.0.0.1:1234/v1"),
    _row("litellm", "LiteLLM proxy", "http://127.0.0.1:4000/v1"),
)  # fmt: skip

#: Prefix of model names -> provider.
PROVIDERS: dict[str, Provider] = {row.name: row for row in _ROWS}
