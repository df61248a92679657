"""How many tokens a text has when no provider said so: characters / 4, an image 1,500.

An exact count blocks the loop for hundreds of milliseconds on a long prompt and differs between models anyway.
"""

import json
import math

from workflow.core.events import Usage
from workflow.llm.base import AssistantMessage, ChatMessage, ModelRequest, ToolMessage, UserMessage

CHARS_PER_TOKEN = 4
IMAGE_TOKENS = 1_500  # Anthropic: width x height / 750, at most about 1,600


def estimate_tokens(chars: int) -> int:
    """Tokens in a text of that many characters, rounded up."""
    return math.ceil(chars / CHARS_PER_TOKEN)


def estimate_usage(request: ModelRequest, *, output_chars: int) -> Usage:
    """Usage of a call that nobody metered: the whole request as fresh input, `output_chars` as output."""
    return Usage(input_tokens=request_tokens(request), output_tokens=estimate_tokens(output_chars))


def request_tokens(request: ModelRequest) -> int:
    """Estimated prompt tokens of a request: messages, tool schemas and images."""
    chars = sum(_chars(message) for message in request.messages)
    chars += sum(len(tool.description) + len(json.dumps(tool.parameters)) for tool in request.tools)
    images = sum(len(message.images) for message in request.messages if isinstance(message, UserMessage | ToolMessage))
    return estimate_tokens(chars) + images * IMAGE_TOKENS


def _chars(message: ChatMessage) -> int:
    if isinstance(message, AssistantMessage):
        return len(message.text) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return len(message.text)
