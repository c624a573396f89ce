"""`gax explore`: serve the pages of a snapshot to this machine only, until Ctrl-C."""

import logging
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import uvicorn

from gax_batch.catalog.snapshots import open_existing
from gax_batch.errors import UsageError
from gax_batch.viewer.explorer.app import make_app
from gax_batch.viewer.explorer.survey import Survey

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"


def explore(uri: str, version: int | None, port: int, sources: str | None = None) -> None:
    """Serve the pages of a snapshot until Ctrl-C.

    Args:
        uri: URI of the catalog.
        version: Number of the snapshot; None for the newest.
        port: Port to listen on; 0 for a free one.
        sources: Folder or prefix that now contains the survey's files, see `gax_batch.open_catalog`.

    Raises:
        UsageError: The snapshot does not exist or cannot be read completely, or the port is in use.
        TransientError: The store kept failing.
    """
    catalog = open_existing(uri, version)
    with listen(port) as listener, tempfile.TemporaryDirectory(prefix="gax-") as folder:
        logger.info(
            f"reading snapshot {catalog.version} of {catalog.uri}: {catalog.galaxy_count():,} galaxies"
        )
        survey = Survey(catalog, Path(folder), sources)
        logger.info(f"explore it at http://{ADDRESS}:{listener.getsockname()[1]}/ (stop with Ctrl-C)")
        with suppress(KeyboardInterrupt):
            make_server(survey).run(sockets=[listener])
        survey.pictures.close()


def make_server(survey: Survey) -> uvicorn.Server:
    """Return a server of the pages, which receives its socket when it is run."""
    config = uvicorn.Config(
        make_app(survey), log_level="warning", access_log=False, lifespan="off", ws="none"
    )
    config.server_header = False
    return uvicorn.Server(config)


def listen(port: int) -> socket.socket:
    """Return a socket that only this machine can reach.

    Raises:
        UsageError: The port is in use, or this user may not use it.
    """
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        raise UsageError(f"cannot listen on port {port} ({error.strerror}); choose another --port") from error
