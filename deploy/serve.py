"""A model over HTTP.   python -m deploy.serve MODEL [--gallery GALLERY] [--images DIR]"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

from .command_line import FAILED, USAGE, add_providers, count, whole
from .cores import usable_cores
from .extractor import FeatureExtractor
from .gallery import Gallery, GalleryError
from .preprocess import PIXEL_LIMIT
from .selftest import replay
from .server.limits import Limits
from .session import ModelError

STOPPED = 0
LOCAL = ("127.0.0.1", "::1", "localhost")

log = logging.getLogger("kiln.deploy")


class ServeError(ValueError):
    """The service cannot start as asked: one line that says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; 0 stopped by one, 1 the model says other than where it was exported, 2 usage."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    options = _parse(arguments)
    try:
        return _serve(options)
    except (ModelError, GalleryError, ServeError, OSError) as error:
        print(error, file=sys.stderr)
        return USAGE


def _serve(options: argparse.Namespace) -> int:
    for needed in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        try:
            import_module(needed)
        except ImportError:
            raise ServeError(f"deploy.serve needs {needed}: pip install -e .[serve] where Kiln is checked out, "
                             "else pip install fastapi uvicorn python-multipart prometheus-client") from None
    from .server import app, process, service  # only now, since they import those

    token = _token(options.token_file)
    extractor = FeatureExtractor(options.model, providers=options.providers,
                                 batch_size=options.batch_size, threads=options.threads)
    if "golden" in extractor.metadata and not replay(extractor).passed:
        print(f"{options.model}: its embeddings here are not those of where it was exported; see deploy.selftest",
              file=sys.stderr)
        return FAILED
    gallery = options.gallery and Gallery.load(options.gallery)
    if gallery is not None:
        gallery.bind(extractor)
    if token is None and options.host not in LOCAL:
        log.warning("%s: whoever reaches this address can use the service; give a --token_file", options.host)
    bound = process.listen(options.host, options.port)
    limits = Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)})
    with closing(service.Service(extractor, name=options.name or options.model.stem, threads=options.threads,
                                 limits=limits, gallery=gallery, images=options.images)) as served:
        process.serve(app.build(served, token=token, local=options.host in LOCAL), served, bound)
    return STOPPED


def _token(path: Path | None) -> str | None:
    """The token of a file, or of the environment; None where there is neither."""
    if path is None and "KILN_TOKEN" not in os.environ:
        return None
    token = (path.read_text(encoding="latin-1") if path else os.environ["KILN_TOKEN"]).strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ServeError(f"{path or 'KILN_TOKEN'}: a token of printable ASCII characters expected")
    return token


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m deploy.serve", description="Serve a model over HTTP.")
    parser.add_argument("model", type=Path, help="a file that export.py wrote")
    parser.add_argument("--gallery", type=Path, help="a folder that deploy.gallery wrote, to search")
    parser.add_argument("--images", type=Path, help="the folder of the gallery's images, to show")
    parser.add_argument("--name", help="the model's name in the protocol; default: the file's")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=whole(0, 65535), default=8000, help="0 = any that is free; default: 8000")
    parser.add_argument("--token_file", type=Path, help="file with the token to ask for; default: the environment's "
                                                        "KILN_TOKEN, or none is asked for")
    parser.add_argument("--batch_size", type=count, default=32, help="images computed at once; default: 32")
    parser.add_argument("--threads", type=count, default=usable_cores(), help="that decode and compute; default: cores")
    add_providers(parser)
    ranges = {"max_delay_ms": whole(0), "max_pixels": whole(1, PIXEL_LIMIT)}
    hints = get_type_hints(Limits, include_extras=True)
    for field in fields(Limits):
        says = f"{hints[field.name].__metadata__[0]}; default: {field.default}"
        parser.add_argument(f"--{field.name}", type=ranges.get(field.name, count), default=field.default, help=says)
    options = parser.parse_args(arguments)
    _check_together(parser, options)
    return options


def _check_together(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with one line where options do not go together, or cannot have an effect."""
    if options.max_queue < options.max_images:
        parser.error(f"--max_queue {options.max_queue}: at least --max_images {options.max_images} expected, "
                     "or a request of so many would never be answered")
    if options.images and not options.gallery:
        parser.error("--images: they are those of a gallery; give --gallery too")
    if options.images and not options.images.is_dir():
        parser.error(f"--images {options.images}: no such folder")
    if "/" in (options.name or ""):
        parser.error(f"--name {options.name}: no / expected, since it stands in addresses")


if __name__ == "__main__":
    sys.exit(main())
