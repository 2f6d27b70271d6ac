"""FairQueue: whose turn it is, among tenants with weights and priorities. It knows no clock and waits for nothing.

Within a priority, start-time fair queueing: each tenant has a virtual time, which advances by cost / weight when one of
its requests goes, and the tenant that is furthest behind goes next. One that was idle starts at the time of those that
were not: waiting saves nothing up. Costs are in tokens, as they are reserved; what was not used is given back, and the
tenant's time with it.

Between priorities the lower number goes first, but the longest wait of a priority's requests counts too: each
`ageing_s` seconds lift it by one, and of two that are level the longer wait goes first. So whatever is asked for with
high priority, a request waits at most some `ageing_s` a step of priority longer than it would among its equals.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from itertools import count
from math import floor

_MANY_FLOWS = 1024  # before those that are of no consequence are looked for


class Ticket:
    """One request that waits for its turn, or has had it."""

    __slots__ = ("arrival", "cost", "priority", "tenant", "weight")

    def __init__(
        self, tenant: str, cost: float, *, weight: float = 1.0, priority: int = 0, arrival: float = 0.0
    ) -> None:
        self.tenant = tenant
        self.cost = cost  # tokens that it may take; above 0
        self.weight = weight  # of its tenant
        self.priority = priority
        self.arrival = arrival  # seconds, on the caller's clock


class FairQueue:
    """Tickets in, tickets out in fair order. Every operation takes O(log tenants)."""

    def __init__(self, ageing_s: float = 5.0) -> None:
        self._ageing_s = ageing_s
        self._classes: dict[int, _Class] = {}
        self._num_waiting = 0

    def __len__(self) -> int:
        return self._num_waiting

    def push(self, ticket: Ticket) -> None:
        """Take a ticket in."""
        if ticket.priority not in self._classes:
            self._classes[ticket.priority] = _Class()
        self._classes[ticket.priority].push(ticket)
        self._num_waiting += 1

    def pop(self, now: float) -> Ticket | None:
        """Take out the ticket whose turn it is; None: there is none."""
        if not self._num_waiting:
            return None
        self._num_waiting -= 1
        return self._next_class(now).pop()

    def peek(self, now: float) -> Ticket | None:
        """Return the ticket that `pop` would take out."""
        return self._next_class(now).peek() if self._num_waiting else None

    def discard(self, ticket: Ticket) -> None:
        """Take out a ticket that does not wait any longer. Harmless when it has left."""
        if ticket.priority in self._classes and self._classes[ticket.priority].discard(ticket):
            self._num_waiting -= 1

    def settle(self, ticket: Ticket, used: float) -> None:
        """Say what a ticket that was popped really cost."""
        if ticket.priority in self._classes:
            self._classes[ticket.priority].settle(ticket, used)

    def cost_before(self, tenant: str, weight: float, priority: int) -> float:
        """Return the cost of all that would go before a ticket of this tenant that came now, were nobody else to come.

        Ageing is left out of it. O(waiting tenants).
        """
        before = sum(each.waiting_cost for level, each in self._classes.items() if level < priority)
        same = self._classes.get(priority)
        return before + (same.cost_before(tenant, weight) if same is not None else 0.0)

    def one_too_many(self, tenant: str, weight: float, priority: int) -> Ticket | None:
        """Return the ticket that is to go when there is room for no more: None where that is a newcomer of this tenant.

        The latest of the tenant that has the most waiting for its weight: a flood drives itself out.
        """
        leaves: Ticket | None = None
        most = 1 / weight
        if priority in self._classes:
            most += self._classes[priority].share_waiting(tenant, weight)
        for each in self._classes.values():
            share, latest = each.most_waiting()
            if latest is not None and share > most:
                leaves, most = latest, share
        return leaves

    def _next_class(self, now: float) -> _Class:
        waiting = [(level, each) for level, each in self._classes.items() if each.waiting]

        def place(item: tuple[int, _Class]) -> tuple[float, float]:
            level, each = item
            oldest = next(iter(each.waiting)).arrival
            return level - floor((now - oldest) / self._ageing_s), oldest

        return min(waiting, key=place)[1]


class _Flow:
    """What is known of one tenant."""

    __slots__ = ("tag", "version", "waiting", "waiting_cost", "weight")

    def __init__(self) -> None:
        self.tag = 0.0  # its virtual time: of what it has been served
        self.weight = 1.0
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()  # takes from the front and the middle at no cost
        self.waiting_cost = 0.0
        self.version = 0  # of its place in the heap


class _Class:
    """Fair order among the tenants of one priority."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()  # of all tenants, as they came
        self.waiting_cost = 0.0
        self._flows: dict[str, _Flow] = {}
        self._heap: list[tuple[float, int, int, str]] = []  # tag, order, version, tenant
        self._order = count()
        self._time = 0.0  # virtual: the tag of the tenant that was served last
        self._latest = 0.0  # of all tags
        self._many = _MANY_FLOWS

    def push(self, ticket: Ticket) -> None:
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            self._forget_idle()
            flow = self._flows[ticket.tenant] = _Flow()
        flow.weight = ticket.weight
        if not flow.waiting:
            flow.tag = max(flow.tag, self._time)
            self._place(ticket.tenant, flow)
        for waiting in (flow, self):
            waiting.waiting[ticket] = None
            waiting.waiting_cost += ticket.cost

    def peek(self) -> Ticket:
        return next(iter(self._first().waiting))

    def pop(self) -> Ticket:
        flow = self._first()
        ticket = next(iter(flow.waiting))
        self._time = max(self._time, flow.tag)
        self._remove(flow, ticket)
        self._advance(ticket, flow, ticket.cost)
        return ticket

    def discard(self, ticket: Ticket) -> bool:
        flow = self._flows.get(ticket.tenant)
        if flow is None or ticket not in flow.waiting:
            return False
        self._remove(flow, ticket)
        return True

    def settle(self, ticket: Ticket, used: float) -> None:
        flow = self._flows.get(ticket.tenant)
        if flow is not None and used != ticket.cost:  # one that is forgotten is where an idle tenant starts anyway
            self._advance(ticket, flow, used - ticket.cost)

    def cost_before(self, tenant: str, weight: float) -> float:
        own = self._flows.get(tenant)
        start = self._time
        if own is not None:
            start = max(start, own.tag) + own.waiting_cost / weight
        return sum(
            flow.waiting_cost if flow is own else min(flow.waiting_cost, max(0.0, (start - flow.tag) * flow.weight))
            for flow in self._active()
        )

    def share_waiting(self, tenant: str, weight: float) -> float:
        own = self._flows.get(tenant)
        return 0.0 if own is None else len(own.waiting) / weight

    def most_waiting(self) -> tuple[float, Ticket | None]:
        if not self.waiting:
            return 0.0, None
        flow = max(self._active(), key=lambda each: len(each.waiting) / each.weight)
        return len(flow.waiting) / flow.weight, next(reversed(flow.waiting))

    def _active(self) -> Iterator[_Flow]:
        return (flow for flow in self._flows.values() if flow.waiting)

    def _first(self) -> _Flow:
        while True:
            _, _, version, tenant = self._heap[0]
            flow = self._flows.get(tenant)
            if flow is not None and flow.waiting and flow.version == version:
                return flow
            heapq.heappop(self._heap)  # its place is another by now

    def _remove(self, flow: _Flow, ticket: Ticket) -> None:
        for waiting in (flow, self):
            del waiting.waiting[ticket]
            waiting.waiting_cost = waiting.waiting_cost - ticket.cost if waiting.waiting else 0.0

    def _advance(self, ticket: Ticket, flow: _Flow, cost: float) -> None:
        flow.tag += cost / ticket.weight
        self._latest = max(self._latest, flow.tag)
        if not self.waiting:  # nobody is behind anybody: those that come next start level
            self._time = self._latest
        if flow.waiting:
            self._place(ticket.tenant, flow)

    def _place(self, tenant: str, flow: _Flow) -> None:
        flow.version += 1
        heapq.heappush(self._heap, (flow.tag, next(self._order), flow.version, tenant))
        if len(self._heap) > 2 * len(self._flows) + 64:
            self._heap = [item for item in self._heap if self._is_current(item)]
            heapq.heapify(self._heap)

    def _is_current(self, item: tuple[float, int, int, str]) -> bool:
        flow = self._flows.get(item[3])
        return flow is not None and flow.version == item[2] and bool(flow.waiting)

    def _forget_idle(self) -> None:
        if len(self._flows) < self._many:
            return
        for tenant in [t for t, flow in self._flows.items() if not flow.waiting and flow.tag <= self._time]:
            del self._flows[tenant]
        self._many = _MANY_FLOWS + 2 * len(self._flows)
