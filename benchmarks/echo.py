"""A bare gRPC echo server, whose cost says how fast this machine is: `python -m benchmarks.echo`."""

from typing import Any

import grpc
import grpc.aio
import uvloop

SERVICE, METHOD = "benchmarks.Echo", "Echo"
PATH = f"/{SERVICE}/{METHOD}"


async def serve() -> None:
    """Prints its port and serves until it is told to end."""

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve())
