"""From the responses of a remote task to events of ours: each word once, and none lost in silence.

Always true: pure; there are two views of each artifact, what the agent says that it holds and what
our readers were given, and readers are only ever given what goes on where theirs ends; what
contradicts it takes back the open step, or, where the stream was cut, waits for the whole task.
"""

from __future__ import annotations

from typing import Any

from tokenwire.agents.a2a.failures import protocol_error
from tokenwire.agents.a2a.slots import (
    MOST_ARTIFACTS,
    MOST_TEXT,
    Artifact,
    Slot,
    data_id,
    file_key,
)
from tokenwire.agents.a2a.task import Question, Status, words_of
from tokenwire.agents.a2a.writer import Writer
from tokenwire.errors import LimitError
from tokenwire.events import model as m

__all__ = ["Reading"]


class Reading:
    """One remote task over all turns of a run. ``events``: what an earlier worker recorded."""

    def __init__(self, events: list[m.Event]) -> None:
        self.status = Status()
        self.writer = Writer()
        #: What the agent says, and what readers have.
        self._remote: dict[str, Artifact] = {}
        self._output: dict[str, Artifact] = {}
        #: Artifacts of which readers have not all, or more, than the agent's view holds.
        self._behind: set[str] = set()
        self._sent_data: dict[str, Any] = {}
        self._size = 0
        #: A stream was cut, so that responses may be missing; and one did not fit what was said.
        self.was_cut = False
        self.is_suspect = False
        #: The question that was answered last: a task that still shows it asks nothing new.
        self.answered_key = ""
        #: The answer is a message, without a task.
        self.is_message = False
        self._restore(events)

    # --- what the loop around it asks ------------------------------------------------------------

    @property
    def question(self) -> Question | None:
        """What the task waits for, unless that was answered."""
        question = self.status.question
        return question if question is not None and question.key != self.answered_key else None

    @property
    def is_settled(self) -> bool:
        """Whether the task has ended or asks."""
        return self.is_message or self.status.has_ended or self.question is not None

    @property
    def needs_check(self) -> bool:
        """Whether the whole task must be compared with what was said."""
        in_doubt = self.was_cut or self.is_suspect or bool(self._behind)
        return in_doubt and not self.is_message

    def cut(self) -> None:
        """The stream ended before the task did."""
        self.was_cut = True

    # --- responses -------------------------------------------------------------------------------

    def take(self, response: dict[str, Any]) -> list[m.Event]:
        """One stream response. Raises `ProtocolError`, `LimitError`."""
        for kind in ("task", "message", "statusUpdate", "artifactUpdate"):
            value = response.get(kind)
            if value is None:
                continue
            if not isinstance(value, dict):
                break
            if kind == "task":
                return self.task(value)
            if kind == "message":
                return self._message(value)
            self.status.name(value, "taskId")
            if kind == "statusUpdate":
                return self._status(value.get("status"), value.get("metadata"))
            return [] if self.status.has_ended else self._update(value)
        raise protocol_error("the remote agent sent a response that is none of A2A's")

    def task(self, task: dict[str, Any]) -> list[m.Event]:
        """The task as it is now. Raises `ProtocolError`."""
        self.status.name(task, "id")
        self._replace_all(task.get("artifacts"))
        events: list[m.Event] = []
        for artifact in list(self._remote.values()):
            events += self._sync(artifact, is_sure=not self.was_cut)
        return [*events, *self._status(task.get("status"), task.get("metadata"))]

    def check(self, task: dict[str, Any]) -> tuple[list[m.Event], bool]:
        """Compare the whole ``task`` with what was said after a cut; the events that make it whole,
        and whether nothing is in doubt: False where the agent has no more what readers have."""
        self.status.name(task, "id")
        has_gap = self.was_cut or self.is_suspect
        self.is_suspect = False
        self._replace_all(task.get("artifacts"))
        events = self._status(task.get("status"), task.get("metadata"))
        absent = [n for n, a in self._output.items() if a.size and n not in self._remote]
        if absent and has_gap:
            return events, False
        for name in absent:  # the agent emptied it, and does not list it any more
            self._remote[name] = Artifact(name)
        for artifact in list(self._remote.values()):
            events += self._sync(artifact, is_sure=True, is_final=self.status.has_ended)
        self.was_cut = False
        return events, True

    # --- status and messages ---------------------------------------------------------------------

    def _status(self, status: Any, metadata: Any) -> list[m.Event]:
        if not self.status.apply(status, metadata):
            return []
        state, message = self.status.state, self.status.message
        if message is None:
            return []
        if state == "COMPLETED":
            return self._last_words(message)
        words = words_of(message)
        if state in ("WORKING", "SUBMITTED") and words:
            return [m.RunProgress(message=words)]
        return []

    def _last_words(self, message: dict[str, Any]) -> list[m.Event]:
        """The message of a completed task: part of the answer, unless an artifact says the same."""
        name = message.get("messageId")
        name = f"message-{name[:200] if isinstance(name, str) else ''}"
        artifact = Artifact(name)
        artifact.add(message.get("parts"))
        texts = {a.text.strip() for a in self._remote.values()}
        if artifact.text.strip() in texts | {""} and not artifact.data:
            artifact.slots = [s for s in artifact.slots if s.kind != "text"]
        self._remote[name] = artifact
        return self._sync(artifact, is_sure=True)

    def _message(self, message: dict[str, Any]) -> list[m.Event]:
        if self.status.task:
            raise protocol_error("the remote agent sent a message in place of its task's state")
        self.is_message = True
        return self._last_words(message)

    # --- artifacts -------------------------------------------------------------------------------

    def _update(self, update: dict[str, Any]) -> list[m.Event]:
        value = update.get("artifact")
        if not isinstance(value, dict) or not isinstance(value.get("artifactId"), str):
            raise protocol_error("the remote agent sent an artifact without its id")
        name = value["artifactId"]
        artifact = self._remote.get(name)
        appends = update.get("append") is True
        if appends and (artifact is None or artifact.is_last):
            self.is_suspect = True  # a piece is missing, or comes after the last one
        if artifact is not None and appends:
            additions = artifact.add(value.get("parts"))
            artifact.is_last = artifact.is_last or update.get("lastChunk") is True
            self._count(additions)
            if name in self._behind or (self.is_suspect and self.was_cut):
                return self._sync(artifact, is_sure=not self.was_cut)
            return [*self._append(artifact, additions), *self._data(artifact)]
        artifact = self._replaced(value)
        artifact.is_last = update.get("lastChunk") is True
        is_whole = not appends
        return self._sync(artifact, is_sure=is_whole or not self.was_cut)

    def _replaced(self, value: Any) -> Artifact:
        if not isinstance(value, dict) or not isinstance(value.get("artifactId"), str):
            raise protocol_error("the remote agent sent an artifact without its id")
        name = value["artifactId"]
        title = value.get("name")
        artifact = Artifact(name, title[:200] if isinstance(title, str) else "")
        self._count(artifact.add(value.get("parts")))
        self._remote[name] = artifact
        if len(self._remote) > MOST_ARTIFACTS:
            raise LimitError(
                "the remote task has too many artifacts", limit="artifacts", most=MOST_ARTIFACTS
            )
        return artifact

    def _replace_all(self, artifacts: Any) -> None:
        """The artifacts of a task that came whole; what it does not have, the agent may have lost,
        or it begins to tell it again."""
        self._size = 0
        values = artifacts if isinstance(artifacts, list) else []
        messages = {n: a for n, a in self._remote.items() if n.startswith("message-")}
        self._remote = messages
        for value in values:
            self._replaced(value)
        for name in self._output:
            if name not in self._remote:
                self._behind.add(name)

    def _count(self, additions: list[Slot | str]) -> None:
        for piece in additions:
            text = piece if isinstance(piece, str) else piece.content.get("raw", "")
            self._size += len(text) if isinstance(piece, str) else piece.size + len(text)
        if self._size > MOST_TEXT:
            raise LimitError("the remote task is too long", limit="artifact_text", most=MOST_TEXT)

    def _append(self, artifact: Artifact, additions: list[Slot | str]) -> list[m.Event]:
        """What is new, where readers have all that was before."""
        output = self._output.setdefault(artifact.id, Artifact(artifact.id))
        events: list[m.Event] = []
        for piece in additions:
            if isinstance(piece, str):
                events += self.writer.more(output, piece)
            else:
                events += self.writer.begin(output, piece)
        return events

    def _sync(self, artifact: Artifact, *, is_sure: bool, is_final: bool = False) -> list[m.Event]:
        """Give readers what they miss of an artifact. ``is_sure``: the agent's view has no gap;
        ``is_final``: and says all that there is."""
        if self.is_suspect and not is_sure:
            return []
        output = self._output.setdefault(artifact.id, Artifact(artifact.id))
        if artifact.id in self._behind and artifact.size < output.size and not is_final:
            return []  # not worth a look at every piece
        missing = _missing(output.slots, artifact.slots)
        if missing is None:
            if not is_sure:
                self.is_suspect = True
                return []
            return self._rewrite()
        if missing < 0:
            if is_final:
                return self._rewrite()
            self._behind.add(artifact.id)
            return []
        self._behind.discard(artifact.id)
        return [*self._fill(output, artifact), *self._data(artifact)]

    def _fill(self, output: Artifact, artifact: Artifact) -> list[m.Event]:
        events: list[m.Event] = []
        for number, slot in enumerate(artifact.slots):
            if number >= len(output.slots):
                events += self.writer.begin(output, slot)
            elif slot.kind == "text" and slot.size > output.slots[number].size:
                events += self.writer.more(output, slot.text[output.slots[number].size :])
        return events

    def _rewrite(self) -> list[m.Event]:
        """Take back the open step, and say what the agent holds now."""
        events = self.writer.take_back(self._output)
        self._behind.clear()
        for artifact in self._remote.values():
            output = self._output.setdefault(artifact.id, Artifact(artifact.id))
            if (_missing(output.slots, artifact.slots) or 0) < 0:
                self._behind.add(artifact.id)
            elif _missing(output.slots, artifact.slots) is None:
                # Of an earlier step, which stays: the new words stand beside the old ones.
                output.slots = []
                events += self._fill(output, artifact)
            else:
                events += self._fill(output, artifact)
            events += self._data(artifact)
        return events

    def _data(self, artifact: Artifact) -> list[m.Event]:
        events: list[m.Event] = []
        for number, value in enumerate(artifact.data.values()):
            name = data_id(artifact.id, number)[:256]
            if name in self._sent_data and self._sent_data[name] == value:
                continue
            self._sent_data[name] = value
            title = (artifact.name or artifact.id or "data")[:256]
            events.append(m.Data(name=title, payload=value, id=name))
        return events

    # --- after a takeover ------------------------------------------------------------------------

    def _restore(self, events: list[m.Event]) -> None:
        """What readers were given, from the log."""
        slots: dict[int, Slot] = {}
        for event in events:
            if isinstance(event, m.PartStart):
                place = (event.meta or {}).get("a2a")
                if isinstance(place, dict):
                    slots[event.part] = self._restored(event, place)
            elif isinstance(event, m.TextDelta) and event.part in slots:
                slots[event.part].add(event.text)
            elif isinstance(event, m.FileDelta) and event.part in slots:
                slots[event.part].content["raw"] = event.text
            elif isinstance(event, m.StepReset):
                discarded = set(event.discard_parts)
                for artifact in self._output.values():
                    artifact.slots = [s for s in artifact.slots if s.part not in discarded]
                for part in discarded:
                    slots.pop(part, None)
            elif isinstance(event, m.Data) and event.id is not None:
                self._sent_data[event.id] = event.payload
            self.writer.restore(event, slots)
        for slot in slots.values():
            if slot.kind == "file":
                slot.key = file_key(slot.content)
        self.was_cut = bool(events)

    def _restored(self, event: m.PartStart, place: dict[str, Any]) -> Slot:
        name = str(place.get("artifact", ""))
        output = self._output.setdefault(name, Artifact(name))
        if place.get("more") and output.slots and output.slots[-1].kind == "text":
            slot = output.slots[-1]  # a text that went on in another step
            slot.part, slot.step, slot.is_open = event.part, event.step, True
            return slot
        slot = Slot("text", part=event.part, step=event.step, is_open=True)
        if isinstance(event, m.FileStart):
            content = {"url": event.url, "mediaType": event.media_type, "filename": event.name}
            slot = Slot("file", part=event.part, step=event.step)
            slot.content = {n: v for n, v in content.items() if v}
        output.slots.append(slot)
        return slot


def _missing(output: list[Slot], remote: list[Slot]) -> int | None:
    """How many slots of ``remote`` readers do not have whole; negative where it is they who have
    more, and None where the two contradict each other."""
    more = less = 0
    for number in range(max(len(output), len(remote))):
        if number >= len(output):
            more += 1
        elif number >= len(remote):
            less += 1
        elif output[number].kind != remote[number].kind:
            return None
        elif output[number].kind == "file":
            if output[number].key != remote[number].key:
                return None
        else:
            a, b = output[number], remote[number]
            is_last = number + 1 >= len(output) if b.size > a.size else number + 1 >= len(remote)
            if a.size == b.size:
                if a.text != b.text:
                    return None
            elif not is_last or not _begins(a, b):
                return None
            else:
                more += b.size > a.size
                less += a.size > b.size
    return None if more and less else more - less


def _begins(a: Slot, b: Slot) -> bool:
    short, long = (a, b) if a.size < b.size else (b, a)
    return long.text.startswith(short.text)
