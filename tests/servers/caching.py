"""Prompt caches as providers keep them, so that tests see which prefixes would have been found."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

LOOKBACK_BLOCKS = 20  # how far before a breakpoint Anthropic looks for an entry


@dataclass(frozen=True, slots=True)
class Counts:
    """Prompt tokens of one call."""

    fresh: int
    read: int
    written: int


@dataclass(slots=True)
class PrefixCache:
    """Remembers the prefixes at which a breakpoint stood. A token is four characters of JSON."""

    min_tokens: int = 0
    """Shorter prefixes are not cached, without a word, as with the real one."""
    _entries: set[str] = field(default_factory=set)

    def count(self, blocks: list[dict[str, Any]]) -> Counts:
        """Takes a prompt in, block by block in its order (tools, system, messages), and tells how it was read.

        A block with `cache_control` is a breakpoint.
        """
        digest = hashlib.sha256()
        digests: list[str] = []
        tokens: list[int] = []
        total = 0
        for block in blocks:
            text = json.dumps({key: value for key, value in block.items() if key != "cache_control"}, sort_keys=True)
            digest.update(text.encode())
            digests.append(digest.copy().hexdigest())
            total += len(text)
            tokens.append(total // 4)
        breakpoints = [place for place, block in enumerate(blocks) if "cache_control" in block]
        read = 0
        for place in breakpoints:
            for before in range(place, max(-1, place - LOOKBACK_BLOCKS), -1):
                if digests[before] in self._entries:
                    read = max(read, tokens[before])
                    break
        kept = [place for place in breakpoints if tokens[place] >= self.min_tokens]
        self._entries |= {digests[place] for place in kept}
        written = max(0, max((tokens[place] for place in kept), default=0) - read)
        last = tokens[-1] if tokens else 0
        return Counts(fresh=last - read - written, read=read, written=written)


def every_block_cached(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks with a breakpoint at each: what OpenAI's automatic caching comes to."""
    return [{**block, "cache_control": True} for block in blocks]
