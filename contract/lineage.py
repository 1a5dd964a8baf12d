"""Lineage: the chain of manifests from a result back to its sources and forward to everything made from it."""

import os
from collections.abc import Iterable

from contract.errors import InputError
from contract.manifest import Manifest, read_all
from contract.masking import masked
from contract.printable import printable
from contract.store import Store

Key = tuple[str, str, str]


def trace(store: Store, uri: str) -> list[str]:
    """Printable lines that show a manifest's chain back to the crawl files and forward to the models.

    `uri` is the URI of a manifest, of its folder, or of a crawl file. It may also be a local path, with links in it, or
    a manifest's path relative to the store. Of a committed file, the lines name all manifests that list it. Raises
    InputError if nothing in the store matches.
    """
    uri = masked(uri)  # manifests hold masked URIs
    manifests = {_key(one): one for one in read_all(store)[0]}
    place = _place(uri)
    named = dict.fromkeys(source for one in manifests.values() for source in one.sources)
    source = uri if uri in named else next((one for one in named if _place(one) == place), None)
    if source is not None:
        users = [key for key, one in manifests.items() if source in one.sources]
        return list(map(printable, [source, *_walk(users, _forward(manifests), manifests, "made")]))
    prefixes = {uri.rstrip("/"), place.removeprefix(_place(store.uri) + "/")}
    start = next((key for key, one in manifests.items() if prefixes & {one.prefix, one.path}), None)
    listing = [one for one in manifests.values() if any(file.path in prefixes for file in one.files)]
    if start is None and listing:
        return list(map(printable, [f"{uri} is listed by", *(f"  {store.full(one.path)}" for one in listing)]))
    if start is None:
        raise InputError(f"{uri}: neither a manifest in {store.uri} nor a file that one of its manifests names")
    back = {key: [(i.stage, i.fingerprint, i.partition) for i in one.inputs] for key, one in manifests.items()}
    lines = [_describe(manifests[start]), *(f"  from {source}" for source in manifests[start].sources)]
    lines += _walk(back[start], back, manifests, "from")
    lines += _walk(_forward(manifests).get(start, []), _forward(manifests), manifests, "made")
    return list(map(printable, lines))


def _place(uri: str) -> str:
    """The real path, without links, dots and `~`, of a local path or file URI; any other URI unchanged."""
    path = uri.removeprefix("file://")
    return uri.rstrip("/") if "://" in path else os.path.realpath(os.path.expanduser(path))


def _key(manifest: Manifest) -> Key:
    return manifest.stage, manifest.fingerprint, manifest.partition


def _forward(manifests: dict[Key, Manifest]) -> dict[Key, list[Key]]:
    edges: dict[Key, list[Key]] = {}
    for key, manifest in manifests.items():
        for one in manifest.inputs:
            edges.setdefault((one.stage, one.fingerprint, one.partition), []).append(key)
    return edges


def _walk(starts: Iterable[Key], edges: dict[Key, list[Key]], manifests: dict[Key, Manifest], word: str) -> list[str]:
    lines: list[str] = []
    seen: set[Key] = set()
    waiting = [(key, 1) for key in starts]
    while waiting:
        key, depth = waiting.pop(0)
        if key in seen:
            continue
        seen.add(key)
        manifest = manifests.get(key)
        lines.append(
            "  " * depth
            + f"{word} "
            + (
                _describe(manifest)
                if manifest
                else f"{key[0]} {key[2]} {key[1][:12]} (its manifest is not in this store)"
            )
        )
        if manifest and word == "from":
            lines += ["  " * (depth + 1) + f"from {source}" for source in manifest.sources]
        waiting += [(one, depth + 1) for one in edges.get(key, [])]
    return lines


def _describe(manifest: Manifest) -> str:
    rows = f", {manifest.rows.kept:,} of {manifest.rows.read:,} documents" if manifest.rows.read else ""
    if isinstance(source := manifest.metrics.get("extended_from"), str):
        rows += f", extended from {source}"
    made = f"{manifest.finished:%Y-%m-%d %H:%M}, code {manifest.code}{rows}"
    return f"{manifest.stage} {manifest.partition} {manifest.fingerprint[:12]} ({made})"
