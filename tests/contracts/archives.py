"""Archives for tests to upload."""

import io
import tarfile

from workflow.sandboxes.base import Sandbox


def archive(tree: dict[str, bytes | str], sandbox: Sandbox) -> bytes:
    """A tar archive: bytes are files, text is where a symlink points to (`@` stands for the workspace)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, content in tree.items():
            entry = tarfile.TarInfo(path)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content.replace("@", sandbox.info.workdir)
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
