"""The other run: it can be known by everything that processes may be known by, and stays until it is ended. Writes down
when it is ready, and who came."""

import ctypes
import pathlib
import socket
import sys
import threading
import time

mark, key, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
visitors = pathlib.Path("/root/visitors")
visitors.touch()


def serve(listener):
    while True:
        connection, _ = listener.accept()
        with visitors.open("a") as file:
            file.write("somebody came\n")
        connection.sendall(b"the other run")
        connection.close()


named = socket.socket(socket.AF_UNIX)
named.bind(f"\0{mark}")
for listener in (socket.create_server(("0.0.0.0", port)), named):
    listener.listen()
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
for folder in ("/dev/shm", "/tmp", "/root"):
    pathlib.Path(folder, mark).touch()
if ctypes.CDLL(None).shmget(key, 4096, 0o1666) < 0:
    sys.exit("no shared memory")
pathlib.Path("/root/ready").touch()
time.sleep(600)
