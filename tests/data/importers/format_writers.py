"""Small sources in each public format, written from its description with plain pickle, h5py, csv and json."""

import json
import pickle
import wave
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

SIZES = {"train": 4, "valid": 2, "test": 3}
FOLDS = {"train": ["va"], "valid": ["vb"], "test": ["vc"]}


def dump(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def mmsa(aligned: bool = False, sims: bool = False, sizes: dict[str, int] | None = None) -> dict[str, Any]:
    """Arrays filled with ones, so that what lies behind a length is visible if it is not cut."""
    content: dict[str, Any] = {}
    for split, n in (sizes or SIZES).items():
        masks = np.zeros((n, 3, 7), np.float32)
        masks[:, 1, :5] = 1
        part: dict[str, Any] = {
            "raw_text": np.array([f"{split} text {i}, so" for i in range(n)]),
            "id": np.array([f"{split}{i // 2}$_${i + 1}" for i in range(n)], dtype=object),
            "text": np.ones((n, 7, 6), np.float32),
            "text_bert": masks,
            "audio": np.ones((n, 7 if aligned else 11, 5), np.float64),
            "vision": np.ones((n, 7 if aligned else 13, 3), np.float64),
            "regression_labels": np.linspace(-1, 1, n).astype(np.float32),
            "annotations": np.array(["Positive"] * n),
            "classification_labels": np.zeros(n),
        }
        if not aligned:
            part["audio_lengths"] = [min(9, 3 + i) for i in range(n)]
            part["vision_lengths"] = np.array([2 + i % 3 for i in range(n)])
        if sims:
            part |= {f"regression_labels_{m}": np.full(n, 0.2, np.float32) for m in "TAV"}
        content[split] = part
    return content


def mult(with_ids: bool = True) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for split, n in SIZES.items():
        content[split] = {
            "text": np.ones((n, 5, 4), np.float32),
            "audio": np.ones((n, 6, 3), np.float32),
            "vision": np.ones((n, 8, 2), np.float32),
            "labels": np.linspace(-3, 3, n).reshape(n, 1, 1),
        }
        if with_ids:
            content[split]["id"] = np.array([[f"{split}[{i}]", f"{i}.0", f"{i}.5"] for i in range(n)]).astype("S")
    return content


def mag() -> dict[str, Any]:
    content: dict[str, Any] = {"train": [], "dev": [], "test": []}
    for split, n in (("train", 4), ("dev", 2), ("test", 3)):
        for i in range(n):
            words = ["null", 'good, "so"', "é"][: 1 + i % 3]
            vision = np.arange(len(words) * 47, dtype=np.float64).reshape(len(words), 47)
            acoustic = np.full((len(words), 74), float(i))
            content[split].append(((words, vision, acoustic), np.array([[i - 1.0]]), f"{split}x[{i}]"))
    return content


def csd(path: Path, root: str, data: dict[str, tuple[Any, Any]], later_root: bool = False) -> Path:
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in data.items():
            group = file.create_group(f"{root}/data/{video}")
            group.create_dataset("features", data=features)
            group.create_dataset("intervals", data=np.asarray(intervals, np.float32))
        text = h5py.string_dtype()
        file.create_dataset(f"{root}/metadata/root name", data=np.array([json.dumps(root)], dtype=object), dtype=text)
        if later_root:
            file.create_group("zzz later root/data")
    return path


def csd_folder(folder: Path) -> Path:
    """Two segments of two seconds a video, one word a second, audio at 100 frames a second counting up."""
    folder.mkdir(parents=True, exist_ok=True)
    spans = [[0.0, 2.0], [2.0, 4.0]]
    videos = ("va", "vb", "vc", "elsewhere")
    csd(folder / "labels_v2.csd", "Opinion Segment Labels",
        {v: (np.array([[1.2], [-0.4]], np.float32), spans) for v in videos}, later_root=True)  # fmt: skip
    words = np.array([[b"so"], [b"sp"], [b"caf\xc3\xa9"], [b"bad"]])
    csd(folder / "X_TimestampedWords.csd", "words", {v: (words, [[k, k + 1] for k in range(4)]) for v in videos})
    audio = np.repeat(np.arange(40, dtype=np.float32), 10)[:, None] * np.ones((1, 3), np.float32)
    audio[5, 0] = -np.inf
    times = np.stack([np.arange(400) / 100, np.arange(1, 401) / 100], axis=1)
    csd(folder / "X_COVAREP.csd", "covarep", {v: (audio, times) for v in videos})
    return folder


def csd_without_words(folder: Path) -> Path:
    csd_folder(folder)
    (folder / "X_TimestampedWords.csd").unlink()
    return folder


def wav(path: Path, seconds: float = 1.0, rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        count = int(seconds * rate)
        file.writeframes((np.arange(count) % 100).astype("<i2").tobytes())
    return path


def blob(path: Path, content: bytes = b"not really a film") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def image(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade, 255 - shade, 10)).save(path)
    return path


def ando(folder: Path) -> Path:
    for split, n in SIZES.items():
        lines = []
        for i in range(1, n + 1):
            lines.append(f"{split}v_{i} {i / 2 - 1}\n")
            for theirs, shape in (("video", (3, 4, 5)), ("audio", (3, 2, 5)), ("text", (3, 5))):
                path = folder / "feat" / theirs / "pretrained" / f"{split}v_{i}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                values = np.ones(shape, np.float32)
                if len(shape) == 3:
                    values *= np.arange(1, 4, dtype=np.float32)[:, None, None]
                np.save(path, values)
        path = folder / "label" / "sentiment_regress" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))
    return folder


