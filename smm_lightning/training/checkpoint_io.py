"""How Lightning writes and reads checkpoints here."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from typing_extensions import override

from smm_lightning.files import write_atomically
from smm_lightning.run.checkpoint import read_checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's own writer is not atomic when the temporary folder is another file system."""

    @override
    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        """Write ``checkpoint``; the previous file survives any failure."""
        buffer = io.BytesIO()  # torch.save to a full disk ends the process
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """See :func:`read_checkpoint`."""
        return read_checkpoint(Path(path), map_location)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the file if it is there."""
        Path(path).unlink(missing_ok=True)
