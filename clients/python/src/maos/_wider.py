"""What the API has beside tasks and agents, in the order of `docs/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, cast

from ._wire import JSON, Wire, escaped, given, query

# Copying or expanding the largest state, on top of the usual patience.
_WORK_SECONDS = 1_800.0


class Wider(Wire):
    """Resources, pools, schedules, checkpoints, keys, mailboxes and subscriptions."""

    # ---- resources ------------------------------------------------------------------------------

    async def create_resource(
        self, resource_type: str, name: str, capacity: float, **more: Any
    ) -> JSON:
        """Declare a pool of `cpu`, `memory`, `disk`, `network`, `gpu` or `custom`.

        `more` are `unit`, `location`, `cost_per_unit`, `minimum_allocation`, `maximum_allocation`,
        `metadata` and `tags`.
        """
        body = given(resource_type=resource_type, name=name, capacity=capacity, **more)
        return await self._json("POST", "/api/v1/resources", body)

    async def list_resources(self) -> JSON:
        """List the resources, with what is allocated and free of each."""
        return await self._json("GET", "/api/v1/resources")

    async def get_resource(self, resource_id: str) -> JSON:
        """Look at a resource."""
        return await self._json("GET", f"/api/v1/resources/{escaped(resource_id)}")

    async def change_resource(self, resource_id: str, **changes: Any) -> JSON:
        """Change fields of a resource; the others stay."""
        return await self._json("PATCH", f"/api/v1/resources/{escaped(resource_id)}", changes)

    async def delete_resource(self, resource_id: str) -> JSON:
        """Take a resource away that was declared through the API."""
        return await self._json("DELETE", f"/api/v1/resources/{escaped(resource_id)}")

    async def allocate_resources(
        self,
        requester_id: str,
        resources: Mapping[str, float],
        lease_seconds: Optional[int] = None,
    ) -> JSON:
        """Reserve amounts by kind, such as `{"cpu_cores": 2}`, until the lease is over."""
        body = given(
            requester_id=requester_id, resources=dict(resources), lease_seconds=lease_seconds
        )
        return await self._json("POST", "/api/v1/resources/allocate", body)

    async def list_allocations(self) -> JSON:
        """List the reservations."""
        return await self._json("GET", "/api/v1/resources/allocations")

    async def release_resources(self, requester_id: str) -> JSON:
        """Give everything back that a requester has reserved."""
        return await self._json("DELETE", f"/api/v1/resources/allocations/{escaped(requester_id)}")

    # ---- pools ----------------------------------------------------------------------------------

    async def list_pools(self) -> JSON:
        """List the pools of agents that scale."""
        return await self._json("GET", "/api/v1/pools")

    async def get_pool(self, name: str) -> JSON:
        """Look at a pool, and at why its size was changed last."""
        return await self._json("GET", f"/api/v1/pools/{escaped(name)}")

    async def change_pool(self, name: str, **changes: int) -> JSON:
        """Change what holds for a pool: fields as `docs/pools.md` says; the others stay."""
        return await self._json("PUT", f"/api/v1/pools/{escaped(name)}", changes)

    async def get_pool_demand(self, name: str) -> int:
        """Ask how many agents a pool should have."""
        demand = await self._call("GET", f"/api/v1/pools/{escaped(name)}/demand")
        return cast(int, demand)

    # ---- schedules ------------------------------------------------------------------------------

    async def create_schedule(self, name: str, task: Mapping[str, Any], **when: Any) -> JSON:
        """Have a task submitted again and again.

        `when` is `cron` with an optional `timezone`, or `every_seconds`; and `missed`, `overlap`
        and `paused` as `docs/schedules.md` says.
        """
        return await self._json(
            "POST", "/api/v1/schedules", given(name=name, task=dict(task), **when)
        )

    async def list_schedules(self) -> JSON:
        """List the schedules."""
        return await self._json("GET", "/api/v1/schedules")

    async def get_schedule(self, schedule_id: str) -> JSON:
        """Look at a schedule."""
        return await self._json("GET", f"/api/v1/schedules/{escaped(schedule_id)}")

    async def pause_schedule(self, schedule_id: str, paused: bool = True) -> JSON:
        """Have it submit nothing for now; with `paused=False` go on."""
        path = f"/api/v1/schedules/{escaped(schedule_id)}"
        return await self._json("PATCH", path, {"paused": paused})

    async def delete_schedule(self, schedule_id: str) -> JSON:
        """End a schedule; what it has submitted stays."""
        return await self._json("DELETE", f"/api/v1/schedules/{escaped(schedule_id)}")

    # ---- checkpoints ----------------------------------------------------------------------------

    async def create_checkpoint(
        self, name: Optional[str] = None, metadata: Optional[Mapping[str, Any]] = None
    ) -> JSON:
        """Keep the state as it is now. That may take up to half an hour."""
        body = given(name=name, metadata=metadata)
        return await self._json("POST", "/api/v1/checkpoints", body, _WORK_SECONDS)

    async def list_checkpoints(self) -> JSON:
        """List the checkpoints, the oldest first."""
        return await self._json("GET", "/api/v1/checkpoints")

    async def get_checkpoint(self, checkpoint_id: str) -> JSON:
        """Look at a checkpoint."""
        return await self._json("GET", f"/api/v1/checkpoints/{escaped(checkpoint_id)}")

    async def restore_checkpoint(self, checkpoint_id: str) -> JSON:
        """Go back to it; the state until now becomes one too, which the answer names."""
        path = f"/api/v1/checkpoints/{escaped(checkpoint_id)}/restore"
        return await self._json("PUT", path, None, _WORK_SECONDS)

    async def delete_checkpoint(self, checkpoint_id: str) -> JSON:
        """Delete a checkpoint."""
        return await self._json("DELETE", f"/api/v1/checkpoints/{escaped(checkpoint_id)}")

    # ---- keys -----------------------------------------------------------------------------------

    async def list_keys(self) -> JSON:
        """List the limits by `concurrency_key` and the weights by `fairness_key`."""
        return await self._json("GET", "/api/v1/keys")

    async def set_limit(
        self,
        concurrency_key: str,
        running_max: Optional[int] = None,
        starts_per_minute: Optional[int] = None,
    ) -> JSON:
        """Say how many tasks with a key run at once, and how many start in a minute."""
        body = given(running_max=running_max, starts_per_minute=starts_per_minute)
        return await self._json("PUT", f"/api/v1/keys/concurrency/{escaped(concurrency_key)}", body)

    async def unset_limit(self, concurrency_key: str) -> JSON:
        """Go back to one at a time."""
        return await self._json("DELETE", f"/api/v1/keys/concurrency/{escaped(concurrency_key)}")

    async def set_weight(self, fairness_key: str, weight: int) -> JSON:
        """Say how large a submitter's share is beside the others'."""
        path = f"/api/v1/keys/fairness/{escaped(fairness_key)}"
        return await self._json("PUT", path, {"weight": weight})

    async def unset_weight(self, fairness_key: str) -> JSON:
        """Go back to a weight of one."""
        return await self._json("DELETE", f"/api/v1/keys/fairness/{escaped(fairness_key)}")

    # ---- messages -------------------------------------------------------------------------------

    async def send_message(
        self,
        to: Mapping[str, Any],
        body: Any,
        *,
        idempotency_key: Optional[str] = None,
        **more: Any,
    ) -> JSON:
        """Send a message to `{"agent": id}`, `{"task": id}`, `{"topic": name}` or `{"all": True}`.

        `more` are further fields, such as `sender`, `kind`, `reply_to` and `ttl_seconds`.
        """
        message = {"to": dict(to), "body": body, **given(**more)}
        return await self._submit("/api/v1/messages", message, idempotency_key)

    async def read_messages(
        self,
        mailbox: str,
        reader: Optional[str] = None,
        offset: Optional[int] = None,
        limit: Optional[int] = None,
        wait_seconds: Optional[int] = None,
    ) -> JSON:
        """Read a mailbox: behind what the reader has acknowledged, or from an offset on."""
        asked = query(
            {
                "mailbox": mailbox,
                "reader": reader,
                "offset": offset,
                "limit": limit,
                "wait_seconds": wait_seconds,
            }
        )
        return await self._call("GET", "/api/v1/messages", query=asked)

    async def acknowledge_messages(
        self, mailbox: str, offset: int, reader: Optional[str] = None
    ) -> JSON:
        """Say that everything up to a message was handled."""
        body = given(mailbox=mailbox, offset=offset, reader=reader)
        return await self._json("POST", "/api/v1/messages/ack", body)

    async def list_mailboxes(
        self,
        prefix: Optional[str] = None,
        after: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> JSON:
        """List a page of the mailboxes that hold something; go on `after` the last one."""
        asked = query({"prefix": prefix, "after": after, "limit": limit})
        return await self._call("GET", "/api/v1/messages/mailboxes", query=asked)

    async def set_subscription(
        self,
        name: str,
        mailbox: str,
        url: str,
        secret: Optional[str] = None,
        from_offset: Optional[int] = None,
    ) -> JSON:
        """Have the messages of a mailbox sent to a URL, signed (`docs/messages.md`)."""
        body = given(mailbox=mailbox, url=url, secret=secret, from_offset=from_offset)
        path = f"/api/v1/messages/subscriptions/{escaped(name)}"
        return await self._json("PUT", path, body)

    async def list_subscriptions(self) -> JSON:
        """List the subscriptions."""
        return await self._json("GET", "/api/v1/messages/subscriptions")

    async def get_subscription(self, name: str) -> JSON:
        """Look at a subscription."""
        return await self._json("GET", f"/api/v1/messages/subscriptions/{escaped(name)}")

    async def replay_subscription(self, name: str) -> JSON:
        """Send again what was given up."""
        return await self._json("POST", f"/api/v1/messages/subscriptions/{escaped(name)}/replay")

    async def end_subscription(self, name: str) -> JSON:
        """End a subscription."""
        return await self._json("DELETE", f"/api/v1/messages/subscriptions/{escaped(name)}")

    async def _json(
        self, method: str, path: str, body: Any = None, more_seconds: float = 0.0
    ) -> JSON:
        # What makes something new would make it twice.
        again = method != "POST"
        return await self._call(method, path, body=body, again=again, more_seconds=more_seconds)
