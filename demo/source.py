"""Chooses the source of the demo's pages: the named folder, else Common Crawl, else Python's own documentation."""

from dataclasses import dataclass
from pathlib import Path

from contract import recipe as recipes
from contract import sources
from contract.errors import GristmillError
from contract.recipe import Recipe
from contract.settings.corpus import Crawl
from contract.store import Store
from demo import crawl_pydoc
from demo.follow import Screen

COMMON_CRAWL = Crawl().source
FILES = 2
BYTES_PER_FILE = 20_000_000
PYDOC_PAGES = 600
# The default thresholds fit web prose and would drop nine in ten reference pages: these repeat signatures and are half
# code.
PYDOC_OVERRIDES = (
    "extract.prefilter_probability=0",
    "langid.min_probability=0.4",
    "filter.fineweb.enabled=false",
    "filter.gopher_repetition.enabled=false",
    "filter.max_removed_word_fraction=0.3",
)


@dataclass(frozen=True)
class Pages:
    """A crawl: the overrides that point a recipe at it, its snapshot, and its name on the terminal."""

    overrides: tuple[str, ...]
    snapshot: str
    description: str


def choose(folder: Path, recipe_uri: str, crawl: str | None, overrides: tuple[str, ...], screen: Screen) -> Pages:
    """Choose the pages. Raises GristmillError if there is nothing to read or the store cannot be written."""
    recipe = recipes.load(recipe_uri, overrides)
    Store(recipe.store).check()
    if crawl:
        return _pages(recipe_uri, overrides, (f"crawl.source={_absolute(crawl)}",), crawl)
    if recipe.crawl.source != COMMON_CRAWL:
        return _pages(recipe_uri, overrides, (), recipe.crawl.source)
    if recipe.snapshots:  # the recipe asks for these crawls, so no other pages may replace them
        return _common_crawl(recipe, recipe.snapshots)
    try:
        snapshots = sources.list_snapshots(COMMON_CRAWL, 5)
    except GristmillError:
        screen.say("  Common Crawl cannot be reached, so Python's documentation server stands in for the web")
        return _pydoc(folder, recipe_uri, overrides, screen)
    return _common_crawl(recipe, (snapshots[0],))


def _common_crawl(recipe: Recipe, snapshots: tuple[str, ...]) -> Pages:
    """Common Crawl with the recipe's limits, or else the demo's: a whole crawl is 90,000 files of a gigabyte."""
    limits = []
    if recipe.crawl.max_files is None:
        limits.append(f"crawl.max_files={FILES}")
    if recipe.crawl.max_bytes_per_file is None:
        limits.append(f"crawl.max_bytes_per_file={BYTES_PER_FILE}")
    files, size = recipe.crawl.max_files or FILES, recipe.crawl.max_bytes_per_file or BYTES_PER_FILE
    each = " of each" if len(snapshots) > 1 else ""
    return Pages(
        tuple(limits),
        max(snapshots, key=sources.snapshot_date),  # the results are published under this crawl
        f"Common Crawl {', '.join(snapshots)}: the first {size / 1e6:.0f} MB of {files} files{each}",
    )


def _pydoc(folder: Path, recipe_uri: str, overrides: tuple[str, ...], screen: Screen) -> Pages:
    crawl = folder / "crawl" / "PYDOC"
    if crawl.exists():
        screen.say(f"  {crawl} was crawled before and is used again")
    else:
        count = crawl_pydoc.crawl(crawl, PYDOC_PAGES, lambda line: screen.show(f"  crawling: {line}"))
        screen.say(f"  {count} of its pages were crawled over HTTP into {crawl}")
    screen.say(f"  Filters made for prose are relaxed for reference pages: {' '.join(PYDOC_OVERRIDES)}")
    source = (f"crawl.source={_absolute(str(crawl))}", *PYDOC_OVERRIDES)
    return _pages(recipe_uri, overrides, source, "Python's documentation")


def _pages(recipe_uri: str, overrides: tuple[str, ...], more: tuple[str, ...], name: str) -> Pages:
    recipe: Recipe = recipes.load(recipe_uri, (*more, *overrides))
    segments = sources.list_segments(recipe)
    files = sum(len(one.files) for one in segments)
    size = sum(file.size for one in segments for file in one.files)
    parts = "1 segment" if len(segments) == 1 else f"{len(segments)} segments"
    newest = max((one.snapshot for one in segments), key=sources.snapshot_date)
    return Pages(more, newest, f"{name}: {files} files, {size / 1e6:.1f} MB, in {parts}")


def _absolute(crawl: str) -> str:
    return crawl if "://" in crawl else str(Path(crawl).expanduser().resolve())
