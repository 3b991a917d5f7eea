"""What a word means that names a data set: a shipped card, a card's file, a folder, or the name that runs carry.

One resolver for whatever takes such a word.  Imports nothing heavy, so that listings and wrong words stay quick.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from bench.data.card_tables import Task, check_classes
from bench.data.cards import NAME, Card, card_file, card_folder, card_names, cards_here, read_card, shipped_name
from bench.data.manifest import names_there
from bench.errors import InputError, instead, near
from bench.files import typed_path


def find_card(word: str | Path, *, name: str = "", home: Path | None = None) -> Card:
    """The card that a word means, wherever one is asked for.

    The word is a shipped name, a ``.toml`` file, a folder with one sub-folder per class, or, as runs carry it, the name
    of a store that was made of one of these.  ``name`` is for a folder: what its data set is called from now on.
    ``home`` is where stores lie, :func:`bench.data.manifest.bench_home` by default.
    Raises :class:`InputError` where there is none, the card is wrong, or its name is another one's.
    """
    path = typed_path(word)
    if (file := card_file(word)) is None and path.is_dir():
        return folder_card(path, name=name, home=home)
    if name:
        raise InputError("bad-options", f"--name {name}: is for a folder of captures; a card says its own name")
    if file is None:
        return _card_of_store(str(word), home)
    card = read_card(file)
    _check_free(card, file)
    return card


def unprepared_cards(home: Path | None = None) -> list[Path]:
    """Cards in the working folder that no store was made of; shipped ones are none of these."""
    made_of = set(names_there(home).values())
    places = {path: path.resolve() for path in cards_here()}
    shipped = card_folder().resolve()
    return [path for path, place in places.items() if str(place) not in made_of and place.parent != shipped]


def first_command(card: Card, word: str | Path) -> str:
    """The `bench prepare` line that makes the store of a card for the first time, for a shell; a word names the card.

    ``DIR`` stands for the captures, where the card does not say where they are.
    """
    more = [] if card.source else ["--download"] if card.downloads else ["--source", "DIR"]
    return shlex.join(["bench", "prepare", str(word), *more])


def _card_of_store(name: str, home: Path | None) -> Card:
    """The card of the card's file or the folder that the store of that name was made of."""
    there = names_there(home)
    if name not in there:
        what = "give one of these, a .toml card, or a folder with one sub-folder per class"
        known = dict.fromkeys([*card_names(), *there, *map(str, unprepared_cards(home))])
        if (file := typed_path(f"{name}.toml")).is_file():
            raise InputError(
                "unknown-dataset", f"no data set {name!r}; did you mean the card {shlex.quote(str(file))}?"
            )
        if folder := _like_it(typed_path(name)):
            raise InputError("unknown-dataset", f"no data set {name!r}; did you mean the folder {folder}?")
        raise InputError("unknown-dataset", f"no data set {name!r}; {instead(name, known)} ({what})")
    place = Path(there[name])
    if there[name] and place.is_dir():
        return folder_card(place, name=name, home=home)
    if there[name] and place.is_file():
        return read_card(place)
    what = f"was made of {place}, which is gone" if there[name] else "does not say what it was made of"
    raise InputError("unknown-dataset", f"{name}: its store {what}; give the path of its card or folder once")


def _like_it(path: Path) -> str:
    """The folder beside a path that is called nearly so, for a shell; empty where there is none."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    meant = near(path.name, beside, least=0.8)
    return shlex.quote(str(path.parent / meant)) if meant else ""


def folder_card(folder: Path, *, name: str = "", home: Path | None = None) -> Card:
    """The card of a folder with one sub-folder per class: one task, ``label``.

    It is called ``name``, else as `bench prepare --name` called it, else as the folder.  ``home`` is as for
    :func:`find_card`.  Raises :class:`InputError` for a folder without such sub-folders and a name that is not free.
    """
    try:
        entries = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise InputError("unreadable-file", f"{folder}: cannot be read ({error.strerror}); make it readable") from error
    if not entries:
        raise InputError(
            "bad-folder", f"{folder}: has no sub-folder; a data set without a card needs one sub-folder per class"
        )
    check_classes("bad-folder", str(folder), [entry.name for entry in entries], "make one sub-folder of the two")
    place = str(folder.resolve())
    name = name or _name_of_folder(folder, place, names_there(home))
    other = names_there(home).get(name, "")
    taken = other != place and bool(other) and Path(other).exists()
    if taken or not NAME.fullmatch(name) or shipped_name(name):
        why = f"is that of {other}" if taken else "is that of a shipped data set"
        if not NAME.fullmatch(name):
            why = "has signs that no name has; take letters, digits, '.', '_' and '-'"
        remedy = f"give this one another: `{shlex.join(['bench', 'prepare', str(folder), '--name', 'NAME'])}`"
        raise InputError("same-name", f"{folder}: its name {name!r} {why}; {remedy}")
    title = f"Folder {folder.name}: one class a sub-folder"
    return Card(name=name, title=title, source=place, place=place, tasks={"label": Task(default=True)})


def _name_of_folder(folder: Path, place: str, there: Mapping[str, str]) -> str:
    """The name that a folder was given, else its own in the letters that a name may have."""
    own = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    given = [name for name, made_of in there.items() if made_of == place and name != own]
    if len(given) > 1:
        raise InputError("same-name", f"{folder}: was given several names; take one of them: {', '.join(given)}")
    return given[0] if given else own


def _check_free(card: Card, path: Path) -> None:
    """Refuse a card that is called as a shipped one and describes something else: a name means one thing."""
    own = shipped_name(card.name)
    if own is None or path.resolve().parent == card_folder().resolve():
        return
    if card.name != own or card.digest != find_card(own).digest:
        what = f"name = {card.name!r} is that of a shipped data set with another card"
        raise InputError("same-name", f"{path}: {what}; rename the card and its file")
