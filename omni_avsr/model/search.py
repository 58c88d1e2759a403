"""Beam search over rows that come and go; greedy search is a beam of one.

A row's search is a tree of positions that the LLM has read. Every pass reads, for all rows together, the positions
whose continuation is not known yet; a newcomer's prompt is one of them. A draft of the answer, where there is one, is
read along with it: its positions are then known before the search arrives there, and the search, which asks only for
the LLM's own numbers, finds exactly what it would have found without (draft and verify).

Scores and stopping are those of transformers' beam search with early_stopping=False, so official checkpoints give
official words.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from omni_avsr.errors import ConfigError
from omni_avsr.model.hotwords import Hotwords
from omni_avsr.model.memory import Memory, Reading
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.model.spelling import Beginning, Spelling
from omni_avsr.types import Hypothesis

SHARPNESS = 0.3  # of beliefs in whole texts: log-probabilities of LLM and heads added up are too sure of themselves

Draft = Callable[[Sequence[int]], list[int]]
"""The tokens of an answer so far -> how it goes on, end of text included; empty = no idea."""


@dataclass(frozen=True)
class DecodeOptions:
    """How to search.

    Attributes:
        beam_size: hypotheses kept per row; 1 = greedy.
        max_new_tokens: most tokens of text; None = 32 + 16 per second of the row, so that no speech is cut off.
        length_penalty: hypotheses compete by sum of log-probabilities / tokens ** length_penalty.
        draft: greedy search only: a CTC head guesses the answer and the LLM checks it. Fewer passes, the same words.
            (Several beams bring a new guess at nearly every step: 1.3 times fewer passes, twice the positions.)
        hotwords: words or phrases that are preferred where the model is in doubt.
    """

    beam_size: int = 5
    max_new_tokens: int | None = None
    length_penalty: float = 1.0
    draft: bool = True
    hotwords: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.beam_size < 1 or (self.max_new_tokens is not None and self.max_new_tokens < 1):
            raise ConfigError(
                f"beam_size = {self.beam_size}, max_new_tokens = {self.max_new_tokens}: both must be at least 1"
            )


@dataclass(frozen=True)
class Prompt:
    """What one row brings to the search."""

    prefix: Tensor  # (L, H), all that is read before the answer
    task: str
    limit: int  # most tokens of the answer
    draft: Draft | None = None
    spelling: Spelling | None = None  # what CTC heads make of an answer; decides together with the LLM


# ---- one row ---------------------------------------------------------------------------------


_Following = tuple[int, float, float]  # a token, its log-probability, and what it is worth besides


@dataclass(eq=False)
class _Node:
    """A text as far as one token: a leaf of the tree of one row."""

    token: int = -1
    logprob: float = 0.0
    total: float = 0.0  # sum of log-probabilities from the prompt to here, and of what hot words are worth
    depth: int = 0  # tokens from the prompt to here
    parent: _Node | None = None
    cell: int = -1  # where the memory keeps it, counted from the end of the prompt; -1 = not read yet
    following: list[_Following] | None = None  # the best tokens after it; None = unknown
    read: dict[int, _Node] = field(default_factory=dict)  # continuations that the memory holds already
    begun: Beginning = field(default_factory=Beginning)  # the text as the CTC heads read it
    longer: dict[int, Beginning] = field(default_factory=dict)  # its continuations, as they read them

    def path(self) -> list[_Node]:
        """From the first token to this one."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class _Row:
    """The search of one row: its open beams, the K best finished ones, and when to stop."""

    def __init__(self, index: int, prompt: Prompt, eos: int, options: DecodeOptions) -> None:
        self.index, self.prompt, self.eos, self.options = index, prompt, eos, options
        self.root = _Node() if prompt.spelling is None else _Node(begun=prompt.spelling.nothing())
        self.open = [self.root]
        self.finished: list[tuple[float, _Node]] = []  # best first
        self.done = False
        self.used = 0  # cells behind the prompt
        self.begun = False  # the prompt has been read
        self._sight = np.zeros((16, 16), dtype=bool)  # (cell, cell): whom a position behind the prompt sees there

    # ---- what to read ------------------------------------------------------------------------

    def wanted(self) -> list[_Node]:
        """The nodes that the next pass must read, and what the draft expects to follow them."""
        nodes = []
        for beam in self.open:
            if beam.following is None:
                nodes += [beam] if beam.depth else []
                nodes += self._drafted(beam)
        return nodes

    def _drafted(self, node: _Node) -> list[_Node]:
        """A chain of nodes behind `node`. The token that ends the text or the search needs no reading."""
        if self.prompt.draft is None:
            return []
        chain: list[_Node] = []
        room = self.prompt.limit - node.depth - 1
        for token in self.prompt.draft([n.token for n in node.path()])[: max(0, room)]:
            if token == self.eos:
                break
            child = _Node(token, depth=node.depth + 1, parent=node)
            node.read[token] = child
            chain.append(child)
            node = child
        return chain

    def place(self, nodes: Sequence[_Node]) -> tuple[int, np.ndarray]:
        """Gives `nodes` their cells; returns the first cell of the pass and what its positions see."""
        length, before = len(self.prompt.prefix), self.used
        self.used += len(nodes)
        if self.used > len(self._sight):
            grow = max(self.used, 2 * len(self._sight)) - len(self._sight)
            self._sight = np.pad(self._sight, (0, grow))
        for cell, node in enumerate(nodes, before):
            node.cell = cell
            assert node.parent is not None
            if node.parent.cell >= 0:
                self._sight[cell] = self._sight[node.parent.cell]
            self._sight[cell, cell] = True
        behind = np.ones((len(nodes), length + self.used), dtype=bool)
        behind[:, length:] = self._sight[before : self.used, : self.used]
        if self.begun:
            return length + before, behind
        prompt = np.tri(length, length + self.used, dtype=bool)
        return 0, np.concatenate([prompt, behind])

    # ---- what to say -------------------------------------------------------------------------

    def advance(self) -> None:
        """Goes on as far as the continuations of all open beams are known."""
        while not self.done and all(beam.following is not None for beam in self.open):
            if self.prompt.spelling is not None:
                self._spell(self.prompt.spelling)
            self._step()

    def _spell(self, spelling: Spelling) -> None:
        """The CTC heads say what each continuation of the open beams is worth to them."""
        asked = [(beam, token) for beam in self.open for token, _, _ in beam.following or () if token != self.eos]
        texts = [[*(node.token for node in beam.path()), token] for beam, token in asked]
        for (beam, token), begun in zip(asked, spelling.longer([b.begun for b, _ in asked], texts), strict=True):
            beam.longer[token] = begun
        for beam in self.open:
            ends, before = spelling.whole(beam.begun), beam.begun.score
            beam.following = [
                (token, logprob, worth + (ends if token == self.eos else beam.longer[token].score) - before)
                for token, logprob, worth in beam.following or ()
            ]

    def _step(self) -> None:
        beams, penalty = self.options.beam_size, self.options.length_penalty
        candidates = [
            (beam.total + logprob + worth, logprob, beam, token)
            for beam in self.open
            for token, logprob, worth in beam.following or ()
        ]
        following: list[_Node] = []
        for rank, (total, logprob, parent, token) in enumerate(
            heapq.nlargest(2 * beams, candidates, key=lambda candidate: candidate[0])
        ):
            node = parent.read.get(token) or _Node(token, depth=parent.depth + 1, parent=parent)
            node.logprob, node.total, node.begun = logprob, total, parent.longer.get(token, node.begun)
            if token == self.eos or node.depth >= self.prompt.limit:
                if rank < beams:  # candidates beyond the K best only keep the beams open
                    self.finished.append((total / node.depth**penalty, node))
            elif len(following) < beams:
                following.append(node)
        self.finished = sorted(self.finished, key=lambda pair: -pair[0])[:beams]
        self.done = not following or self._settled(following[0])
        self.open = following

    def _settled(self, best: _Node) -> bool:
        if len(self.finished) < self.options.beam_size:
            return False
        reachable = best.total / best.depth**self.options.length_penalty
        return self.options.beam_size == 1 or reachable <= self.finished[-1][0]


