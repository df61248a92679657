"""The pictures that tools have shown: at hand while a worker works on the run, found again by the next one.

A result's data refers to them (`pictures`: path, sha256, media type, bytes); their content stays in the workspace.
What is no longer the picture that was shown is not shown again: the model is told why.
"""

import hashlib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from workflow.core.errors import SandboxError, ToolError
from workflow.core.events import ToolResulted
from workflow.core.ids import CallId
from workflow.llm.base import Image
from workflow.sandboxes.base import Sandbox
from workflow.tools.output import PRIVATE_FOLDER

MAX_BYTES = 20_000_000
"""Of all pictures in a prompt; providers take about 30 MB in Base64."""
MAX_COUNT = 60


class Picture(BaseModel):
    """What the log knows of a picture."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    sha256: str
    media_type: str
    bytes: int


_PICTURES: TypeAdapter[tuple[Picture, ...]] = TypeAdapter(tuple[Picture, ...])


class Pictures:
    """The pictures of one run's prompt, by the tool call that showed them."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._retired: set[CallId] = set()
        self.at_hand: dict[CallId, tuple[Image, ...]] = {}

    async def keep(self, call_id: CallId, images: tuple[Image, ...]) -> list[dict[str, str | int]]:
        """Holds new pictures; their references for the log. One without a file of its own gets one."""
        found = []
        for image in images:
            sha256 = hashlib.sha256(image.content).hexdigest()
            path = image.path or await self._written(image, sha256)
            size = len(image.content)
            found.append(Picture(path=path, sha256=sha256, media_type=image.media_type, bytes=size).model_dump())
        self.at_hand[call_id] = images
        return found

    async def recall(self, results: Iterable[ToolResulted]) -> None:
        """Makes `at_hand` hold the pictures of these results, oldest first, and no others."""
        wanted = {result.call_id: pictures for result in results if (pictures := _pictures(result))}
        self._retire(wanted)
        for call_id in self.at_hand.keys() - wanted.keys():
            del self.at_hand[call_id]
        for call_id, pictures in wanted.items():
            if call_id in self._retired:
                self.at_hand[call_id] = tuple(_lost(p, "newer pictures took its place") for p in pictures)
            elif call_id not in self.at_hand:
                self.at_hand[call_id] = tuple([await self._read(picture) for picture in pictures])

    def _retire(self, wanted: dict[CallId, tuple[Picture, ...]]) -> None:
        """Over a limit, lets the oldest go until half is left: rarely and many, as each time costs the prompt cache."""
        shown = [(call_id, p.bytes) for call_id, found in wanted.items() if call_id not in self._retired for p in found]
        if len(shown) <= MAX_COUNT and sum(size for _, size in shown) <= MAX_BYTES:
            return
        while len(shown) > 1 and (len(shown) > MAX_COUNT // 2 or sum(size for _, size in shown) > MAX_BYTES // 2):
            self._retired.add(shown.pop(0)[0])

    async def _read(self, picture: Picture) -> Image:
        try:
            content = await self._sandbox.read(picture.path, limit=picture.bytes + 1) if picture.path else b""
        except ToolError:
            return _lost(picture, "the file is gone")
        except SandboxError as error:
            return _lost(picture, f"the file could not be read: {error.message}")
        if hashlib.sha256(content).hexdigest() != picture.sha256:
            return _lost(picture, "the file has changed since" if picture.path else "it was in no file")
        return Image(picture.media_type, content, picture.path)

    async def _written(self, image: Image, sha256: str) -> str:
        """Where the workspace now has the picture; empty if it has no room."""
        path = f"{PRIVATE_FOLDER}/pictures/{sha256[:20]}.{image.media_type.removeprefix('image/')}"
        try:
            await self._sandbox.write(path, image.content)
        except (ToolError, SandboxError):
            return ""
        return path


def _pictures(result: ToolResulted) -> tuple[Picture, ...]:
    """What a result refers to; nothing where a plugin uses the name for something else."""
    try:
        return _PICTURES.validate_python(result.data.get("pictures", ()))
    except ValidationError:
        return ()


def _lost(picture: Picture, why: str) -> Image:
    return Image(picture.media_type, b"", picture.path, lost=why)
