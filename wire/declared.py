"""All protocols of this installation: those of the list, and those of installed packages (docs/adding-a-protocol.md).

Every process finds the same ones at its start. A package that is broken, or in the way of another, costs its own
protocols only: why is in REFUSED, and told by `headwater status`, the log and the page of protocols.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from wire import filters
from wire.protocols import BUILT_IN, NONE, Declaration

GROUP = "headwater.protocols"
MAX_REASON = 300  # characters: an exception's text may be anything
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_CODE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")
_MEDIA = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_STATE = re.compile(r"/[^#+\x00-\x1f]+")
_OWN_LEVELS = ("devices", "headwater", "+", "#", "")


def join(built_in: Iterable[Declaration], found: Iterable[EntryPoint]) -> tuple[dict[str, Declaration], dict[str, str]]:
    """Give the protocols by name, and why entry points were refused, by theirs. Names are given in order."""
    declared, refused = {each.name: each for each in built_in}, dict[str, str]()
    for entry in sorted(found, key=lambda each: (each.name, each.value)):
        try:
            offered = _load(entry)
            for each in offered:
                _check(each, offered, declared)
        except (Exception, SystemExit) as error:  # the code of others: whatever it does, only they are without it
            refused[f"{entry.name} = {entry.value}"] = f"{type(error).__name__}: {error}"[:MAX_REASON]
            continue
        declared |= {each.name: each for each in offered}
    return declared, refused


def _load(entry: EntryPoint) -> tuple[Declaration, ...]:
    loaded = entry.load()
    offered = loaded if isinstance(loaded, tuple) else (loaded,)
    if not offered or not all(isinstance(each, Declaration) for each in offered):
        raise TypeError("it is neither a wire.protocols.Declaration nor a tuple of them")
    if len({each.name for each in offered}) < len(offered):
        raise ValueError("it declares a name twice")
    return offered


def _check(offered: Declaration, together: tuple[Declaration, ...], declared: dict[str, Declaration]) -> None:
    """Refuse what cannot be, or is taken. Raises ValueError."""
    for fault in _faults(offered, together, declared):
        raise ValueError(f"{offered.name}: {fault}"[:MAX_REASON])


def _faults(offered: Declaration, together: tuple[Declaration, ...], declared: dict[str, Declaration]) -> Iterator[str]:
    named = {"name": (offered.name, _NAME), "service": (offered.service, _NAME), "decoder": (offered.decoder, _CODE)}
    yield from (f"{what} is not {form.pattern}" for what, (text, form) in named.items() if not form.fullmatch(text))
    if offered.doors or offered.paths or offered.refusal or offered.host or offered.topics[2:] != NONE[2:]:
        yield "doors, paths, refusal, host, and topics that are asked or ordered, are for built-in protocols"
    yield from (f"{each!r} is no media type" for each in offered.media_types if not _MEDIA.fullmatch(each))
    yield from (f"{each!r} is no end of a topic" for each in offered.states if not _STATE.fullmatch(each))
    for topic in (*offered.topics.up, *offered.topics.down):
        if filters.check(topic).split("/")[0] in _OWN_LEVELS or topic.startswith("$"):
            yield f"{topic!r} does not begin with a level of its own"
    if offered.name in declared:
        yield "a protocol has this name already"
    if offered.service in {each.service for each in declared.values()}:
        yield f"the service {offered.service!r} belongs to another protocol"
    media = {each for known in (*declared.values(), *together) if known is not offered for each in known.media_types}
    yield from (f"{each!r} is the media type of another protocol" for each in offered.media_types if each in media)


_ALL: Final = join(BUILT_IN, entry_points(group=GROUP))
DECLARED: Final = _ALL[0]
REFUSED: Final = _ALL[1]  # by entry point, as `name = module:attribute`
