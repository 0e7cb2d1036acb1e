"""Sound, frames and pictures in and out of ordinary files: soundfile, PyAV and Pillow behind one kind of error."""

from fractions import Fraction
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float, UInt8
from PIL import Image


class MediaError(ValueError):
    """A media file that cannot be read or written; the message names the file and the mend."""


def _require_file(path: str | Path) -> None:
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "is not there"
        raise MediaError(f"the media file {path} {what}: check the path")


def read_audio(path: str | Path, rate: int = 16000) -> Float[np.ndarray, "time"]:
    """Mono float32 samples in [-1, 1] at `rate` samples a second; channels are averaged, other rates resampled.

    Of a video file (mp4, mkv, ...) the first audio stream is read, from its first sample on.
    """
    from scipy.signal import resample_poly

    mend = f"convert it anew, e.g. ffmpeg -i SOURCE -ac 1 -ar {rate} {Path(path).with_suffix('.wav').name}"
    try:
        samples, native = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        _require_file(path)
        decoded = _decode_audio(path)
        if decoded is None:
            raise MediaError(f"cannot read the audio file {path} ({error}): {mend}") from error
        samples, native = decoded
    if len(samples) == 0:
        raise MediaError(f"the audio file {path} holds no samples: {mend}")
    if not np.isfinite(samples).all():
        raise MediaError(f"the audio file {path} holds samples that are not finite: {mend}")
    mono = samples.mean(axis=1)
    if native != rate:
        common = gcd(native, rate)
        mono = resample_poly(mono, rate // common, native // common)
    return np.asarray(mono, dtype=np.float32)


def _decode_audio(path: str | Path) -> tuple[Float[np.ndarray, "time channel"], int] | None:
    """Samples and their rate from what soundfile does not read; None where FFmpeg does not read it either."""
    import av

    blocks: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise MediaError(
                    f"the file {path} has no sound: name an audio file in the column audio, or leave audio out"
                )
            stream = container.streams.audio[0]
            native = int(stream.rate)
            # Keeps rate and channels; only the samples' type changes.
            converter = av.AudioResampler(format="fltp", layout=stream.layout, rate=native)
            for frame in [*container.decode(stream), None]:
                blocks += [block.to_ndarray() for block in converter.resample(frame)]
    except (av.FFmpegError, OSError):
        return None
    channels = len(blocks[0]) if blocks else 1
    return np.concatenate([np.zeros((channels, 0), np.float32), *blocks], axis=1).T, native


def read_frames(
    path: str | Path, fps: int | float = 3.0
) -> tuple[UInt8[np.ndarray, "time height width 3"], Float[np.ndarray, "time"]]:
    """RGB frames and their times in seconds, one frame for each 1/fps seconds as far as the file has them.

    The frame kept for the tick k/fps is the first one shown at or after it, so that no frame is returned twice;
    a file with fewer frames a second than `fps` is returned whole.
    """
    import av

    if fps <= 0:
        raise ValueError(f"fps is {fps}: it must be positive")
    frames: list[np.ndarray] = []
    times: list[float] = []
    tick = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            start = None
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                start = frame.time if start is None else start
                time = frame.time - start
                if time * fps >= tick - 1e-3:  # time stamps are rounded to the container's clock
                    frames.append(frame.to_ndarray(format="rgb24"))
                    times.append(time)
                    tick = int(np.floor(time * fps + 1e-3)) + 1
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        _require_file(path)
        raise MediaError(
            f"cannot read the video file {path} ({error}): "
            "convert it anew, e.g. ffmpeg -i SOURCE -pix_fmt yuv420p OUT.mp4"
        ) from error
    if not frames:
        raise MediaError(f"the video file {path} holds no frames: cut the segment anew from its source")
    return np.stack(frames), np.asarray(times, dtype=np.float64)


def read_image(path: str | Path) -> Image.Image:
    """The picture as PIL RGB; transparency is laid over white."""
    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                rgba = picture.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        _require_file(path)
        raise MediaError(f"cannot read the image file {path} ({error}): save it anew as png or jpeg") from error


def write_audio(path: str | Path, samples: Float[np.ndarray, "time"], rate: int = 16000) -> None:
    """Write mono samples in [-1, 1] as 16 bit PCM; louder samples are an error rather than a crackle."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= 1.0:
        raise MediaError(f"samples for {path} peak at {peak:g}: scale them into [-1, 1] first")
    soundfile.write(str(path), samples, rate, subtype="PCM_16")


def write_video(path: str | Path, frames: UInt8[np.ndarray, "time height width 3"], fps: int | float) -> None:
    """Write RGB frames as H.264 in the container that the suffix names; height and width must be even."""
    import av

    if len(frames) == 0 or frames.shape[1] % 2 or frames.shape[2] % 2:
        raise MediaError(f"frames for {path} are {frames.shape}: give one or more, of even height and width")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # One thread, so that the same frames always give the same bytes.
        stream.options = {"crf": "18", "preset": "ultrafast", "threads": "1"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
