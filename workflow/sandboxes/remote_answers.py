"""The shapes of what the program inside a remote sandbox answers. Whatever runs in there may have forged an answer."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field, InstanceOf, TypeAdapter, ValidationError

from workflow.core.errors import SandboxError

T = TypeVar("T")
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Time = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Text: TypeAlias = InstanceOf[str]
"""Names of files may hold what is no text: pydantic's own `str` refuses lone surrogates."""
Row: TypeAlias = tuple[Text, Literal["file", "dir", "symlink", "other"], Count, Annotated[int, Field(ge=0)], Time]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: Annotated[int, Field(ge=0, le=255)]
    killed_by: str
    why: Text = ""


@dataclass(frozen=True, slots=True)
class Printed:
    """Up to where a background process's output was read."""

    place: Count
    ended: Ended | None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A file to be fetched; `staged`: made for this, and to be removed."""

    at: str
    staged: bool


@dataclass(frozen=True, slots=True)
class Usage:
    memory: Count
    disk: Count
    processes: Count


@dataclass(frozen=True, slots=True)
class Idle:
    idle_s: Annotated[float, Field(allow_inf_nan=False)]
    background: Count
    foreground: Count


Shape: TypeAlias = TypeAdapter[T]
NOTHING: Shape[None] = TypeAdapter(None)
NUMBER: Shape[int] = TypeAdapter(Count)
ROW: Shape[Row | None] = TypeAdapter(Row | None)
ROWS: Shape[list[Row]] = TypeAdapter(list[Row])
PAIRS: Shape[list[tuple[str, Row | None, Row | None]]] = TypeAdapter(list[tuple[Text, Row | None, Row | None]])
ENDED: Shape[Ended | None] = TypeAdapter(Ended | None)
PRINTED: Shape[Printed] = TypeAdapter(Printed)
ELSEWHERE: Shape[Elsewhere | None] = TypeAdapter(Elsewhere | None)
USAGE: Shape[Usage] = TypeAdapter(Usage)
IDLE: Shape[Idle] = TypeAdapter(Idle)
SNAPSHOT: Shape[str] = TypeAdapter(Annotated[str, Field(pattern=r"^[0-9a-z~-]{1,64}$")])


def checked(shape: Shape[T], answer: Any) -> T:
    """`answer`, if it has the shape. Raises: SandboxError."""
    try:
        return shape.validate_python(answer)
    except ValidationError as error:
        raise SandboxError("the sandbox's answer is damaged") from error
