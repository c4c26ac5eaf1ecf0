"""Sentences read once, so that any of their spans can be looked up."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError


class SentenceEncoder(nn.Module):
    """Vectors of the fenceposts of a sentence by two LSTMs, and of its spans.

    Fencepost i, before word i, has the state of one LSTM after i words, and that of the other
    after the words from the end down to i. A span's vector is linear in what happens in it, the
    difference of those at its two ends, as in span-based parsers (Cross, Huang: "Span-based
    constituency parsing with a structure-label system and provably optimal dynamic oracles",
    EMNLP 2016).

    Spans are numbered by their end, then by their start: those of a sentence are the first ones,
    however long others are.

    Attributes:
        shortest: The fewest words of a span, 1 or 2.
    """

    def __init__(
        self,
        vocabulary: int,
        max_words: int,
        embedding: int,
        hidden: int,
        size: int,
        shortest: int = 2,
    ) -> None:
        """Builds the network.

        Args:
            vocabulary: V, the number of words.
            max_words: N, the most words of a sentence.
            embedding: The size of a word's embedding.
            hidden: The size of each LSTM's state.
            size: D, the size of a span's vector.
            shortest: The fewest words of a span, 1 or 2.

        Raises:
            UserError: If a size is below 1.
        """
        super().__init__()
        if min(vocabulary, max_words, embedding, hidden, size) < 1:
            raise UserError("A SentenceEncoder needs sizes of at least 1.")
        self.shortest = shortest
        self.embedding = nn.Embedding(vocabulary, embedding)
        # Two, for a bidirectional one would begin behind the end of short sentences.
        self.read_ahead = nn.LSTM(embedding, hidden, batch_first=True)
        self.read_back = nn.LSTM(embedding, hidden, batch_first=True)
        self.read_span = nn.Linear(2 * hidden, size)
        ends = torch.arange(shortest, max_words + 1)
        starts = ends - shortest + 1
        right = ends.repeat_interleave(starts)
        left = torch.arange(len(right)) - self.number(torch.zeros_like(right), right)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)

    left: Tensor
    right: Tensor

    def spans(self, num_words: int) -> tuple[Tensor, Tensor]:
        """Lists the fenceposts at both ends of the S spans of so many words, int64 `[S]` each."""
        starts = num_words - self.shortest + 1
        count = starts * (starts + 1) // 2
        return self.left[:count], self.right[:count]

    def number(self, left: Tensor, right: Tensor) -> Tensor:
        """Numbers spans by their fenceposts."""
        return span_number(left, right, self.shortest)

    def forward(self, words: Tensor) -> Tensor:
        """Reads sentences.

        Args:
            words: int64 `[B, n]`, -1 behind the end.

        Returns:
            The spans' vectors, float `[B, S, D]`.
        """
        left, right = self.spans(words.shape[1])
        embedded = self.embedding(words.clamp_min(0))
        length = (words >= 0).sum(-1, keepdim=True)
        fencepost = torch.arange(words.shape[1] + 1, device=words.device)
        # Word i is the (length - i)th from the end; behind the end anything will do.
        reverse = (length - 1 - fencepost[:-1]).clamp_min(0)[..., None].expand_as(embedded)
        ahead = _states(self.read_ahead, embedded)
        back = _states(self.read_back, embedded.gather(1, reverse))
        back = back.gather(1, (length - fencepost).clamp_min(0)[..., None].expand_as(back))
        # Linear in a difference, so each fencepost is multiplied once, not each span.
        posts = torch.cat([ahead, -back], -1) @ self.read_span.weight.T
        # Unlike indexing, index_select has a gradient that does not sort.
        difference = posts.index_select(1, right) - posts.index_select(1, left)
        return difference + self.read_span.bias


def _states(lstm: nn.LSTM, embedded: Tensor) -> Tensor:
    """Gives an LSTM's states after 0 .. n words, float `[B, n + 1, H]`."""
    return F.pad(lstm(embedded)[0], (0, 0, 1, 0))


def span_number(left: Tensor, right: Tensor, shortest: int = 2) -> Tensor:
    """Numbers spans of at least so many words by their fenceposts; see `SentenceEncoder`."""
    return (right - shortest + 1) * (right - shortest) // 2 + left
