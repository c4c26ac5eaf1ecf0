"""Sentences read once, so that any of their spans can be looked up."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError


class SentenceEncoder(nn.Module):
    """Vectors of the fenceposts of a sentence by two LSTMs, and of its spans.

    Fencepost i, before word i, has the state of one LSTM after i words, and that of the other
    after the words from the end down to i. A span's vector is what happens in it, the
    difference of those at its two ends, as in span-based parsers (Cross, Huang: "Span-based
    constituency parsing with a structure-label system and provably optimal dynamic oracles",
    EMNLP 2016).

    Spans of at least two words are numbered by their end, then by their start: those of a
    sentence of n words are the first n (n - 1) / 2, however long others are.
    """

    def __init__(self, vocabulary: int, max_words: int, embedding: int, hidden: int) -> None:
        """Builds the network.

        Args:
            vocabulary: V, the number of words.
            max_words: N, the most words of a sentence.
            embedding: The size of a word's embedding.
            hidden: H, the size of each LSTM's state.

        Raises:
            UserError: If a size is below 1.
        """
        super().__init__()
        if min(vocabulary, max_words, embedding, hidden) < 1:
            raise UserError("A SentenceEncoder needs sizes of at least 1.")
        self.size = 2 * hidden
        self.embedding = nn.Embedding(vocabulary, embedding)
        # Two, for a bidirectional one would begin behind the end of short sentences.
        self.read_ahead = nn.LSTM(embedding, hidden, batch_first=True)
        self.read_back = nn.LSTM(embedding, hidden, batch_first=True)
        ends = torch.arange(2, max_words + 1)
        right = ends.repeat_interleave(ends - 1)
        left = torch.arange(len(right)) - span_number(torch.zeros_like(right), right)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)

    left: Tensor
    right: Tensor

    def forward(self, words: Tensor) -> Tensor:
        """Reads sentences.

        Args:
            words: int64 `[B, n]`, -1 behind the end.

        Returns:
            The spans' vectors, float `[B, n (n - 1) / 2, 2 H]`.
        """
        num_words = words.shape[1]
        spans = num_words * (num_words - 1) // 2
        left, right = self.left[:spans], self.right[:spans]
        embedded = self.embedding(words.clamp_min(0))
        length = (words >= 0).sum(-1, keepdim=True)
        fencepost = torch.arange(num_words + 1, device=words.device)
        # Word i is the (length - i)th from the end; behind the end anything will do.
        reverse = (length - 1 - fencepost[:-1]).clamp_min(0)[..., None].expand_as(embedded)
        ahead = _states(self.read_ahead, embedded)
        back = _states(self.read_back, embedded.gather(1, reverse))
        back = back.gather(1, (length - fencepost).clamp_min(0)[..., None].expand_as(back))
        # Unlike indexing, index_select has a gradient that does not sort.
        within = ahead.index_select(1, right) - ahead.index_select(1, left)
        across = back.index_select(1, left) - back.index_select(1, right)
        return torch.cat([within, across], -1)


def _states(lstm: nn.LSTM, embedded: Tensor) -> Tensor:
    """Gives an LSTM's states after 0 .. n words, float `[B, n + 1, H]`."""
    return F.pad(lstm(embedded)[0], (0, 0, 1, 0))


def span_number(left: Tensor, right: Tensor) -> Tensor:
    """Numbers spans of at least two words by their fenceposts; see `SentenceEncoder`."""
    return (right - 1) * (right - 2) // 2 + left