def mosi_raw(folder: Path) -> Path:
    for video in ("va", "vb", "vc"):
        lines = "".join(f"{n}_DELIM_WORDS OF {video} {n}\n" for n in (1, 2))
        blob(folder / "Transcript/Segmented" / f"{video}.annotprocessed", lines.encode())
        for n in (1, 2):
            wav(folder / "Audio/WAV_16000/Segmented" / f"{video}_{n}.wav", 0.1)
            blob(folder / "Video/Segmented" / f"{video}_{n}.mp4")
        wav(folder / "Audio/WAV_16000/Full" / f"{video}.wav", 0.1)
        blob(folder / "Audio/WAV_16000/Segmented" / f"._{video}_1.wav")
    return folder


def mosei_raw(folder: Path) -> Path:
    for video in ("va", "vb", "vc"):
        lines = "".join(f"{video}___{n}___{2 * n}.1___{2 * n + 2}.0___words ___ of {n}\n" for n in (0, 1))
        blob(folder / "Transcript/Segmented/Combined" / f"{video}.txt", lines.encode())
        wav(folder / "Audio/Full/WAV_16000" / f"{video}.wav", 5.0)
        blob(folder / "Videos/Full/Combined" / f"{video}.mp4")
    return folder


def meld(folder: Path) -> Path:
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    homes = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for split, home in homes.items():
        lines = [header]
        mark = "’" if split == "dev" else "\x92"
        for i in range(3):
            mood = (("joy", "positive"), ("anger", "negative"), ("neutral", "neutral"))[i]
            lines.append(f'{i + 1},"Oh{mark}no, {i}",Ross,{mood[0]},{mood[1]},0,{i},8,21,"00:16:16,059","00:16:21,731"')
            blob(folder / split / home / f"dia0_utt{i}.mp4")
        blob(
            folder / f"{split}_sent_emo.csv",
            ("\r\n".join(lines) + "\r\n").encode("cp1252" if split == "dev" else "utf-8"),
        )
    return folder


def ch_sims(folder: Path) -> Path:
    lines = ["\ufeffvideo_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"]
    for k, mode in enumerate(("train", "train", "valid", "test"), start=1):
        lines.append(f"video_0001,000{k},我不想嫁给李茶,{-0.2 * k:.1f},-0.6,-1.0,0.0,Negative,{mode}")
        blob(folder / "Raw/video_0001" / f"000{k}.mp4")
    blob(folder / "label.csv", "\n".join(lines).encode())
    return folder


def mvsa(folder: Path, posts: dict[str, str]) -> Path:
    """posts: id -> the cells of the label table behind the id."""
    lines = ["ID\ttext,image"] + [f"{post}\t{cells}" for post, cells in posts.items()]
    blob(folder / "labelResultAll.txt", ("\n".join(lines) + "\n").encode())
    for shade, post in enumerate(posts):
        image(folder / "data" / f"{post}.jpg", 7 * shade % 250)
        blob(folder / "data" / f"{post}.txt", f"post {post}\n".encode())
    return folder


def memes(folder: Path) -> Path:
    start = 1
    for name, n in (("train", 20), ("dev_seen", 6), ("dev_unseen", 6), ("test_seen", 4)):
        lines = []
        for i in range(start, start + n):
            meme = {"id": i, "img": f"img/{i:05d}.png", "label": i % 2, "text": f"meme {i}"}
            if name == "test_seen":
                del meme["label"]
            lines.append(json.dumps(meme))
            image(folder / "img" / f"{i:05d}.png", i)
        blob(folder / f"{name}.jsonl", "\n".join(lines).encode())
        start += n if name != "dev_seen" else n - 2  # dev_unseen shares two memes with dev_seen
    return folder
