"""A catalog's pages, served in this process."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gax_batch.catalog.snapshots import open_existing
from gax_batch.explore.server import ADDRESS, listen, make_server
from gax_batch.explore.survey import Survey

START_SECONDS = 30


@contextmanager
def serving(catalog: str, version: int | None = None) -> Iterator[str]:
    """The address of the pages of a snapshot, while the block lasts."""
    with tempfile.TemporaryDirectory() as folder, listen(0) as listener:
        survey = Survey(open_existing(catalog, version), Path(folder))
        server = make_server(survey)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            end = time.monotonic() + START_SECONDS
            while not server.started:
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.02)
            yield f"http://{ADDRESS}:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
            survey.pictures.close()
