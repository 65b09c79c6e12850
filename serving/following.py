"""A replica follows the settings that a running `genimg serve` publishes, without a restart."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from cluster.changes import publish, published
from serving.metrics import Meters
from serving.settings import Settings

logger = logging.getLogger(__name__)


def newest(settings: Settings) -> tuple[Settings, str | None]:
    """What a replica that starts is to work by: (the settings as they are now, as they were
    published); those that were given where nothing has changed."""
    text = settings.changes and published(settings.changes)
    return (of(text), text) if text else (settings, None)


def of(text: str) -> Settings:
    """The settings in what was published, which counts the changes as well."""
    return Settings.validated(json.loads(text)["settings"])


async def follow(
    settings: Settings,
    seen: str | None,
    change: Callable[[Settings], Awaitable[None]],
    meters: Meters,
) -> None:
    """Look every `poll_s`, and `change` to what was published after `seen`; until cancelled.

    What cannot be had changes nothing; `genimg serve` is told why.
    """
    name = settings.changes
    while name:
        await asyncio.sleep(settings.poll_s)
        try:
            text = await asyncio.to_thread(published, name)
        except Exception as error:  # Ray's: what is known goes on
            logger.info("changes of the settings cannot be looked at: %r", error)
            continue
        if text is None or text == seen:
            continue
        seen = text
        try:
            await change(of(text))
        except Exception as error:  # a model may be broken in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning("the changed settings are refused (%s); the old ones go on", reason)
            meters.settings_refused.inc()
            said = json.dumps({"count": json.loads(text)["count"], "reason": reason})
            await asyncio.to_thread(publish, f"{name}/refused", said)
