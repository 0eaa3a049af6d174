# SPDX-License-Identifier: Apache-2.0
"""A line server for apps.py: "inc" is answered with the count of such lines and of ticks of a timer. asyncio: epoll, a
socket pair for wake-ups, timers; a thread pool besides, and a child that echoes over pipes."""
import asyncio
import sys

count = ticks = 0


async def tick():
    global ticks
    while True:
        await asyncio.sleep(0.01)
        ticks += 1


async def main():
    child = await asyncio.create_subprocess_exec('cat', stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)

    async def serve(reader, writer):
        global count
        while line := await reader.readline():
            if line.strip() != b'inc':
                continue
            count += 1
            child.stdin.write(b'%d\n' % count)
            echoed = await child.stdout.readline()
            await asyncio.get_running_loop().run_in_executor(None, sum, range(1000))
            writer.write(b'%d %d\n' % (int(echoed), ticks))
            await writer.drain()
    asyncio.create_task(tick())
    server = await asyncio.start_server(serve, '0.0.0.0', int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
