"""The tests. They start processes while gRPC runs; its handlers of a fork could crash those before they begin."""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
