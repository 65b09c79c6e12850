"""Whether a server asks for keys, and that it does where others than this machine reach it."""

from __future__ import annotations

from typing import Any

from cluster.keys import KeysError, is_loopback, reader, remedy
from cluster.storage import NotFound
from genimg.errors import InputError


def refuse_unguarded(settings: Any, host: str) -> bool:
    """Whether a server of some settings asks for keys.

    InputError where it has none and is not to be open, though others reach the host; and where it
    is told of keys, but there is none that could be used.
    """
    try:
        read = reader(settings.keys_file, settings.open)
        if read is None:
            if not (settings.open or is_loopback(host)):
                raise InputError(remedy(host))
            return False
        known = read()
    except NotFound:
        known = ()
    except KeysError as error:
        raise InputError(str(error)) from None
    if all(key.expired for key in known):
        of = f"--keys {settings.keys_file}" if settings.keys_file else "GENIMG_KEYS"
        raise InputError(f"{of}: there is no key in it; make one with `genimg keys add NAME`")
    return True
