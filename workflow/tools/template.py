"""use_template: a project from a template."""

import asyncio
import hashlib
import posixpath
from typing import Literal

from pydantic import Field

from workflow.core.errors import ToolError
from workflow.core.events import Effect, EventBase, FileChanged
from workflow.tools.base import Tool, ToolArgs, ToolContext, ToolOutput
from workflow.tools.diffs import EVENT_CHARS, shortened, unified
from workflow.tools.encoding import decode
from workflow.tools.paths import digest, normal, remember
from workflow.tools.rendering import Template, describe, templates
from workflow.tools.writing import NewFile, check_folders, locked, write_all


class TemplateArgs(ToolArgs):
    action: Literal["list", "apply"]
    name: str = Field("", description="template to apply")
    path: str = Field(".", description="folder to put it into")
    variables: dict[str, str] = Field({}, description="values for the template's variables")


class UseTemplate(Tool[TemplateArgs]):
    name = "use_template"
    effect = Effect.IDEMPOTENT
    description = "Starts a project from a template: `list` shows them with their variables, `apply` writes the files."

    def __init__(self, folder: str = "") -> None:
        """folder: of the operator's own templates; empty for none."""
        self._folder = folder

    def effect_of(self, args: TemplateArgs) -> Effect:
        return Effect.PURE if args.action == "list" else Effect.IDEMPOTENT

    def resources(self, args: TemplateArgs) -> frozenset[str]:
        return frozenset({f"file:{args.path}"}) if args.action == "apply" else frozenset()

    async def run(self, args: TemplateArgs, context: ToolContext) -> ToolOutput:
        """Kinds of error: `unknown_template`, `bad_template`, `bad_variables`, `exists`, `duplicate_path`,
        `not_a_directory`, `outside_workspace`, `bad_path`, `write_failed`. Nothing is left behind after an error."""
        known = await asyncio.to_thread(templates, self._folder)
        if args.action == "list":
            return await asyncio.to_thread(_listed, known)
        if args.name not in known:
            raise ToolError(
                f"There is no template {args.name!r}. Templates: {', '.join(known)}.", kind="unknown_template"
            )
        template = known[args.name]
        values = template.values(args.variables)
        rendered = await asyncio.to_thread(template.rendered, values)
        base = normal(args.path, context.sandbox)
        files = {normal(posixpath.join(base, path), context.sandbox): entry for path, entry in rendered.items()}
        written = await _write(files, context)
        return _output(template, values, base, written, context)


async def _write(files: dict[str, tuple[bytes, bool]], context: ToolContext) -> list[NewFile]:
    """All the files; those that are not there yet were written. Raises: ToolError if one is there and differs."""
    paths = list(files)
    async with locked(paths, context):
        missing_folders = await check_folders(paths, context.sandbox)
        found: list[NewFile] = []
        clashes: list[str] = []
        for path, (content, is_executable) in files.items():
            stat = await context.sandbox.stat(path)
            before = await context.sandbox.read(path) if stat is not None and stat.kind == "file" else None
            found.append(NewFile(path, content, 0o755 if is_executable else None, before))
            if stat is not None and before != content:
                clashes.append(path)
        if clashes:
            raise ToolError(
                f"These files exist already: {', '.join(clashes[:10])}{', …' if len(clashes) > 10 else ''}; nothing "
                "was written. Choose another path, or make single files with files_creation.",
                kind="exists",
                paths=clashes[:50],
            )
        await write_all([file for file in found if file.before is None], missing_folders, context.sandbox)
    return found


def _listed(known: dict[str, Template]) -> ToolOutput:
    rows, lines = [], []
    for template in known.values():
        try:
            row = describe(template)
        except ToolError as error:
            lines.append(f"{template.name}: {error}")
            continue
        rows.append(row)
        lines.append(f"{row['name']} {row['version']} — {row['description']} ({row['stack']})")
        for name, variable in row["variables"].items():
            default = f", default {variable['default']!r}" if "default" in variable else ", needed"
            lines.append(f"    {name}: {variable['description']}{default}")
    return ToolOutput(text="\n".join(lines), data={"templates": rows})


def _output(
    template: Template, values: dict[str, str], base: str, written: list[NewFile], context: ToolContext
) -> ToolOutput:
    manifest = template.manifest
    facts: dict[str, str] = {}
    events: list[EventBase] = []
    fingerprint = hashlib.sha256()
    for file in written:
        sha256 = digest(file.content)
        fingerprint.update(f"{file.path}\0{sha256}\0".encode())
        facts |= remember(context, file.path, sha256)
        if file.before is None or file.path not in context.state.files:
            events.append(_event(file, sha256, context))
    new = sum(file.before is None for file in written)
    commands = [template.fill(command, values) for command in manifest.commands]
    lines = [f"{template.name} {manifest.version} is in {base}/: {new} of {len(written)} files were new."]
    lines += [f"  {file.path}" for file in written]
    lines += [f"Next, in {base}/:" if commands else "", *(f"  {command}" for command in commands)]
    if manifest.port:
        lines.append(f"It listens on port {manifest.port}; show it with url_expose.")
    return ToolOutput(
        text="\n".join(line for line in lines if line),
        data={
            "template": template.name,
            "version": manifest.version,
            "hash": fingerprint.hexdigest(),
            "files": [file.path for file in written],
            "commands": commands,
            "port": manifest.port,
        },
        events=tuple(events),
        facts=facts,
    )


def _event(file: NewFile, sha256: str, context: ToolContext) -> EventBase:
    decoded = decode(file.content)
    diff = shortened(unified("", decoded.text, file.path), EVENT_CHARS) if decoded is not None else ""
    return context.event(
        FileChanged, path=file.path, change="created", size=len(file.content), sha256=sha256, diff=diff
    )
