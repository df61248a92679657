"""Writes docs/configuration.md from the settings: `python -m scripts.gen_config_docs` (`--check` only compares)."""

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from workflow.core import config_keys
from workflow.core.config import ModelSettings, PriceSettings, Section, Settings
from workflow.core.config_keys import Key, every_key, limits
from workflow.core.config_reload import is_live

FILE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
HEAD = """\
# Configuration

Generated from `workflow/core/config.py` by `python -m scripts.gen_config_docs`; a test compares.

Every key stands in [`config.toml`](../config.toml) with its default. Weakest first, a value comes from: the default,
`config.toml`, `secrets.toml`, the variables `REDIS_URL` and `ENV`, the key's own variable `DIALTONE_<SECTION>__<KEY>`.
`./run.sh config print` shows what is in force and where each value comes from, `config check` what is wrong,
`config explain KEY` all about one key.

- Unknown keys, unknown `DIALTONE_*` variables and bad values stop the start, each with file, line, key and what would
  be right.
- Variables hold plain text for single values and JSON for lists and tables: `DIALTONE_GATEWAY__PORT=9000`,
  `DIALTONE_GATEWAY__CORS_ORIGINS='["https://app.example.org"]'`, `DIALTONE_LLM__MODELS__FAST__MODEL=openai/gpt-5.6`.
- Secrets (marked 🔑) are refused in `config.toml`. Give them as variables, or in `secrets.toml` beside `config.toml`
  (elsewhere: `DIALTONE_SECRETS_FILE`), which nobody but its owner may read (`chmod 600`). Its table `[environment]`
  holds further variables for the workers, such as `ANTHROPIC_API_KEY`.
- Another configuration file is named by `DIALTONE_CONFIG`. A relative `data_dir` begins at the file's folder.
- Keys marked ⟳ take effect when `config.toml` is saved: `[agent]` and `[llm]` from the next run on, `[limits]` and
  `log.level` at once. The others need a restart; the log and the operator's desk name those that wait for one. A file
  that does not hold changes nothing. `dialtone desk reload` reads it again in every process and says what came of it.
- A run keeps the configuration that it began with on its worker. Its record, `run.started` and `run.resumed` hold the
  hash (`config_hash`), the same that `./run.sh config print` ends with. Where things are (`data_dir`, `redis.url`, the
  gateway's address) and `[log]` do not count.

`DIALTONE_URL` and `DIALTONE_KEY` are no settings: they tell the terminal client its gateway and its API key.
"""


def main(argv: list[str] | None = None) -> int:
    """Writes or compares; 1 when the file is out of date."""
    text = render()
    if "--check" in (sys.argv[1:] if argv is None else argv):
        is_current = FILE.exists() and FILE.read_text(encoding="utf-8") == text
        if not is_current:
            print(f"{FILE} is out of date: python -m scripts.gen_config_docs", file=sys.stderr)
        return 0 if is_current else 1
    FILE.write_text(text, encoding="utf-8")
    return 0


def render() -> str:
    """The whole document."""
    parts = [HEAD]
    for section, keys in groupby(every_key(), key=lambda key: key.path[:-1]):
        title = f"`[{section[0]}]`" if section else "At the top"
        parts += [f"\n## {title}", *_summary(section), "", *_table(list(keys))]
    parts += [
        "\n## `[llm.models.<name>]`",
        "",
        "One named model; in the environment `DIALTONE_LLM__MODELS__<NAME>__<KEY>`.",
        "",
        *_table(_fields(ModelSettings, "models")),
    ]
    prices = "US dollars per million tokens, where the shipped table is wrong or silent."
    parts += ['\n## `[llm.prices."<model>"]`', "", prices, "", *_table(_fields(PriceSettings, "prices"))]
    return "\n".join(parts) + "\n"


def _summary(section: config_keys.Path) -> Iterator[str]:
    if section:
        _, dash, words = (type(getattr(Settings(), section[0])).__doc__ or "").partition(" — ")
        if dash:
            yield from ("", words[0].upper() + words[1:])


def _fields(section: type[Section], table: str) -> list[Key]:
    return [Key(("llm", table, "<NAME>", key.path[0]), key.annotation, key.field) for key in every_key(section)]


def _table(keys: list[Key]) -> list[str]:
    rows = [
        (f"`{key.path[-1]}`{_marks(key)}", _default(key), _allowed(key), _escaped(key.field.description or ""))
        for key in keys
    ]
    table = [("key", "default", "allowed", "meaning"), ("---", "---", "---", "---"), *rows]
    return [f"| {' | '.join(row)} |" for row in table]


def _marks(key: Key) -> str:
    return (" 🔑" if key.is_secret else "") + (" ⟳" if is_live(key.path) else "")


def _default(key: Key) -> str:
    if key.is_secret:
        return "unset"
    if key.field.is_required():
        return "required"
    return "unset" if key.default is None else f"`{json.dumps(key.default)}`"


def _allowed(key: Key) -> str:
    return ", ".join(f"`{word}`" for word in key.choices if word) or _escaped(limits(key))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    sys.exit(main())
