"""An ONNX file opened in onnxruntime, on a provider that is really there."""

import contextlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

# cuDNN's exhaustive search, the default, runs again for every new batch size.
OPTIONS = {CUDA: {"cudnn_conv_algo_search": "HEURISTIC"}}

log = logging.getLogger("kiln.deploy")


class ModelError(ValueError):
    """A model cannot be used as asked: one line that names it and says why."""


def open_session(path: Path, providers: str | Sequence[str], threads: int) -> onnxruntime.InferenceSession:
    """A session on the given providers, in order of preference; ModelError where one is not there.

    "auto" takes CUDA where it loads and else the CPU, and says so on the logger "kiln.deploy".
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if providers == "auto":
        return _open_best(path, threads)
    wanted = [providers] if isinstance(providers, str) else list(providers)
    for name in wanted:
        _require(name, onnxruntime.get_available_providers(), "this onnxruntime has")
    if CUDA in wanted:
        _preload()
    session = _open(path, wanted, threads)
    for name in wanted:
        _require(name, session.get_providers(), "its libraries or its device do not load here, which leaves")
    return session


def read_metadata(session: onnxruntime.InferenceSession, path: Path) -> dict[str, Any]:
    """What the ONNX file says of itself; ModelError where Kiln did not write it."""
    properties = session.get_modelmeta().custom_metadata_map
    missing = {"preprocessing", "input_format", "embedding_dim"} - properties.keys()
    if missing:
        raise ModelError(f"{path}: no metadata {', '.join(sorted(missing))}; give a file that Kiln exported")
    try:
        return {key: json.loads(value) for key, value in properties.items()}
    except ValueError as error:
        raise ModelError(f"{path}: metadata are no JSON; give a file that Kiln exported") from error


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _open_best(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if CUDA not in onnxruntime.get_available_providers():
        log.info("%s: running on %s; this onnxruntime has no %s", path, CPU, CUDA)
        return _open(path, [CPU], threads)
    complaint = _preload()
    session = _open(path, [CPU] if complaint else [CUDA, CPU], threads)
    if CUDA in session.get_providers():
        log.info("%s: running on %s", path, CUDA)
    else:
        log.warning("%s: running on %s; %s does not load here (%s)", path, CPU, CUDA, complaint or "no GPU")
    return session


def _open(path: Path, providers: list[str], threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Left to itself, onnxruntime pins threads to cores that a container may not own.
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=[(name, OPTIONS.get(name, {})) for name in providers])
    except Exception as error:  # onnxruntime's errors have no class in common
        raise ModelError(f"{path}: onnxruntime cannot open it: {first_line(error)}") from error


def _preload() -> str:
    """Load CUDA and cuDNN from the wheels of NVIDIA or torch, if they are installed; what failed, or ""."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints its complaints
        onnxruntime.preload_dlls()
    return said.getvalue().partition("\n")[0]


def _require(name: str, present: Sequence[str], reason: str) -> None:
    if name not in present:
        raise ModelError(f"provider {name}: {reason} {', '.join(present)}")
