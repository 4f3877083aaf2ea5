"""The config file of a running agent: noticed when it changes, read whole, and left as it was when it is not valid."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sriovdp.config.comparison import identify_file
from sriovdp.config.values import Config
from sriovdp.errors import ConfigError
from sriovdp.kernel.folder_watch import FolderWatch

logger = logging.getLogger(__name__)

_SETTLE = 0.2  # seconds without another change: an editor writes in several steps
_RETRY = 1.0  # seconds after which a file that is not valid is read again before that is reported


class LiveConfig:
    """The config in force, and the file that it came from. `load` reads the file and raises ConfigError.

    A changed file is taken over only if all of it is valid. A change of comments, or of entries for other nodes, is no
    change. Without a file the config stays what it is.
    """

    def __init__(self, config: Config, path: Path | None = None, load: Callable[[], Config] | None = None) -> None:
        self.running = config
        """The config in force."""
        self.fault = ""
        """Why the file of now is not in force, empty when it is."""
        self._path = path
        self._load = load
        self._seen = self._identify()
        self._watch = FolderWatch(self._list_folders, written=True)
        self._changed = self._watch.subscribe()

    def start(self) -> None:
        """Watch the file, on the running loop, until `stop`."""
        self._watch.start()

    def stop(self) -> None:
        """Watch no longer. A second stop has nothing to do."""
        self._watch.stop()

    async def wait(self, interval: float) -> None:
        """Wait until the file is another one than the one that was read last; looks every `interval` seconds too."""
        while True:
            self._changed.clear()
            if self._identify() != self._seen and await self._settle():
                return
            try:
                async with asyncio.timeout(interval):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _settle(self) -> bool:
        """Wait until nobody writes the file; whether it still is another one then."""
        while True:
            before = self._identify()
            await asyncio.sleep(_SETTLE)
            if self._identify() == before:
                return before != self._seen

    async def read(self, *, patient: bool = True) -> Config | None:
        """Read the file: a config that differs from the one in force, None when there is none; `fault` says why.

        A file that is not valid is read again after a second if `patient`: it may still be written.
        """
        if self._load is None:
            return None
        self._seen = self._identify()
        try:
            found = await asyncio.to_thread(self._load)
        except ConfigError as error:
            if patient:
                await asyncio.sleep(_RETRY)
                return await self.read(patient=False)
            if str(error) != self.fault:
                logger.error("the config file is not valid, the running config stays in force: %s", error)
            self.fault = str(error)
            return None
        if self.fault:
            logger.info("the config file is valid again")
        self.fault = ""
        return found if replace(found, warnings=()) != replace(self.running, warnings=()) else None

    def _identify(self) -> object:
        return identify_file(self._path) if self._path else None

    def _list_folders(self) -> list[Path]:
        """Its folder, and the one where the file itself is: those of a ConfigMap are behind symbolic links."""
        if self._path is None:
            return []
        path = self._path.absolute()
        return list(dict.fromkeys((path.parent, path.resolve().parent)))
