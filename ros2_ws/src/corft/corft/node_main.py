"""The main function of every node process: spin, and stop safely on a signal."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from corft_core.errors import CorftError

if TYPE_CHECKING:
    from corft.node_base import NodeTools

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_node(node_class: Callable[[], NodeTools], args: list[str] | None = None, *, threads: int = 1) -> int:
    """Main function of a node process: build it, spin until SIGINT or SIGTERM, stop safely.

    `threads` > 1 takes a MultiThreadedExecutor. Returns the exit code: 0 after a signal, 1 when a callback
    raised, 2 when the node could not be built (message on stderr, no traceback).
    rclpy's own signal handlers would shut the context down at once, before the robot can be told to stop,
    so the process handles the signals itself.
    """
    exit_code = _run(node_class, args, threads)
    # Middleware objects sit in reference cycles: collected here, the process leaves the graph now, not when its
    # peers' leases run out.
    gc.collect()
    if "torch" in sys.modules:
        # The interpreter's own last collection would take seconds, and launch has no patience for that.
        gc.freeze()
    return exit_code


def _run(node_class: Callable[[], NodeTools], args: list[str] | None, threads: int) -> int:
    # With no handler of ours yet, a signal during construction ends the process the default way.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = node_class()
    except (CorftError, ParameterException) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        rclpy.try_shutdown()
        return 2
    assert isinstance(node, Node)
    stop = node.exit_requested

    def on_signal(number: int, _: object) -> None:
        node.interrupted |= number == signal.SIGINT
        stop.set()

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    executor: Executor = SingleThreadedExecutor() if threads == 1 else MultiThreadedExecutor(threads)
    for each in (node, *node.companions):
        executor.add_node(each)
    thread = threading.Thread(target=_spin, args=(executor, node), name="executor", daemon=True)
    thread.start()
    stop.wait()
    _stop_safely(node, executor, thread)
    executor.shutdown(timeout_sec=node.SAFE_STOP_TIMEOUT_S)
    thread.join(node.SAFE_STOP_TIMEOUT_S)
    node.dispose()
    for each in (*node.companions, node):
        each.destroy_node()
    rclpy.try_shutdown()
    node.release()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the process is about to end; its exit code shall stay
    return node.exit_code


def _spin(executor: Executor, node: NodeTools) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return  # somebody shut the context down: the ordinary end of spinning
    except Exception:
        if not node.exit_requested.is_set():
            print(f"a callback raised, stopping:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            node.exit_code = 1
    finally:
        node.exit_requested.set()


def _stop_safely(node: NodeTools, executor: Executor, thread: threading.Thread) -> None:
    """Run `safe_stop` in the executor, in line with other callbacks, or here when that does not answer; wait until what
    it sent has left."""
    done = threading.Event()
    if thread.is_alive():
        executor.create_task(node.safe_stop).add_done_callback(lambda _: done.set())
        done.wait(node.SAFE_STOP_TIMEOUT_S)
    if not done.is_set():
        node.safe_stop()
    thread.join(0.1)  # action results
    node.await_delivery()
