"""What is written through the encoders comes back through the decoders, and broken files say so by name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from msakit.data.media import MediaError, read_audio, read_frames, read_image, write_audio, write_video


def test_audio_round_trip_and_resampling(tmp_path: Path) -> None:
    t = np.arange(8000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    write_audio(tmp_path / "a.wav", tone)
    back = read_audio(tmp_path / "a.wav")
    assert back.dtype == np.float32
    assert np.abs(back - tone).max() < 2 / 32768
    write_audio(tmp_path / "b.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 44100), rate=44100)
    resampled = read_audio(tmp_path / "b.wav")
    assert len(resampled) == 8000
    assert np.abs(resampled[500:-500] - tone[500:-500]).max() < 0.01


def test_channels_are_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1), 16000)
    assert read_audio(tmp_path / "s.wav") == pytest.approx(np.full(100, 0.125), abs=1e-4)


def _clip(count: int) -> np.ndarray:
    frames = np.full((count, 32, 48, 3), 40, dtype=np.uint8)
    for k in range(count):
        frames[k, :, : 4 + 4 * k] = 200  # a bar that grows tells the frames apart
    return frames


@pytest.mark.parametrize(("fps", "kept"), [(3.0, [0, 2, 4, 6, 8, 10]), (2.0, [0, 3, 6, 9]), (25.0, list(range(11)))])
def test_frames_are_sampled_in_time(tmp_path: Path, fps: float, kept: list[int]) -> None:
    write_video(tmp_path / "v.mp4", _clip(11), 6)
    frames, times = read_frames(tmp_path / "v.mp4", fps)
    assert times == pytest.approx([k / 6 for k in kept], abs=1e-3)
    edges = [int((f[16, :, 0] > 120).sum()) for f in frames]
    assert edges == pytest.approx([4 + 4 * k for k in kept], abs=1)


def test_transparent_png_is_laid_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "t.png")
    assert read_image(tmp_path / "t.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("read", "name", "mend"),
    [(read_audio, "x.wav", "ffmpeg"), (read_frames, "x.mp4", "ffmpeg"), (read_image, "x.png", "save it anew")],
)
@pytest.mark.parametrize("content", [None, b"", b"this is not a media file" * 50])
def test_broken_files(tmp_path: Path, read, name: str, mend: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert (mend if content is not None else "is not there: check the path") in str(caught.value)


def test_truncated_video_and_image(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", _clip(11), 6)
    whole = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"v\.mp4"):
        read_frames(tmp_path / "v.mp4")
    Image.effect_noise((64, 64), 50).save(tmp_path / "i.png")
    whole = (tmp_path / "i.png").read_bytes()
    (tmp_path / "i.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"i\.png"):
        read_image(tmp_path / "i.png")


def test_silence_that_is_no_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(MediaError, match="no samples"):
        read_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(MediaError, match="not finite"):
        read_audio(tmp_path / "nan.wav")


def test_writers_refuse_what_they_would_spoil(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"peak at 1\.5"):
        write_audio(tmp_path / "l.wav", np.array([0.0, 1.5]))
    with pytest.raises(MediaError, match="even height and width"):
        write_video(tmp_path / "o.mp4", np.zeros((2, 31, 32, 3), np.uint8), 6)
    with pytest.raises(ValueError, match="must be positive"):
        read_frames(tmp_path / "o.mp4", fps=0.0)