# ---- all rows --------------------------------------------------------------------------------


class Search:
    """Decodes prompts as they come, at most `width` at a time.

    Attributes:
        passes: how often the LLM has been run.
        positions: how many positions it has read.

    Raises:
        ConfigError: more beams than the vocabulary has words for.
    """

    def __init__(self, model: OmniAVSR, options: DecodeOptions) -> None:
        self.tokenizer, self.adapters, self.llm = model.tokenizer, model.adapters, model.llm
        self.options = options
        if 2 * options.beam_size > len(self.tokenizer):
            raise ConfigError(
                f"beam_size = {options.beam_size}: at most {len(self.tokenizer) // 2} with this vocabulary"
            )
        self.hotwords = Hotwords(options.hotwords, self.tokenizer.encode) if options.hotwords else None
        self.passes = self.positions = 0

    @torch.inference_mode()
    def run(self, prompts: Iterable[Prompt], width: int | None = None) -> Iterator[tuple[int, Hypothesis]]:
        """The number of each prompt and what is said, as the rows become ready.

        Args:
            prompts: may be lazy: the next one is taken when a row has left.
            width: rows in a pass; None = all.
        """
        waiting = enumerate(prompts)
        memory, live = Memory(), list[_Row]()
        while True:
            room = None if width is None else width - len(live)
            live += [_Row(i, prompt, self.tokenizer.eos_id, self.options) for i, prompt in islice(waiting, room)]
            if not live:
                return
            self._read(live, memory)
            for row in live:
                row.advance()
            yield from ((row.index, self._hypothesis(row)) for row in live if row.done)
            kept = [i for i, row in enumerate(live) if not row.done]
            if len(kept) < len(live):
                memory.keep(kept)
                live = [live[i] for i in kept]

    def _read(self, rows: Sequence[_Row], memory: Memory) -> None:
        """One pass of the LLM over what all rows want; their nodes learn what may follow them."""
        wanted = [row.wanted() for row in rows]
        tokens = torch.tensor([node.token for nodes in wanted for node in nodes], dtype=torch.long)
        new = self.llm.get_input_embeddings()(tokens.to(self.llm.device))
        pieces, positions, tasks, asked, starts, sees = list[Tensor](), list[int](), list[str](), list[int](), [], []
        for row, nodes, states in zip(rows, wanted, new.split([*map(len, wanted)]), strict=True):
            prefix, length = row.prompt.prefix, len(row.prompt.prefix)
            start, seen = row.place(nodes)
            starts.append(start)
            sees.append(seen)
            pieces += [states] if row.begun else [prefix, states]
            positions += [] if row.begun else range(length)
            asked += [] if row.begun else [len(positions) - 1]
            asked += range(len(positions), len(positions) + len(nodes))
            positions += [length + node.depth - 1 for node in nodes]
            tasks += [row.prompt.task] * (len(positions) - len(tasks))
        reading = Reading.of(memory, starts, sees, like=new)
        asking = [n for row, nodes in zip(rows, wanted, strict=True) for n in ([] if row.begun else [row.root]) + nodes]
        logprobs = self._logprobs(torch.cat(pieces), positions, tasks, asked, reading)
        for node, following in zip(asking, self._best(logprobs, asking), strict=True):
            node.following = following
        for row in rows:
            row.begun = True

    def _logprobs(
        self, states: Tensor, positions: Sequence[int], tasks: Sequence[str], asked: Sequence[int], reading: Reading
    ) -> Tensor:
        """(T, H) embeddings -> (asked, V) log-probabilities of what follows each position in `asked`."""
        self.passes += 1
        self.positions += len(positions)
        with self.adapters.use(tasks):
            out = self.llm.base_model(
                inputs_embeds=states[:, None],
                position_ids=torch.tensor(positions, device=states.device)[:, None],
                use_cache=False,
                reading=reading,
            )
        hidden = out.last_hidden_state[torch.tensor(asked, device=states.device), 0]
        return self.llm.get_output_embeddings()(hidden).float().log_softmax(-1)

    def _best(self, logprobs: Tensor, nodes: Sequence[_Node]) -> Iterator[list[_Following]]:
        """(nodes, V) -> for each node its 2 K best continuations."""
        worth = self._worth(logprobs, nodes)
        index = (logprobs + worth).topk(2 * self.options.beam_size).indices
        columns = index, logprobs.gather(1, index), worth.gather(1, index)
        return (list(zip(*row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True))

    def _worth(self, logprobs: Tensor, nodes: Sequence[_Node]) -> Tensor:
        """(nodes, V): what hot words add to the log-probabilities."""
        if self.hotwords is None:
            return logprobs.new_zeros(1, 1).expand_as(logprobs)
        worth = torch.empty_like(logprobs)
        for row, node in zip(worth, nodes, strict=True):
            usual, others = self.hotwords.worth([n.token for n in node.path()])
            row.fill_(usual)
            row[list(others)] = row.new_tensor(list(others.values()))
        return worth

    def _chosen(self, row: _Row) -> _Node:
        """The best finished beam; where CTC heads were asked, that with the fewest wrong words to be expected.

        Minimum Bayes risk (Goel and Byrne, 2000) over the finished beams: a word on which many of them agree is
        believed more than the one text that is likeliest as a whole.
        """
        nodes = [node for _, node in row.finished]
        if row.prompt.spelling is None:
            return nodes[0]
        words = [self.tokenizer.decode([n.token for n in node.path() if n.token != row.eos]).split() for node in nodes]
        belief = (torch.tensor([node.total for node in nodes], dtype=torch.float64) * SHARPNESS).softmax(0)
        errors = torch.tensor([[Levenshtein.distance(one, other) for other in words] for one in words])
        return nodes[int((errors.double() @ belief).argmin())]

    def _hypothesis(self, row: _Row) -> Hypothesis:
        nodes = self._chosen(row).path()
        said = nodes[:-1] if nodes[-1].token == self.tokenizer.eos_id else nodes
        tokens = tuple(node.token for node in said)
        return Hypothesis(
            text=self.tokenizer.decode(tokens),
            tokens=tokens,
            token_logprobs=tuple(node.logprob for node in said),
            score=sum(node.logprob for node in nodes) / len(nodes),  # what hot words are worth is no evidence
        )
