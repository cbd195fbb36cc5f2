"""A Python client of a tokenwire server: start, control and follow runs, also across cuts.

::

    from tokenwire.client import Client

    async with Client("http://127.0.0.1:8765") as client:
        run = await client.start("Hello")
        async for event in client.follow(run.id):
            ...
"""

from tokenwire.client.commands import Client, Model
from tokenwire.client.members import Invite, Member, MemberList
from tokenwire.client.produce import RemoteRun, produce
from tokenwire.client.reconnect import Patience
from tokenwire.client.requests import RunInfo
from tokenwire.client.stream import Follow
from tokenwire.client.thread import QueuedTurn, SentTurn, Thread, Turn, TurnPage, TurnQueue
from tokenwire.client.thread_events import ThreadEvent, ThreadEvents
from tokenwire.client.thread_list import ListEvent, ListEvents, ThreadEntry
from tokenwire.client.waiting import ApprovalLink, Waiting, WaitingPage
from tokenwire.relay.conversation.errors import HistoryConflictError, ThreadBusyError

__all__ = [
    "ApprovalLink",
    "Client",
    "Follow",
    "HistoryConflictError",
    "Invite",
    "ListEvent",
    "ListEvents",
    "Member",
    "MemberList",
    "Model",
    "Patience",
    "QueuedTurn",
    "RemoteRun",
    "RunInfo",
    "SentTurn",
    "Thread",
    "ThreadBusyError",
    "ThreadEntry",
    "ThreadEvent",
    "ThreadEvents",
    "Turn",
    "TurnPage",
    "TurnQueue",
    "Waiting",
    "WaitingPage",
    "produce",
]
