"""A grpcio server that answers every call with UNAVAILABLE, as an application does that has lost its database.

Serves --port until SIGTERM. Prints `listening` when it does.
"""

import argparse
import concurrent.futures
import signal
import threading

import grpc


class Unavailable(grpc.GenericRpcHandler):
    def service(self, details):
        def answer(_request, context):
            context.abort(grpc.StatusCode.UNAVAILABLE, "no database")

        return grpc.unary_unary_rpc_method_handler(answer)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    options = arguments.parse_args()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[Unavailable()])
    server.add_insecure_port(f"0.0.0.0:{options.port}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    print("listening", flush=True)
    stop.wait()
    server.stop(grace=5).wait()


main()
