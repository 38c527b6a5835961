"""A tab of a browser, and what it is told of a prompt."""

import asyncio
import json

import aiohttp


class Client:
    """A tab of a browser. `until(event)` gives the raw messages up to one of that type, `run` those of a whole prompt."""

    def __init__(self, server, id):
        self.server, self.id = server, id

    async def __aenter__(self):
        self.session = aiohttp.ClientSession()
        self.socket = await self.session.ws_connect(f"{self.server.url}/ws?clientId={self.id}")
        return self

    async def __aexit__(self, *_):
        await self.session.close()

    async def queue(self, prompt, **more):
        await asyncio.to_thread(self.server.post, "/prompt", {"prompt": prompt, "client_id": self.id, **more})

    async def run(self, prompt, **more):
        await self.queue(prompt, **more)
        return await self.until("execution_success")

    async def until(self, event):
        messages = []
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                messages.append(message.data)
                if parsed(message.data)["type"] == event:
                    return messages
        raise AssertionError(f"The socket closed before {event}.")


def parsed(message):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(message, parse_constant=refuse)


def heard(server, prompt):
    """The messages that a tab gets of a prompt."""

    async def scenario():
        async with Client(server, "tab") as tab:
            return await tab.run(prompt)

    return asyncio.run(scenario())
