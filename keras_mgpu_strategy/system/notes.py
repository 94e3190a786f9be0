"""Notes on exceptions that pass through as they are."""


def add_note(error: BaseException, note: str) -> None:
    """Adds a line that Python shows below the error, from 3.11 on.

    Under Python 3.10 it is kept in the same place, `error.__notes__`.
    """
    if hasattr(error, "add_note"):
        error.add_note(note)  # pyright: ignore[reportAttributeAccessIssue]
        return
    notes = getattr(error, "__notes__", [])
    error.__notes__ = [*notes, note]  # pyright: ignore[reportAttributeAccessIssue]


def notes_of(error: BaseException) -> list[str]:
    """Returns the notes that were added, in order."""
    return list(getattr(error, "__notes__", []))
