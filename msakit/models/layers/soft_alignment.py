"""Frames without word times, laid softly on word pieces: each word attends to the frames around its share of the time.

Ours, for corpora whose audio and vision are not aligned to words (neither MAG-BERT nor Kim & Kim describes one).  With
t_j in (0, 1) the middle of frame j in its utterance, p_i the middle of word i if all words took equally long, and n
their number,

    w_ij = softmax over j of  q(e_i) . k(m_j) / sqrt(d)  -  ((t_j - p_i) n / s)^2 / 2,    m'_i = sum over j of w_ij m_j.

s > 0 is learnt and counts words; q starts at zero, so that at first the alignment is the linear map of time to words,
one word wide, and the content of words and frames bends it from there.  Special tokens and padding get zeros.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SoftAlignment(nn.Module):
    """d_text, d_frame: sizes of tokens and frames; width: size of queries and keys."""

    def __init__(self, d_text: int, d_frame: int, width: int = 32) -> None:
        super().__init__()
        self.query = nn.Linear(d_text, width, bias=False)
        self.key = nn.Linear(d_frame, width, bias=False)
        nn.init.zeros_(self.query.weight)
        # softplus of it is 1: a word.
        self.spread = nn.Parameter(torch.tensor(math.log(math.e - 1)))

    def forward(
        self,
        e: Float[Tensor, "batch token d_text"],
        frames: Float[Tensor, "batch frame d_frame"],
        word_positions: Float[Tensor, "batch token 2"],
    ) -> Float[Tensor, "batch token d_frame"]:
        """frames: of the whole utterance, equally spaced; word_positions: see `word_pieces.word_positions`."""
        # p_i and 1 / n; both 0 on special tokens and padding.
        middle, share = word_positions[..., :1], word_positions[..., 1:]
        count = frames.shape[1]
        time = (torch.arange(count, device=frames.device, dtype=frames.dtype) + 0.5) / count
        words = share > 0
        distance = (time - middle) / (share + ~words) / F.softplus(self.spread)
        scores = self.query(e) @ self.key(frames).transpose(1, 2) / math.sqrt(self.query.out_features)
        weights = (scores - distance.square() / 2).softmax(-1)
        return (weights @ frames) * words
