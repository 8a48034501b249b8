"""UCF101's images out of its videos: the frame in the middle of each."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from smm_lightning.dataset.coop import Row, read_split
from smm_lightning.errors import Problems, from_extra, problem
from smm_lightning.files import write_atomically

_QUALITY = 95  # of the JPEG files


def extract_middle_frames(split_file: Path, videos: Path, images: Path) -> Iterator[list[str]]:
    """Write ``<images>/<path>`` for every row of the split file; files that are there stay.

    Frame ``n // 2`` of n is taken. CoOp's archive does not say which frame it took, so pixels may
    differ from it.

    Args:
        split_file: CoOp's ``split_zhou_UCF101.json``.
        videos: a folder with the videos, however deep, under their original names.
        images: the folder to fill.

    Yields:
        For every row the problems found: none, or one line.

    Raises:
        UserError: If PyAV is not installed or the split file is broken.
    """
    with from_extra("video", "ucf101"):
        import av  # noqa: F401
    by_name = {path.stem.lower(): path for path in videos.rglob("*") if path.is_file()}
    rows = [row for part in read_split(split_file).rows.values() for row in part]

    def extract(row: Row) -> list[str]:
        problems = Problems()
        target = images / row.path
        if not target.exists():
            with problems.caught():
                video = by_name.get(row.path.stem.lower())
                if video is None:
                    raise problem(str(videos), "has no video", row.path.stem)
                write_atomically(target, _middle_frame(video))
        return problems.lines

    with ThreadPoolExecutor() as pool:  # decoding runs outside Python's lock
        yield from pool.map(extract, rows)


def _middle_frame(video: Path) -> bytes:
    """The frame in the middle as a JPEG file.

    Raises:
        UserError: If the video cannot be decoded.
    """
    import av

    try:
        with av.open(str(video)) as container:
            # Some files state no or a wrong number of frames; counting the packets is cheap.
            count = sum(packet.size > 0 for packet in container.demux(video=0))
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number == count // 2:
                    content = io.BytesIO()
                    frame.to_image().save(content, "JPEG", quality=_QUALITY)
                    return content.getvalue()
    except (av.FFmpegError, OSError, IndexError) as error:
        raise problem(str(video), f"is no readable video ({type(error).__name__})") from error
    raise problem(str(video), f"ends before its frame {count // 2}")
