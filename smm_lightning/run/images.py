"""What the images of a run are, and whether they are the same now."""

from collections.abc import Mapping
from typing import Any

from smm_lightning.errors import problem
from smm_lightning.text import same_but_form


def require_noted_images(result: Mapping[str, Any], where: str) -> None:
    """A result says which images it was made with.

    Args:
        result: content of a ``result.json``.
        where: the run, for the message.

    Raises:
        UserError: If it does not.
    """
    if not {"images", "class_names"} <= result.keys():
        what = "was written by an older version, which did not note its images"
        raise problem(where, what, hint="force=true runs it anew.")


def changed_images(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between the images of a run and those of now, in words; empty if nothing does.

    Args:
        then: ``images`` by splits (see ``ImageDataModule.images``) and, but in a table of runs,
            ``class_names``.
        now: both.
    """
    after = now["class_names"]
    before = then.get("class_names", after)
    changes = []
    if before != after:
        gone = [name for name in before if name not in after]
        new = [name for name in after if name not in before]
        details = [
            f"{word} {', '.join(names)}" for word, names in (("without", gone), ("new", new))
        ]
        named = "; ".join(d for d, names in zip(details, (gone, new), strict=True) if names)
        form = " that differ only in the form of their Unicode characters"
        alike = form if same_but_form(gone, new) else ""
        changes.append(f"other classes ({named or 'in another order'}{alike})")
    for split in dict.fromkeys([*then["images"], *now["images"]]):
        one, other = then["images"].get(split), now["images"].get(split)
        if one is None or other is None:
            changes.append(f"{split} is {'new' if one is None else 'gone'}")
        elif one["digest"] != other["digest"]:
            changes.append(f"other images in {split} ({one['images']} then, {other['images']} now)")
    return ", ".join(changes)
