"""One model and one window on llama.cpp's own HTTP server, in a process of its own.

Started by `harness.engines.llamacpp`. Prints one line of JSON, `{"url": ...}`, on stdout once the model is
loaded; logs go to stderr. Ends when its stdin closes: a parent that was killed leaves no server behind.
(PR_SET_PDEATHSIG would not do: it follows the thread that started the process, not the parent.)
"""

from __future__ import annotations

import argparse
import json
import os
import threading


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one GGUF file on a free loopback port.")
    parser.add_argument("path")
    parser.add_argument("--num-ctx", type=int, required=True)
    arguments = parser.parse_args()

    # llama.cpp writes to stdout as it likes; the one line that the parent reads must stay alone there.
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from xllamacpp import CommonParams, Server, get_device_info, ggml_backend_dev_type

    # A generation can be aborted between two batches only. On a CPU 128 tokens cost no measurable speed
    # against 512 and end four times as soon; a GPU needs the larger batch and is quick enough with it.
    cpu = ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    batch = 128 if all(device["type"] == cpu for device in get_device_info()) else 512

    params = CommonParams()
    params.model.path = arguments.path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = arguments.num_ctx
    params.n_parallel = 1
    params.n_batch = params.n_ubatch = batch
    params.fit_params = False  # would shrink the window to the free memory
    params.ctx_shift = False  # would drop the middle of a conversation that grows too long
    params.cache_ram_mib = 0  # would bring an earlier run's prompt back from the host's memory
    params.prefill_assistant = False  # would go on with the conversation's last answer instead of giving another
    params.slot_save_path = "/dev/null/"  # switches on the erasing of a slot; saving one can't work there
    params.ui = False
    server = Server(params)
    print(json.dumps({"url": server.listening_address}), file=ready, flush=True)
    threading.Event().wait()


def _end_with_parent() -> None:
    # The file descriptor itself: Python's own stdin object takes locks that would delay the exit.
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
