"""Drawn faces are found, expressions move the pixels where they should, and crops follow their boxes."""

import numpy as np

from msakit.data import faces
from msakit.data.faces import crop_face, find_faces, largest_face, video_faces
from msakit.data.media import read_frames, write_video
from msakit.data.synthetic.face_drawing import SIZE, draw_face, sample_face


def test_faces_are_found_over_speakers_and_expressions() -> None:
    hits = []
    for speaker in range(30):
        rng = np.random.default_rng([7, speaker])
        face = sample_face(rng)
        for _ in range(3):
            brow, eye, mouth = np.tanh(rng.normal(0, 0.9, 3)).tolist()
            x, y = rng.normal(0, 1.5, 2).tolist()
            box = largest_face(draw_face(face, brow, eye, mouth, (x, y), rng.normal(0, 1)))
            # A hit must lie on the face, which is about 70 pixels wide around the middle line.
            hits.append(box is not None and 50 < box[2] < 100 and abs(box[0] + box[2] / 2 - SIZE / 2 - x) < 10)
    assert len(hits) == 90
    assert np.mean(hits) >= 0.95


def test_each_cue_moves_its_own_part() -> None:
    face = sample_face(np.random.default_rng(3))
    rest = draw_face(face, 0, 0, 0).astype(int)
    rows = {}
    for name in ("brow", "eye", "mouth"):
        cues = {"brow": 0.0, "eye": 0.0, "mouth": 0.0, name: 0.8}
        changed = np.abs(draw_face(face, **cues).astype(int) - rest).sum(axis=(1, 2))
        assert changed.max() > 100
        rows[name] = float(np.average(np.arange(SIZE), weights=changed))
    assert rows["brow"] < rows["eye"] < rows["mouth"]


def test_no_face_in_noise_and_large_frames_are_scaled() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    assert largest_face(noise) is None
    frame = draw_face(sample_face(np.random.default_rng(1)), 0, 0, 0.3)
    small = largest_face(frame)
    large = largest_face(frame.repeat(6, axis=0).repeat(6, axis=1))
    assert small is not None
    assert large is not None
    assert abs(large[2] / 6 - small[2]) < 12


def test_crop_repeats_the_edge_outside() -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[:, 0] = 90
    crop = crop_face(frame, (0, 0, 10, 10), size=14, margin=0.2)
    assert crop.shape == (14, 14, 3)
    assert crop[7, 0, 0] == 90
    assert crop[7, 13, 0] == 0


def test_frames_without_a_face_borrow_the_nearest_box() -> None:
    face = draw_face(sample_face(np.random.default_rng(5)), 0, 0, 0)
    blank = np.full_like(face, 128)
    crops, found = find_faces(np.stack([blank, face, blank]), 40)
    assert found.tolist() == [False, True, False]
    assert crops.shape == (3, 40, 40, 3)
    assert (crops[0] == 128).all()
    assert crops[1].std() > 10
    nothing, found = find_faces(np.stack([blank, blank]), 40)
    assert not found.any()
    assert (nothing == 0).all()


def test_a_video_is_searched_once_for_all_encoders_and_again_when_it_changes(tmp_path, monkeypatch) -> None:
    face = draw_face(sample_face(np.random.default_rng(5)), 0, 0, 0)
    blank = np.full_like(face, 128)
    path = tmp_path / "v.mp4"
    write_video(path, np.stack([face, blank, face, blank]), 3.0)
    searched = []
    search = faces.largest_face
    monkeypatch.setattr(faces, "largest_face", lambda frame: searched.append(1) or search(frame))
    expected, found = find_faces(read_frames(path, fps=3)[0], 40)
    assert len(searched) == 4
    for size in (40, 64):
        crops, seen = video_faces(path, 3, size)
        assert crops.shape == (4, size, size, 3)
        assert seen.tolist() == found.tolist() == [True, False, True, False]
    assert len(searched) == 8
    np.testing.assert_array_equal(video_faces(path, 3, 40)[0], expected)
    write_video(path, np.stack([blank, blank]), 3.0)
    assert video_faces(path, 3, 40)[1].tolist() == [False, False]
    assert len(searched) == 10
