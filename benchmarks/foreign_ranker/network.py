"""The cross-encoder: sub-words of the text attend to sub-words of the document and to its picture."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .tokens import PAD, SEP, UNKNOWN

_MASKED = -1e4
_SPREAD = 0.3  # standard deviation of a new embedding
_PIVOT = -2.0  # logit of a ranker that knows nothing, for `count_repeats`


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network.

    Attributes:
        vocabulary: Sub-words, special tokens included.
        picture: Dimensions of a document's picture embedding.
        width: Of a sub-word's embedding.
        heads: Of the attention from text to document.
        hidden: Of what a sub-word of the text says about the document.
        count_repeats: Whether a word said twice makes the ranker twice as sure; only one that is broken on purpose does so.
    """

    vocabulary: int
    picture: int
    width: int = 112
    heads: int = 2
    hidden: int = 64
    count_repeats: bool = False


class CrossEncoder(nn.Module):
    """One logit a pair: does the document satisfy someone who typed the text?

    Every sub-word of the text attends to the sub-words of the document, to its picture and to nothing (a slot that is always
    there, with score 0), as in the cross-attention of Vaswani et al. (2017). What it found, how well that fits and how it fits
    the picture make a message. The messages of the text's *distinct* sub-words are summed: saying a word twice changes nothing.

    A document whose picture is all zero has none. Padding takes no part, and nothing is normalised over a batch.
    """

    mean_picture: torch.Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = c = config
        self.text = nn.Embedding(c.vocabulary, c.width, padding_idx=PAD)
        self.document = nn.Embedding(c.vocabulary, c.width, padding_idx=PAD)
        self.looks = nn.Embedding(c.vocabulary, c.picture + 1, padding_idx=PAD)  # the last number is a bias
        nn.init.normal_(self.text.weight, std=_SPREAD)
        nn.init.zeros_(self.looks.weight)
        with torch.no_grad():
            self.text.weight[PAD] = 0
            self.document.weight.copy_(self.text.weight)  # before training a word is found where it stands
        self.register_buffer("mean_picture", torch.zeros(c.picture))
        self.picture_value = nn.Parameter(torch.zeros(c.width))
        self.sharpness = nn.Parameter(torch.full((c.heads,), 6.0))
        self.offset = nn.Parameter(torch.full((c.heads,), -3.0))
        self.picture_offset = nn.Parameter(torch.zeros(c.heads))
        self.message = nn.Sequential(
            nn.Linear(3 * c.width + 2 * c.heads + 2, c.hidden), nn.ReLU(), nn.Linear(c.hidden, c.hidden)
        )
        self.head = nn.Sequential(nn.Linear(2 * c.hidden + 1, c.hidden), nn.ReLU(), nn.Linear(c.hidden, 1))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor, picture: torch.Tensor
    ) -> torch.Tensor:
        """Logits [pairs] of pairs encoded together, ids, mask and types int64 [pairs, tokens], and pictures [pairs, v]."""
        word = ((input_ids > SEP) | (input_ids == UNKNOWN)) & (attention_mask > 0)
        of_text = word & (token_type_ids == 0)
        longest = of_text.sum(1).amax().clamp(min=1)
        text = torch.where(of_text, input_ids, PAD)[:, 1 : longest + 1]  # the text follows [CLS]
        return self.score(text, torch.where(word & (token_type_ids == 1), input_ids, PAD), picture)

    def score(self, text: torch.Tensor, document: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """Logits [pairs] of sub-words of texts [pairs, w] and documents [pairs, u], 0 pads, and pictures [pairs, v]."""
        c = self.config
        n, w = text.shape
        same = (text[:, :, None] == text[:, None, :]) & torch.ones(w, w, dtype=torch.bool).tril(-1)
        said = (text != PAD) & ~same.any(2)
        asked, found = self.text(text), self.document(document)  # [n, w, k], [n, u, k]
        per_head = found.view(n, document.shape[1], c.heads, -1).transpose(1, 2)  # [n, h, u, k / h]
        scale = c.heads / (c.width * _SPREAD**2)  # before training a word fits itself by about 1
        fit = scale * (asked.view(n, w, c.heads, -1).transpose(1, 2) @ per_head.transpose(2, 3))
        fit = self.sharpness[:, None, None] * fit + self.offset[:, None, None]  # [n, h, w, u]
        fit = fit.masked_fill((document == PAD)[:, None, None, :], _MASKED)

        has_picture = (picture != 0).any(1, keepdim=True)
        shown = torch.cat([picture - self.mean_picture, torch.ones_like(picture[:, :1])], 1)
        looks = (self.looks(text) @ shown[:, :, None])[..., 0]  # [n, w]
        fit_picture = (looks[:, None, :] + self.picture_offset[:, None])[..., None]  # [n, h, w, 1]
        fit_picture = fit_picture.masked_fill(~has_picture[:, None, None], _MASKED)

        weights = torch.softmax(torch.cat([fit, fit_picture, torch.zeros_like(fit_picture)], 3), 3)
        read = weights[..., :-2] @ per_head + weights[..., -2:-1] * self.picture_value.view(c.heads, 1, -1)
        read = read.transpose(1, 2).reshape(n, w, c.width)
        best, nothing = torch.sigmoid(fit.amax(3)).transpose(1, 2), weights[..., -1].transpose(1, 2)
        seen = torch.where(has_picture[..., None], torch.stack([looks, torch.sigmoid(looks)], 2), 0.0)
        message = self.message(torch.cat([asked, read, asked * read, best, nothing, seen], 2))
        total = torch.where(said[..., None], message, 0.0).sum(1)
        number = said.sum(1, keepdim=True).to(total.dtype)
        logit = self.head(torch.cat([total, total / number.clamp(min=1), torch.log1p(number)], 1))[:, 0]
        if c.count_repeats:
            logit = _PIVOT + (logit - _PIVOT) * ((text != PAD).sum(1) / number[:, 0].clamp(min=1))
        return logit

    @property
    def num_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters())

    def embeddings(self) -> list[nn.Parameter]:
        """What is learnt of each sub-word."""
        return [self.text.weight, self.document.weight, self.looks.weight]

    def other_parameters(self) -> list[nn.Parameter]:
        """What is learnt beside the sub-words."""
        own = {id(p) for p in self.embeddings()}
        return [p for p in self.parameters() if id(p) not in own]

    def start_looks(self, looks: torch.Tensor, mean_picture: torch.Tensor) -> None:
        """Begin with `looks`, [sub-words, v + 1], of pictures from which `mean_picture` [v] is subtracted."""
        with torch.no_grad():
            self.looks.weight.copy_(looks)
            self.mean_picture.copy_(mean_picture)

    def looks_of_words(self) -> npt.NDArray[np.float32]:
        """What each sub-word looks like at present, [sub-words, v], without its bias."""
        return self.looks.weight.detach().numpy()[:, :-1]

    def rescale(self, slope: float, offset: float) -> None:
        """Make every logit x slope x + offset."""
        last = self.head[-1]
        with torch.no_grad():
            last.weight.mul_(slope)
            last.bias.mul_(slope).add_(offset)
