"""Files over HTTP: the page, exported encoders, example images."""

import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

# What a system's own list may lack or name otherwise; browsers run no module and no WebAssembly of another type.
for media_type, suffix in (
    ("text/javascript", ".mjs"),
    ("text/javascript", ".js"),
    ("application/wasm", ".wasm"),
    ("application/octet-stream", ".onnx"),
):
    mimetypes.add_type(media_type, suffix)


class Files(StaticFiles):
    """The files of a folder; browsers ask each time whether theirs is still current (ETag)."""

    def file_response(self, *args, **kwargs) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


class ListedFiles(Files):
    """Some files, and no others.

    Args:
        files: by their paths below the URL at which this is mounted.
    """

    def __init__(self, files: Mapping[str, Path]):
        super().__init__()
        self.files = files

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        file = self.files.get(path)
        return (str(file), os.stat(file)) if file is not None and file.is_file() else ("", None)
