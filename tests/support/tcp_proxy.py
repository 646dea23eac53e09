"""A TCP proxy that can be cut: the network between somebody and a server, or a service in front of several.

    proxy = Proxy([port, …]).start()
    proxy.port           its own, on 127.0.0.1
    proxy.ports          the local ports of its connections to the servers, also of those that have ended
    proxy.passed         bytes that came from the servers
    proxy.cut()          as a network that is torn: what is open stays open and silent; a new connection hears nothing
    proxy.refuse()       as a server that is down: what is open is closed, and a new connection at once
    proxy.mend()         it passes on again, also what was sent meanwhile
    proxy.cut_after(N)   cut it when the servers have sent N bytes more; proxy.was_cut: an event
    proxy.point([port])  new connections go there; what is open is closed
    proxy.stop()

Of several servers each new connection has any that can be connected to.
"""

import asyncio
import contextlib
import random
import threading

PIECE = 1 << 16


class Proxy:
    def __init__(self, targets, port=0):
        self.targets, self.port = list(targets), port
        self.ports, self.writers = frozenset(), set()
        self.passed, self.limit, self.was_cut = 0, None, threading.Event()

    def start(self):
        self.loop = asyncio.new_event_loop()
        self.flows, self.refuses = asyncio.Event(), False
        self.flows.set()
        self.server = self.loop.run_until_complete(
            asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=1024)
        )
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def do(self, function):
        """In the loop's thread, to its end."""

        async def call():
            function()

        asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def close_all(self):
        for writer in list(self.writers):
            writer.transport.abort()

    def cut(self):
        self.do(self.flows.clear)

    def cut_after(self, count):
        self.was_cut.clear()
        self.limit = self.passed + count

    def refuse(self):
        def refuse():
            self.refuses = True
            self.flows.set()
            self.close_all()

        self.do(refuse)

    def mend(self):
        def mend():
            self.refuses = False
            self.flows.set()

        self.do(mend)

    def point(self, targets):
        def point():
            self.targets = list(targets)
            self.close_all()

        self.do(point)

    def stop(self):
        if not self.loop.is_running():
            return

        async def end():
            self.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=5)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    # ---- in the loop's thread ----

    async def serve(self, reader, writer):
        self.writers.add(writer)
        out = None
        try:
            await self.flows.wait()
            if self.refuses:
                return
            back, out = await self.connect()
            if not out:
                return
            self.writers.add(out)
            pumps = [asyncio.ensure_future(self.pump(*pair)) for pair in ((reader, out, False), (back, writer, True))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            for pump in pumps:
                pump.cancel()
        finally:
            for end in filter(None, (writer, out)):
                self.writers.discard(end)
                with contextlib.suppress(OSError, RuntimeError):
                    end.close()

    async def connect(self):
        for target in random.sample(self.targets, len(self.targets)):
            with contextlib.suppress(OSError):
                back, out = await asyncio.open_connection("127.0.0.1", target)
                self.ports |= {out.get_extra_info("sockname")[1]}
                return back, out
        return None, None

    async def pump(self, reader, writer, answers):
        """Until the end of what is read, which is passed on; an error ends the other direction, too."""
        while data := await reader.read(PIECE):
            self.passed += len(data) * answers
            if answers and self.limit is not None and self.passed >= self.limit:
                self.limit = None
                self.flows.clear()
                self.was_cut.set()
            await self.flows.wait()
            writer.write(data)
            await writer.drain()
        await self.flows.wait()
        if writer.can_write_eof():
            writer.write_eof()
