"""Names of trace attributes for generative AI, and our own.

Our own list, because OpenTelemetry's Python package marks its copy deprecated: the names moved to a repository
without a package. Source: github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md
"""

OPERATION = "gen_ai.operation.name"
"""`invoke_agent`, `chat`, `execute_tool`."""
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
MAX_TOKENS = "gen_ai.request.max_tokens"
TEMPERATURE = "gen_ai.request.temperature"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
"""All that were read, those from and into a cache included."""
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TOOL = "gen_ai.tool.name"
TOOL_CALL = "gen_ai.tool.call.id"
TOOL_TYPE = "gen_ai.tool.type"
ERROR = "error.type"

RUN = "dialtone.run.id"
ATTEMPT = "dialtone.run.attempt"
OUTCOME = "dialtone.run.outcome"
TURN = "dialtone.turn"
TENANT = "dialtone.tenant"
EFFECT = "dialtone.tool.effect"
COST_USD = "dialtone.cost_usd"

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
}


def provider_name(model: str) -> str:
    """The provider of a LiteLLM model name, as the conventions spell it; `openai` when the name has no prefix."""
    prefix, slash, _ = model.partition("/")
    return _PROVIDERS.get(prefix, prefix) if slash else ("openai" if model.startswith("gpt") else model)
