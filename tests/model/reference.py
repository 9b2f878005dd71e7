"""The store as a plain-Python model: what PROTOCOL.md §5 says, in dictionaries, without disks, threads or commits.

A refusal is given by the name of its class. Sliding TTLs are known exactly while a store stays open; opening it again
may give back what a crash could have taken, so after that the model says ``None``: either is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

JSON = "application/json"


@dataclass
class ModelStream:
    content_type: str
    ttl: int | None
    expires_at: float | None
    touched: float
    content: bytes = b""
    ends: list[int] = field(default_factory=list)
    """Where the messages of a JSON stream end."""
    first: int = 0
    closed: bool = False
    last_seq: str | None = None
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    certain_until: float = 0.0
    grace: float = 0.0

    def alive(self, now: float) -> bool | None:
        """Whether the stream has not expired; None if that depends on what a reopening gave back."""
        if self.expires_at is not None:
            return now < self.expires_at
        if self.ttl is None:
            return True
        if self.grace:
            return True if now < self.certain_until else None if now < self.touched + self.grace + self.ttl else False
        return now < self.touched + self.ttl

    def use(self, now: float) -> None:
        self.touched, self.grace = max(self.touched, now), 0.0

    def reopened(self, crashed: bool, last_commit: float) -> None:
        """After a crash, only commits of the stream itself are sure to have renewed it."""
        if self.ttl is not None:
            sure = last_commit if crashed else self.touched
            self.certain_until = (
                min(self.certain_until or sure + self.ttl, sure + self.ttl) if self.grace else sure + self.ttl
            )
            self.grace += max(self.ttl / 8, 60.0)


@dataclass
class Claim:
    producer: tuple[str, int, int] | None = None
    seq: str | None = None
    close: bool = False


@dataclass
class Outcome:
    """What an append has to return; or the name of what it has to raise."""

    offset: int = 0
    next_offset: int = 0
    duplicate: bool = False
    closed: bool = False
    producer_seq: int | None = None
    refusal: str | None = None


def append(stream: ModelStream, data: bytes, ends: list[int], claim: Claim) -> Outcome:
    """Append to the model; ``ends`` are the ends of messages within ``data``."""
    tail = len(stream.content)
    known = stream.producers.get(claim.producer[0]) if claim.producer else None
    if claim.producer and known and claim.producer[1] == known[0] and claim.producer[2] <= known[1]:
        return Outcome(tail, tail, True, stream.closed, known[1])
    refusal = _refusal(stream, data, claim, known)
    if refusal == "closed already":
        return Outcome(tail, tail, True, True)
    if refusal is not None:
        return Outcome(refusal=refusal)
    if claim.producer:
        stream.producers[claim.producer[0]] = claim.producer[1:]
    if claim.seq is not None:
        stream.last_seq = claim.seq
    stream.closed = stream.closed or claim.close
    stream.ends += [tail + end for end in ends]
    stream.content += data
    return Outcome(tail, len(stream.content), False, stream.closed, claim.producer[2] if claim.producer else None)


def _refusal(stream: ModelStream, data: bytes, claim: Claim, known: tuple[int, int] | None) -> str | None:
    if stream.closed:
        return "closed already" if claim.close and not data and not claim.producer else "StreamClosed"
    if claim.producer:
        _name, epoch, seq = claim.producer
        if known is None:
            if seq:
                return "SequenceGap"
        elif epoch < known[0]:
            return "StaleEpoch"
        elif epoch == known[0]:
            if seq != known[1] + 1:
                return "SequenceGap"
        elif seq:
            return "InvalidProducer"
    if claim.seq is not None and stream.last_seq is not None and claim.seq.encode() <= stream.last_seq.encode():
        return "SequenceConflict"
    return None
